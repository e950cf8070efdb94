//! Metrics, log set-up, and the stream of issuances and denials.

mod audit;
mod declared;
mod logs;
mod metrics;

pub use audit::{AuditStream, Rotation};
pub use logs::{LogFormat, dropped_lines, init as init_logs, log_panics};
pub use metrics::{ApiCounters, Metrics, StateGauges};
