use std::sync::{Arc, OnceLock};

use super::usage::Usage;
use crate::telemetry::AuditStream;
use crate::telemetry::traces::Traces;

/// Where decisions are kept for those who ask later. Nothing is, unless the config says so.
#[derive(Default)]
pub struct Ledger {
    pub usage: OnceLock<Arc<Usage>>,
    pub audit: OnceLock<Arc<AuditStream>>,
    pub traces: OnceLock<Arc<Traces>>,
}
