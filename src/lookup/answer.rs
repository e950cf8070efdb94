use super::select::Listed;
use crate::domain::Monotonic;

const MAX_ETAG: usize = 256;

/// What one try of a lookup found.
pub struct Answer {
    /// What it says of the client.
    pub grants: Grants,
    /// When the request was sent that got this answer.
    pub sent_at: Monotonic,
    /// As the protocol names it.
    pub status: String,
}

/// What an answer says of a client.
pub enum Grants {
    /// These tenants.
    Listed {
        /// With what else is said of the client.
        listed: Listed,
        /// For the next `If-None-Match` (RFC 9110, section 8.8.3).
        etag: Option<String>,
    },
    /// The validator still holds.
    Unchanged {
        /// The same, of an answer without tenants.
        etag: Option<String>,
    },
}

impl Grants {
    /// No tenant has authorised the client.
    pub fn none() -> Self {
        Self::Listed { listed: Listed::default(), etag: None }
    }
}

/// Bounded, because it is kept and sent back.
pub fn usable_etag(text: &str) -> Option<String> {
    let visible = text.bytes().all(|b| matches!(b, 0x21..=0x7e));
    (visible && (1..=MAX_ETAG).contains(&text.len())).then(|| text.to_owned())
}
