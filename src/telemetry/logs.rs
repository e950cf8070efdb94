use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// A panic is a fault of ours, and its message may hold what must not be printed: a tenant code, a
/// token. The place says enough.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%place, "a panic: this is a bug, please report it");
    }));
}

/// Lines that wait for the reader of the log.
const WAITING_LINES: usize = 16 * 1024;

/// Of the one log that a process has.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped because nobody read the log.
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Logs go to standard error; standard output is for what a command was asked for. A thread of its
/// own writes them: a reader that stalls must not hold up a check. What is left is written when the
/// guard goes.
pub fn init(level: LevelFilter, format: LogFormat) -> WorkerGuard {
    // Libraries below debug print headers and frames, and with them tokens and paths.
    let libraries = level.min(LevelFilter::INFO);
    let filter = Targets::new().with_default(libraries).with_target("tenantgate", level);
    let registry = tracing_subscriber::registry().with(filter);
    let writer = NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES);
    let (writer, guard) = writer.finish(io::stderr());
    let _ = DROPPED.set(writer.error_counter());
    let done = match format {
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
        }
        LogFormat::Text => {
            let colours = io::stderr().is_terminal();
            registry.with(fmt::layer().with_ansi(colours).with_writer(writer)).try_init()
        }
    };
    if let Err(error) = done {
        tracing::warn!(%error, "logging was set up before");
    }
    guard
}
