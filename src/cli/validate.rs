use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::app::{Loaded, ProcessKey};

/// Read the config, the client registry and every file they name, and show every problem.
#[derive(Args)]
pub struct ValidateArgs {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    match Loaded::read(&args.config, &ProcessKey::generate()?) {
        Ok(loaded) => {
            let clients = loaded.clients.as_ref().map_or(0, |book| book.len());
            let apis = loaded.config.apis.len();
            println!("{}: valid; APIs: {apis}, clients: {clients}", args.config.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            for problem in problems {
                println!("{problem}");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
