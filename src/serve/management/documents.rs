//! The bodies of calls and answers.

use serde::{Deserialize, Serialize};

/// A change that is stored, and in force in this process.
#[derive(Serialize)]
pub struct Done {
    pub seq: i64,
    /// RFC 3339, UTC.
    pub not_before: String,
}

impl Done {
    pub fn new(seq: i64, not_before: i64) -> Self {
        Self { seq, not_before: time(not_before) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    pub client_id: String,
    /// The code.
    pub tenant: String,
    /// A UUID. The same one again does nothing and is answered alike.
    pub request_id: Option<String>,
    /// Goes into the record of management actions.
    pub reason: Option<String>,
    /// How long evidence must come after now to count, such as `10s`.
    pub hold: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    pub client_id: String,
    /// The code.
    pub tenant: String,
    /// A UUID. The same one again does nothing and is answered alike.
    pub request_id: Option<String>,
    /// Goes into the record of management actions.
    pub reason: Option<String>,
}

/// Microseconds, as RFC 3339.
pub fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).unwrap_or_default().to_string()
}
