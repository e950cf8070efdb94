use std::process::ExitCode;

/// Gives memory back: with the system's allocator a burst of imported secrets, which take 19 MiB
/// each to check, left hundreds of MiB behind. It is quicker, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tenantgate::cli::run()
}
