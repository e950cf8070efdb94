//! Metrics and log set-up.

mod declared;
mod logs;
mod metrics;

pub use logs::{LogFormat, dropped_lines, init as init_logs, log_panics};
pub use metrics::{ApiCounters, Metrics, StateGauges};
