use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{CONFIG_ENV, CONFIG_FILE};
use crate::domain::{SystemClock, TenantCode};
use crate::engine::{Engine, StartError};

/// Show the references that stand for tenants in logs and metadata. Reads tenant codes from
/// standard input, one a line, and prints each with its reference before it.
#[derive(Args)]
pub struct ReferenceArgs {
    #[arg(long, value_name = "FILE", env = CONFIG_ENV, default_value = CONFIG_FILE)]
    config: PathBuf,
}

pub fn run(args: &ReferenceArgs) -> anyhow::Result<ExitCode> {
    let engine = match Engine::open(&args.config, Arc::new(SystemClock)) {
        Ok(engine) => engine,
        Err(StartError::Config { problems, .. }) => {
            for problem in problems {
                eprintln!("tenantgate: {problem}");
            }
            return Ok(ExitCode::FAILURE);
        }
        Err(StartError::Other(error)) => return Err(error),
    };
    let snapshot = engine.gate.snapshot.load();
    let mut out = std::io::stdout().lock();
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.context("standard input cannot be read")?;
        let code = line.trim();
        if code.is_empty() {
            continue;
        }
        if TenantCode::parse(code).is_none() {
            bail!("line {} is not a tenant code; give one a line", index + 1);
        }
        writeln!(out, "{} {code}", snapshot.digester.reference(code))?;
    }
    Ok(ExitCode::SUCCESS)
}
