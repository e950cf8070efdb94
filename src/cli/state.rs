use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{CONFIG_ENV, CONFIG_FILE};
use crate::config::Config;
use crate::domain::SystemClock;
use crate::engine;
use crate::state::{LATEST, Store};

/// The database of the `state` section
#[derive(Debug, Args)]
pub struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Bring the schema up to what this build wants; does nothing if it is there
    Migrate(ConfigArgs),
    /// Show the schema and how much is stored; exit 1 if this build cannot work with it
    Status(ConfigArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    #[arg(long, value_name = "FILE", env = CONFIG_ENV, default_value = CONFIG_FILE)]
    config: PathBuf,
}

pub fn run(args: StateArgs) -> anyhow::Result<ExitCode> {
    let (StateCommand::Migrate(ConfigArgs { config })
    | StateCommand::Status(ConfigArgs { config })) = &args.command;
    let loaded = match Config::load(config) {
        Ok(loaded) => loaded,
        Err(problems) => {
            problems.iter().for_each(|problem| println!("{problem}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let section = loaded.state.context("the config has no `state` section")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = engine::state_backend(&section.engine).open(Arc::new(SystemClock)).await?;
        match args.command {
            StateCommand::Migrate(_) => migrate(&*store).await,
            StateCommand::Status(_) => status(&*store).await,
        }
    })
}

async fn migrate(store: &dyn Store) -> anyhow::Result<ExitCode> {
    let before = store.schema().await?.version;
    let after = store.migrate().await?.version;
    match before == after {
        true => println!("schema {after}: nothing to do"),
        false => println!("schema {before} -> {after}"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(store: &dyn Store) -> anyhow::Result<ExitCode> {
    let found = store.schema().await?.version;
    println!("schema: {found}, this build wants {LATEST}");
    if found != LATEST {
        return Ok(ExitCode::FAILURE);
    }
    let loaded = store.load().await?;
    println!("changes: {}", loaded.cursor.seq);
    let live = loaded.records.iter().filter(|record| !record.is_lifted());
    let (clients, withdrawals): (Vec<_>, Vec<_>) =
        live.partition(|record| record.key.target().is_none());
    println!("clients: {}", clients.len());
    println!("withdrawals: {}", withdrawals.len());
    Ok(ExitCode::SUCCESS)
}
