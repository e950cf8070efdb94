use std::process::ExitCode;

fn main() -> ExitCode {
    tenantgate::cli::run()
}
