//! Metrics and log set-up.

mod logs;
mod metrics;

pub use logs::{LogFormat, init as init_logs, log_panics};
pub use metrics::{ApiCounters, Metrics};
