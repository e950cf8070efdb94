//! Generates the types of `proto/` without a system protoc.

use std::error::Error;

const PROTO: &str = "proto/tenantgate/directory/v1/directory.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let files = protox::compile([PROTO], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
