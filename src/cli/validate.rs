use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::{CONFIG_ENV, CONFIG_FILE};
use crate::app::certificate_problems;
use crate::domain::{Clock, Problem, SystemClock};
use crate::engine::{Inputs, StartError};

/// Read the config, the client registry and every file they name, and show every problem. What is
/// allowed, but rarely meant, is a warning.
#[derive(Args)]
pub struct ValidateArgs {
    #[arg(long, value_name = "FILE", env = CONFIG_ENV, default_value = CONFIG_FILE)]
    config: PathBuf,
    /// Exit with 1 where there are warnings, too.
    #[arg(long)]
    strict: bool,
}

pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let inputs = Inputs::open(&args.config, Arc::clone(&clock)).and_then(|inputs| {
        let config = inputs.config();
        let problems = certificate_problems(&config, &clock);
        match problems.is_empty() {
            true => Ok(inputs),
            false => Err(StartError::Config { problems, warnings: config.warnings.clone() }),
        }
    });
    match inputs {
        Ok(inputs) => {
            let warnings = inputs.warnings();
            warn(&warnings);
            let clients = inputs.clients().map_or(0, |book| book.len());
            let apis = inputs.config().apis.len();
            println!("{}: valid; APIs: {apis}, clients: {clients}", args.config.display());
            let passes = warnings.is_empty() || !args.strict;
            Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(StartError::Other(error)) => Err(error),
        Err(StartError::Config { problems, warnings }) => {
            for problem in problems {
                println!("{problem}");
            }
            warn(&warnings);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        println!("warning: {warning}");
    }
}
