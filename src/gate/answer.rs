use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

/// Most answers fit without an allocation.
pub type Pairs<'a, V> = SmallVec<[(&'a str, V); 6]>;

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
#[derive(Debug, PartialEq)]
pub enum Answer<'a> {
    Allow(Allow<'a>),
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
    pub status: u16,
    pub headers: Pairs<'a, Cow<'a, str>>,
    pub body: String,
}

/// A value of the metadata.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    Text(&'a str),
    Number(u32),
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
