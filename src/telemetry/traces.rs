//! Spans for the traces that a caller has begun.

#[cfg(not(feature = "server"))]
mod none;
#[cfg(feature = "server")]
mod otlp;

use crate::domain::Timestamp;

#[cfg(not(feature = "server"))]
pub use none::{Parent, Traces, carried, child, outgoing};
#[cfg(feature = "server")]
pub use otlp::{Parent, Traces, carried, child, outgoing};

/// The header of W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// Work that is over already.
pub struct Past {
    /// Of its span.
    pub name: &'static str,
    /// When it began.
    pub start: Timestamp,
    /// When it was over.
    pub end: Timestamp,
    /// Names and values.
    pub attributes: Vec<(&'static str, String)>,
}
