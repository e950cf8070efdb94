//! Metrics, log set-up, the stream of issuances and denials, and traces.

mod audit;
mod declared;
mod logs;
mod metrics;
#[cfg_attr(not(feature = "lookup"), expect(dead_code, unused_imports, reason = "no work goes on"))]
pub(crate) mod traces;

use std::sync::Arc;

use crate::domain::Clock;

pub use audit::{AuditStream, Rotation};
pub use logs::{LogFormat, dropped_lines, init as init_logs, log_panics};
pub use metrics::{ApiCounters, Metrics, StateGauges};

/// What every part that runs by itself needs: the time, and where it counts.
#[derive(Clone)]
pub struct Instruments {
    /// The only source of time.
    pub clock: Arc<dyn Clock>,
    /// One registry for the whole process.
    pub metrics: Arc<Metrics>,
}
