use std::sync::Arc;

use crate::domain::GrantSet;
use crate::lookup::Unavailable;

/// What a lookup says of one client. Unavailable is neither granted nor denied.
#[derive(Clone, Debug)]
pub enum LookupOutcome {
    /// Not empty.
    Granted(Arc<GrantSet>),
    /// Empty: the provider says that no tenant has authorised this client.
    Denied(Arc<GrantSet>),
    /// The lookup failed; the grants are unknown.
    Unavailable(Unavailable),
}

impl LookupOutcome {
    pub(super) fn of(set: Arc<GrantSet>) -> Self {
        if set.codes.is_empty() { Self::Denied(set) } else { Self::Granted(set) }
    }

    /// The metric label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Granted(_) => "granted",
            Self::Denied(_) => "denied",
            Self::Unavailable(reason) => reason.as_str(),
        }
    }
}
