use std::time::Duration;

use super::shape::Body;
use super::unavailable::Unavailable;

/// What a lookup does on its way, for people who wire a provider's API.
#[derive(Debug)]
pub enum Step<'a> {
    /// The lookup's own token is there.
    Token {
        /// Whether it was requested now.
        fetched: bool,
        /// How long it is still good.
        remaining: Duration,
    },
    /// The provider refused the token, and there is a new one.
    TokenReplaced {
        /// How long the new one is good.
        remaining: Duration,
    },
    /// A call begins.
    Asking {
        /// Without the query's values.
        url: String,
    },
    /// A page of an answer, as it came.
    Read {
        /// Counted from 1.
        page: u32,
        /// What is sent.
        body: Body<'a>,
    },
    /// The status of an answer that can be used, or why there is none.
    Answered {
        /// The status, or why there is none.
        status: Result<&'a str, &'a Unavailable>,
        /// From the call to the last byte.
        took: Duration,
    },
    /// The next try comes later.
    Waiting {
        /// How much later.
        delay: Duration,
    },
}

/// Follows the steps of one lookup, for `lookup test`.
pub type StepObserver<'a> = &'a (dyn Fn(Step<'_>) + Send + Sync);
