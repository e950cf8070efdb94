//! Metrics and log set-up.

mod logs;
mod metrics;

pub use logs::{LogFormat, init as init_logs};
pub use metrics::{ApiCounters, Metrics};
