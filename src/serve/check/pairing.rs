//! What the first checks of a connection tell of the gateway's settings: each finding is a warning
//! once, and a metric. `tenantgate lint` says the same of a config before it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::HeaderMap;

use super::wire::v1::HttpRequest;
use crate::authz::{HeaderValue, Headers as _};
use crate::telemetry::Metrics;

/// So many checks of each connection are looked at.
pub const LOOKED_AT: u32 = 100;
/// Envoy tells in it how long it waits for the answer.
const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";
/// Less is one bad pause of a throttled container; more is a queue.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    NoRequest,
    Body,
    AllHeaders,
    TimeoutShort,
    TimeoutLong,
    Path,
}

impl Finding {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NoRequest => "no_request",
            Self::Body => "body",
            Self::AllHeaders => "all_headers",
            Self::TimeoutShort => "timeout_short",
            Self::TimeoutLong => "timeout_long",
            Self::Path => "path",
        }
    }

    const fn cure(self) -> &'static str {
        match self {
            Self::NoRequest => {
                "the check has no HTTP request: use Envoy's HTTP filter, not the network filter"
            }
            Self::Body => {
                "bodies of requests are sent, which are never read: remove with_request_body"
            }
            Self::AllHeaders => {
                "cookies are sent, so probably all headers: name authorization and x-request-id in \
                 allowed_headers"
            }
            Self::TimeoutShort => {
                "Envoy waits less than 100 ms for a check: set grpc_service.timeout to 0.5s"
            }
            Self::TimeoutLong => {
                "Envoy waits more than 5 s for a check: set grpc_service.timeout to 0.5s"
            }
            Self::Path => {
                "paths arrive that Envoy should have refused or resolved: set normalize_path, \
                 merge_slashes and \
                 path_with_escaped_slashes_action"
            }
        }
    }
}

/// What has been found since the start.
pub struct Pairing {
    warned: AtomicU32,
    metrics: Arc<Metrics>,
}

impl Pairing {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { warned: AtomicU32::new(0), metrics }
    }

    /// Of the call, before its message is there.
    pub fn look_at_call(&self, headers: &HeaderMap) {
        let expected = headers.get(EXPECTED).and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(timeout) = expected.map(Duration::from_millis) else { return };
        if timeout < *TIMEOUTS.start() {
            self.found(Finding::TimeoutShort);
        } else if timeout > *TIMEOUTS.end() {
            self.found(Finding::TimeoutLong);
        }
    }

    pub fn look_at_request(&self, request: Option<&HttpRequest>) {
        let Some(request) = request else { return self.found(Finding::NoRequest) };
        if request.has_body() {
            self.found(Finding::Body);
        }
        if !matches!(request.get("cookie"), HeaderValue::Missing) {
            self.found(Finding::AllHeaders);
        }
        if is_unresolved(&request.path) {
            self.found(Finding::Path);
        }
    }

    fn found(&self, finding: Finding) {
        let bit = 1 << finding as u32;
        if self.warned.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.metrics.pairing_findings.with_label_values(&[finding.as_str()]).set(1);
            let (finding, cure) = (finding.as_str(), finding.cure());
            tracing::warn!(
                finding,
                cure,
                "the gateway is not set up as it should be; see `tenantgate lint envoy`"
            );
        }
    }
}

/// Whether Envoy, set up as it should be, would have refused or resolved this path.
fn is_unresolved(target: &[u8]) -> bool {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    let has = |part: &[u8]| lower.windows(part.len()).any(|window| window == part);
    has(b"//")
        || has(b"/../")
        || has(b"/./")
        || lower.ends_with(b"/..")
        || has(b"%2f")
        || has(b"%5c")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(look: impl Fn(&Pairing)) -> Vec<&'static str> {
        let metrics = Arc::new(Metrics::new());
        let pairing = Pairing::new(Arc::clone(&metrics));
        look(&pairing);
        look(&pairing);
        let all = [
            Finding::NoRequest,
            Finding::Body,
            Finding::AllHeaders,
            Finding::TimeoutShort,
            Finding::TimeoutLong,
            Finding::Path,
        ];
        let is_set = |finding: &Finding| {
            metrics.pairing_findings.with_label_values(&[finding.as_str()]).get() == 1
        };
        all.into_iter().filter(is_set).map(Finding::as_str).collect()
    }

    #[test]
    fn each_setting_that_shows_in_a_check_is_found() {
        let request =
            |path: &'static [u8]| HttpRequest { path: path.into(), ..HttpRequest::default() };
        assert_eq!(found(|pairing| pairing.look_at_request(None)), ["no_request"]);
        let fine = request(b"/api/T1/x?y=//..%2f");
        assert_eq!(found(|pairing| pairing.look_at_request(Some(&fine))), [""; 0]);
        for path in [&b"/api//T1"[..], b"/api/../T1", b"/api/T1%2Fx", b"/api/T1/.."] {
            let odd = request(path);
            assert_eq!(found(|pairing| pairing.look_at_request(Some(&odd))), ["path"], "{path:?}");
        }
        let body = HttpRequest { body: "{}".into(), ..request(b"/") };
        assert_eq!(found(|pairing| pairing.look_at_request(Some(&body))), ["body"]);
        for (millis, expected) in
            [("20", &["timeout_short"][..]), ("500", &[]), ("60000", &["timeout_long"]), ("x", &[])]
        {
            let headers = [(http::HeaderName::from_static(EXPECTED), millis.parse().unwrap())];
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(found(|pairing| pairing.look_at_call(&headers)), expected, "{millis}");
        }
    }
}
