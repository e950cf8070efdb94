//! Metrics, log set-up, the stream of issuances and denials, and traces.

mod audit;
mod declared;
mod logs;
mod metrics;
pub(crate) mod traces;

pub use audit::{AuditStream, Rotation};
pub use logs::{LogFormat, dropped_lines, init as init_logs, log_panics};
pub use metrics::{ApiCounters, Metrics, StateGauges};
