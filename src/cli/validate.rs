use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::domain::SystemClock;
use crate::engine::{Inputs, StartError};

/// Read the config, the client registry and every file they name, and show every problem.
#[derive(Args)]
pub struct ValidateArgs {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    match Inputs::open(&args.config, Arc::new(SystemClock)) {
        Ok(inputs) => {
            let clients = inputs.clients().map_or(0, |book| book.len());
            let apis = inputs.config().apis.len();
            println!("{}: valid; APIs: {apis}, clients: {clients}", args.config.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(StartError::Other(error)) => Err(error),
        Err(StartError::Config(problems)) => {
            for problem in problems {
                println!("{problem}");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
