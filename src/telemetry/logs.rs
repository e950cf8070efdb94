use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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

/// Logs go to standard error; standard output is for what a command was asked for.
pub fn init(level: LevelFilter, format: LogFormat) {
    // Libraries below debug print headers and frames, and with them tokens and paths.
    let libraries = level.min(LevelFilter::INFO);
    let filter = Targets::new().with_default(libraries).with_target("tenantgate", level);
    let registry = tracing_subscriber::registry().with(filter);
    let done = match format {
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_writer(io::stderr))
            .try_init(),
        LogFormat::Text => registry.with(fmt::layer().with_writer(io::stderr)).try_init(),
    };
    if let Err(error) = done {
        tracing::warn!(%error, "logging was set up before");
    }
}
