//! Generates the types of `proto/` without a system protoc.

use std::error::Error;
use std::path::Path;

const DIRECTORY: &str = "proto/tenantgate/directory/v1/directory.proto";
const CHECK: &str = "proto/tenantgate/check/v1/check.proto";
const FEED: &str = "proto/tenantgate/feed/v1/feed.proto";
const AUTHORIZATION: &str = "proto/envoy/service/auth/v3/external_auth.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = std::env::var("OUT_DIR")?;
    tonic_prost_build::configure()
        // It holds keys: src/feed/mod.rs prints a stand-in.
        .skip_debug(["tenantgate.feed.v1.Rules"])
        // Parts of the buffer that they arrived in, not copies.
        .bytes(".tenantgate.check.v1")
        .compile_fds(protox::compile([DIRECTORY, FEED, CHECK], ["proto"])?)?;

    // For reflection; the types are for tests, which hold them to Envoy's.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_file(AUTHORIZATION)?;
    let descriptors = compiler.encode_file_descriptor_set();
    std::fs::write(Path::new(&out).join("authorization.bin"), descriptors)?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(false)
        .include_file("authorization.rs")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
