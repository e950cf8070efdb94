use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

/// Names with values. Most answers fit without an allocation.
pub type Pairs<'a, V> = SmallVec<[(&'a str, V); 6]>;

/// What happens to a request.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
#[derive(Debug, PartialEq)]
pub enum Answer<'a> {
    /// The upstream gets the request.
    Allow(Allow<'a>),
    /// The caller gets this response instead of the upstream's.
    Deny(Deny<'a>),
}

/// The request passes, with what is known of it for the upstream.
#[derive(Debug, Default, PartialEq)]
pub struct Allow<'a> {
    /// Headers for the upstream; each overwrites what the client sent under its name.
    pub set: Pairs<'a, &'a str>,
    /// Headers that do not reach the upstream.
    pub remove: SmallVec<[&'a str; 6]>,
    /// For access logs, rate limits and rules further on.
    pub metadata: Pairs<'a, Value<'a>>,
}

/// The caller is refused.
#[derive(Debug, PartialEq)]
pub struct Deny<'a> {
    /// The HTTP status: 400, 401, 403, 429 or 503.
    pub status: u16,
    /// Among them `www-authenticate` (RFC 6750, section 3) and `retry-after`, where they apply.
    pub headers: Pairs<'a, Cow<'a, str>>,
    /// JSON with `error` and `error_description`.
    pub body: String,
}

/// A value of the metadata.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    /// A name, an id, or the reference of a tenant.
    Text(&'a str),
    /// A whole number, such as the requests of a quota.
    Number(u32),
    /// Named values, such as those of `quota` and `variables`.
    Fields(Vec<(&'a str, Value<'a>)>),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Fields(fields) => {
                for (at, (name, value)) in fields.iter().enumerate() {
                    let separator = if at == 0 { "" } else { ", " };
                    write!(f, "{separator}{name}={value}")?;
                }
                Ok(())
            }
        }
    }
}
