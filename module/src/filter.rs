//! One request: read from Envoy, answered by the gate, the answer applied.

use std::sync::Arc;

use smallvec::SmallVec;
use tenantgate::authz::{CheckInput, HeaderValue, Headers};
use tenantgate::gate::{Allow, Answer, Deny, Request, Value};

use crate::config::FilterConfig;
use crate::engine::Running;

/// Most paths fit without an allocation.
type PathBuffer = SmallVec<[u8; 256]>;
/// A word on each header of an answer.
type Flags = SmallVec<[bool; 8]>;

/// The namespace of the metadata, as with external authorization: what reads it need not change.
const METADATA: &str = "envoy.filters.http.ext_authz";
const DENIED: &str = "tenantgate_denied";

/// What Envoy does for a request. Implemented in `abi`.
pub trait Host: Headers {
    /// Cheaper than setting, and right only where there is none of this name.
    fn add_header(&self, name: &str, value: &str);
    fn set_header(&self, name: &str, value: &str);
    fn remove_header(&self, name: &str);
    fn set_metadata(&self, namespace: &str, key: &str, value: &str);
    fn reply(&self, status: u16, headers: &[(&str, &str)], body: &str, details: &str);
    fn count(&self, counter: usize);
}

/// The ids of the counters that Envoy gave.
#[derive(Clone, Copy, Default)]
pub struct Counters {
    pub allowed: usize,
    pub denied: usize,
    /// Answered 503: nobody said no, but nobody could vouch.
    pub undecided: usize,
}

/// The filter of one place in Envoy's config.
pub struct Filter {
    running: Arc<Running>,
    api: Option<String>,
    metadata: bool,
    counters: Counters,
}

/// Whether the request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Continue,
    Answered,
}

impl Filter {
    pub fn new(config: FilterConfig, counters: Counters) -> Result<Self, String> {
        let running = Running::of(&config.config, config.socket()?)?;
        Ok(Self { running, api: config.api, metadata: config.metadata, counters })
    }

    /// `api` is the route's, which wins.
    pub fn request(&self, host: &impl Host, api: Option<&str>) -> Outcome {
        // A copy: what Envoy lends is gone once a header is set, and variables of the path are set
        // as headers.
        let path = PathBuffer::from_slice(one(host, ":path"));
        let request = Request {
            input: CheckInput {
                profile: api.or(self.api.as_deref()),
                // A method that is not text matches no route.
                method: str::from_utf8(one(host, ":method")).unwrap_or_default(),
                target: &path,
                headers: host,
            },
            id: b"",
            trace: None,
            metadata: self.metadata,
        };
        self.running.decider.answer(&request, |answer| self.apply(host, answer))
    }

    /// The answer where something of ours has panicked.
    pub fn failed(&self, host: &impl Host) -> Outcome {
        self.running.decider.failed(|answer| self.apply(host, answer))
    }

    fn apply(&self, host: &impl Host, answer: &Answer<'_>) -> Outcome {
        match answer {
            Answer::Allow(allow) => {
                host.count(self.counters.allowed);
                self.pass(host, allow);
                Outcome::Continue
            }
            Answer::Deny(deny) => {
                let undecided = deny.status >= 500;
                host.count(if undecided { self.counters.undecided } else { self.counters.denied });
                refuse(host, deny);
                Outcome::Answered
            }
        }
    }

    fn pass(&self, host: &impl Host, allow: &Allow<'_>) {
        // All looked up first: what Envoy lends is gone once a header is set.
        let is_there = |name: &str| !matches!(host.get(name), HeaderValue::Missing);
        let replaced: Flags = allow.set.iter().map(|(name, _)| is_there(name)).collect();
        let removed: Flags = allow.remove.iter().map(|name| is_there(name)).collect();
        for ((name, value), replaces) in allow.set.iter().zip(replaced) {
            // Some Envoys add no empty value.
            if replaces || value.is_empty() {
                host.set_header(name, value);
            } else {
                host.add_header(name, value);
            }
        }
        for (name, _) in allow.remove.iter().zip(removed).filter(|(_, is_there)| *is_there) {
            host.remove_header(name);
        }
        if self.metadata {
            for (key, value) in &allow.metadata {
                // Envoys before 1.40 take texts only.
                if let Value::Text(text) = value {
                    host.set_metadata(METADATA, key, text);
                }
            }
        }
    }
}

fn refuse(host: &impl Host, deny: &Deny<'_>) {
    let headers: SmallVec<[(&str, &str); 6]> =
        deny.headers.iter().map(|(name, value)| (*name, value.as_ref())).collect();
    host.reply(deny.status, &headers, &deny.body, DENIED);
}

/// A pseudo-header: there once, or not at all.
fn one<'h>(host: &'h impl Host, name: &str) -> &'h [u8] {
    match host.get(name) {
        HeaderValue::One(value) => value,
        HeaderValue::Missing | HeaderValue::Several => b"",
    }
}
