use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::{CONFIG_ENV, CONFIG_FILE};
use crate::app::{self, Addresses, Environment, Running, StartError};
use crate::domain::SystemClock;
use crate::lifecycle::{SignalRequest, Signals};

/// Run until SIGTERM or SIGINT; SIGHUP or a changed file reloads.
#[derive(Args)]
pub struct ServeArgs {
    #[arg(long, value_name = "FILE", env = CONFIG_ENV, default_value = CONFIG_FILE)]
    config: PathBuf,
    /// Write the bound addresses there as JSON once ready.
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
}

/// Token requests, lookups and scrapes share these; checks have threads of their own.
const BACKGROUND_THREADS: usize = 2;

pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    // Follows the container's CPU quota.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let checks = runtime("check", cores)?;
    let rest = runtime("background", BACKGROUND_THREADS.min(cores))?;
    let environment =
        Environment { clock: Arc::new(SystemClock), check_runtime: checks.handle().clone() };
    let code = rest.block_on(serve(args, environment))?;
    // Whatever is still open has had its time.
    checks.shutdown_background();
    rest.shutdown_background();
    Ok(code)
}

fn runtime(name: &str, threads: usize) -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name(format!("tenantgate-{name}")).enable_all();
    builder.build().context("no threads could be started")
}

async fn serve(args: &ServeArgs, environment: Environment) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("signals cannot be listened to")?;
    let mut running = match app::start(&args.config, environment).await {
        Ok(running) => running,
        Err(StartError::Config { problems, .. }) => {
            for problem in problems {
                eprintln!("tenantgate: {problem}");
            }
            return Ok(ExitCode::FAILURE);
        }
        Err(StartError::Other(error)) => return Err(error),
    };
    tell(&running.addresses, args.ports_file.as_deref())?;
    loop {
        tokio::select! {
            request = signals.next() => match request {
                SignalRequest::Reload => {
                    // The outcome is logged where it is handled.
                    let _ = running.reload().await;
                }
                SignalRequest::Stop => break,
            },
            error = running.failure() => return Err(error),
        }
    }
    tracing::info!("stopping");
    stop(running, signals).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// A second signal means: at once.
async fn stop(running: Running, mut signals: Signals) {
    let again = async { while signals.next().await != SignalRequest::Stop {} };
    tokio::select! {
        () = running.drain() => {}
        () = again => tracing::warn!("stopped without waiting for open connections"),
    }
}

fn tell(addresses: &Addresses, ports_file: Option<&Path>) -> anyhow::Result<()> {
    let Addresses { check, token, admin, feed, management } = addresses;
    let token = token.as_ref().map(ToString::to_string);
    let management = management.as_ref().map(ToString::to_string);
    let feed = feed.as_ref().map(ToString::to_string);
    tracing::info!(%check, token, %admin, feed, management, "ready");
    let Some(path) = ports_file else { return Ok(()) };
    let (check, admin) = (check.to_string(), admin.to_string());
    let text = json!({
        "check": check, "token": token, "admin": admin, "feed": feed, "management": management,
    });
    write_whole(path, &text.to_string()).with_context(|| {
        format!("--ports-file {}: cannot be written; choose a writable folder", path.display())
    })
}

/// A reader that waits for the file never sees half of it.
fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
