use std::sync::{Arc, OnceLock};

use super::usage::Usage;
use crate::telemetry::AuditStream;
use crate::telemetry::traces::Traces;

/// Further records of decisions. Each is unset unless the config asks for it.
#[derive(Default)]
pub struct Ledger {
    /// Counts by client and tenant, which the engine stores in the shared state.
    pub usage: OnceLock<Arc<Usage>>,
    /// Gets a line for each refusal, also those that shadow mode lets pass.
    pub audit: OnceLock<Arc<AuditStream>>,
    /// Gets a span for each request whose trace is sampled.
    pub traces: OnceLock<Arc<Traces>>,
}
