use super::DenyReason;

/// Counts decisions. On the hot path: implementations must not lock.
pub trait Meter: Send + Sync {
    /// A request passed.
    fn allowed(&self);
    /// A request was refused.
    fn denied(&self, reason: DenyReason);
    /// What would have been denied, had the API not been in shadow mode.
    fn shadowed(&self, reason: DenyReason);
}
