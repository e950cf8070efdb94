//! In the place of `traces.rs` where there are no listeners: a trace begins with a call, so that
//! none goes on here.

use std::future::Future;

use crate::domain::Timestamp;

/// The header of W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// There are none.
#[derive(Debug)]
pub enum Traces {}

impl Traces {
    pub fn record(&self, _: &Parent, _: Past) {
        match *self {}
    }
}

/// There is none.
#[derive(Clone, Debug)]
pub enum Parent {}

/// Work that is over already.
pub struct Past {
    pub name: &'static str,
    pub start: Timestamp,
    pub end: Timestamp,
    pub attributes: Vec<(&'static str, String)>,
}

/// The work alone.
pub async fn child<T>(
    _: &'static str,
    work: impl Future<Output = T>,
    _: impl FnOnce(&T) -> &'static str,
) -> T {
    work.await
}

/// The work alone.
pub fn carried<F: Future>(work: F) -> F {
    work
}

/// There is never a trace to go on with.
pub const fn outgoing() -> Option<String> {
    None
}
