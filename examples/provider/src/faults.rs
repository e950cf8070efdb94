//! The ways in which the lookup and the token endpoint can be made to fail, see `PUT
//! /control/faults`.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the fault "redirect" points, see `control::attacker`.
pub const ATTACKER_PATH: &str = "/control/attacker";

const HUGE_BYTES: usize = 9 << 20;

/// Set on a response that must never be sent: the connection is closed instead.
#[derive(Clone)]
pub struct CloseConnection;

#[derive(Clone, Copy, PartialEq)]
pub enum Endpoint {
    Lookup,
    Token,
}

#[derive(Clone)]
pub enum Fault {
    /// The usual reply, late.
    Slow(Duration),
    Status(StatusCode),
    TooManyRequests {
        retry_after: u64,
    },
    Redirect,
    /// 200 and no JSON.
    Garbage,
    /// 200 and JSON that means nothing to the caller.
    WrongShape,
    /// 200 and more JSON than anybody should read.
    Huge,
    /// The connection ends without a reply.
    Closed,
    /// The connection ends within the body.
    Truncated,
    /// The head at once, the body a byte at a time.
    SlowBody,
    /// Lookup: 200 and an object without the array of tenants.
    MissingArray,
    /// Lookup: 200 and no tenant.
    Empty,
    /// Lookup: one good tenant code amid bad ones.
    BadCode,
    /// Token: the caller's credentials are refused.
    InvalidClient,
    /// Token: a good token, but no word on how long it lives.
    NoExpiry,
    /// Token: as above, but the token is a JWT with `exp`.
    JwtExpiry,
    /// Token: 200 and a web page, as a login portal would send.
    Html,
}

impl Fault {
    fn parse(kind: &str, endpoint: Endpoint) -> Result<Self, String> {
        use Endpoint::{Lookup, Token};

        let (name, argument) = match kind.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (kind, None),
        };
        let number: Option<u64> = argument
            .map(|text| {
                text.parse().map_err(|_| format!("`{text}` in `{kind}` is no whole number"))
            })
            .transpose()?;
        let fault = match (name, endpoint) {
            ("slow", _) => return Ok(Self::Slow(Duration::from_millis(number.unwrap_or(5000)))),
            ("429", _) => {
                let retry_after = number.unwrap_or(1);
                return Ok(Self::TooManyRequests { retry_after });
            }
            ("500", _) => Self::Status(StatusCode::INTERNAL_SERVER_ERROR),
            ("503", _) => Self::Status(StatusCode::SERVICE_UNAVAILABLE),
            ("401", _) => Self::Status(StatusCode::UNAUTHORIZED),
            ("403", _) => Self::Status(StatusCode::FORBIDDEN),
            ("404", _) => Self::Status(StatusCode::NOT_FOUND),
            ("redirect", _) => Self::Redirect,
            ("garbage", _) => Self::Garbage,
            ("wrong_shape", _) => Self::WrongShape,
            ("huge", _) => Self::Huge,
            ("closed", _) => Self::Closed,
            ("truncated", _) => Self::Truncated,
            ("slow_body", _) => Self::SlowBody,
            ("missing_array", Lookup) => Self::MissingArray,
            ("empty", Lookup) => Self::Empty,
            ("bad_code", Lookup) => Self::BadCode,
            ("invalid_client", Token) => Self::InvalidClient,
            ("no_expiry", Token) => Self::NoExpiry,
            ("jwt_expiry", Token) => Self::JwtExpiry,
            ("html", Token) => Self::Html,
            _ => {
                return Err(format!(
                    "`{kind}` is no fault of this endpoint; see examples/provider/src/faults.rs"
                ));
            }
        };
        match number {
            None => Ok(fault),
            Some(_) => {
                Err(format!("`{name}` takes no number; only `slow:MS` and `429:SECONDS` do"))
            }
        }
    }

    /// The reply that this fault puts in place of the usual one; `None` where the usual one follows
    /// after all.
    pub async fn reply(&self, endpoint: Endpoint) -> Option<Response> {
        let response = match self {
            Self::Slow(delay) => {
                tokio::time::sleep(*delay).await;
                return None;
            }
            Self::NoExpiry | Self::JwtExpiry => return None,
            Self::Status(status) => {
                (*status, json(r#"{"error":"injected fault"}"#)).into_response()
            }
            Self::TooManyRequests { retry_after } => {
                let headers = [(header::RETRY_AFTER, retry_after.to_string())];
                (StatusCode::TOO_MANY_REQUESTS, headers).into_response()
            }
            Self::Redirect => {
                (StatusCode::FOUND, [(header::LOCATION, ATTACKER_PATH)]).into_response()
            }
            Self::Garbage => json("{tenants: all of them").into_response(),
            Self::WrongShape => match endpoint {
                Endpoint::Lookup => json(r#"{"tenant_codes":"T1"}"#).into_response(),
                Endpoint::Token => json(r#"{"token":"unexpected-member"}"#).into_response(),
            },
            Self::Huge => huge(endpoint),
            Self::Closed => {
                let mut response = Response::default();
                response.extensions_mut().insert(CloseConnection);
                response
            }
            Self::Truncated => truncated(endpoint),
            Self::SlowBody => slow_body(endpoint),
            Self::MissingArray => json("{}").into_response(),
            Self::Empty => json(r#"{"tenants":[]}"#).into_response(),
            Self::BadCode => bad_codes(),
            Self::InvalidClient => crate::token::invalid_client(),
            Self::Html => Html("<!doctype html><title>Sign in</title><p>Please sign in.</p>\n")
                .into_response(),
        };
        Some(response)
    }
}

/// A fault in place, for good or for a number of requests.
#[derive(Serialize)]
struct Armed {
    kind: String,
    times: Option<u32>,
    #[serde(skip)]
    fault: Fault,
}

/// The fault of one endpoint, if any.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub struct Switch(Option<Armed>);

impl Switch {
    /// The fault for the request at hand; one with a count clears itself after the last.
    pub fn take(&mut self) -> Option<Fault> {
        let armed = self.0.as_mut()?;
        let fault = armed.fault.clone();
        if let Some(times) = &mut armed.times {
            *times -= 1;
            if *times == 0 {
                self.0 = None;
            }
        }
        Some(fault)
    }

    /// `null`, `"KIND"` or `{"kind": "KIND", "times": N}`; without `times` it stays.
    fn parse(value: Value, endpoint: Endpoint) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Counted {
            kind: String,
            times: Option<u32>,
        }

        let (kind, times) = match value {
            Value::Null => return Ok(Self(None)),
            Value::String(kind) => (kind, None),
            Value::Object(_) => {
                let counted: Counted =
                    serde_json::from_value(value).map_err(|error| error.to_string())?;
                (counted.kind, counted.times)
            }
            _ => return Err("use null, a kind or {\"kind\": KIND, \"times\": N}".to_owned()),
        };
        if times == Some(0) {
            return Err("`times` is 0; use null to clear the fault".to_owned());
        }
        let fault = Fault::parse(&kind, endpoint)?;
        Ok(Self(Some(Armed { kind, times, fault })))
    }
}

#[derive(Default, Serialize)]
pub struct Faults {
    pub lookup: Switch,
    pub token: Switch,
}

impl Faults {
    /// The body of `PUT /control/faults`; an endpoint that is left out has no fault.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Request {
            #[serde(default)]
            lookup: Value,
            #[serde(default)]
            token: Value,
        }

        let request: Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let lookup = Switch::parse(request.lookup, Endpoint::Lookup);
        let token = Switch::parse(request.token, Endpoint::Token);
        Ok(Self {
            lookup: lookup.map_err(|error| format!("lookup: {error}"))?,
            token: token.map_err(|error| format!("token: {error}"))?,
        })
    }
}

fn json(body: impl Into<Body>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], body.into())
}

/// A good answer, for the faults that lie in how it is sent.
fn good_answer(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Lookup => r#"{"tenants":[{"code":"T1001","name":"Tenant T1001"}],"plan":"gold"}"#,
        Endpoint::Token => {
            r#"{"access_token":"never-complete","token_type":"Bearer","expires_in":300}"#
        }
    }
}

fn huge(endpoint: Endpoint) -> Response {
    let (start, repeated, end) = match endpoint {
        Endpoint::Lookup => (r#"{"tenants":["#, r#"{"code":"T1001"},"#, r#"{"code":"T1002"}]}"#),
        Endpoint::Token => {
            (r#"{"access_token":""#, "huge", r#"","token_type":"Bearer","expires_in":300}"#)
        }
    };
    let chunk = Bytes::from(repeated.repeat(4096));
    let chunks = HUGE_BYTES.div_ceil(chunk.len());
    let body = stream::iter([Bytes::from(start)])
        .chain(stream::iter(std::iter::repeat_n(chunk, chunks)))
        .chain(stream::iter([Bytes::from(end)]))
        .map(Ok::<_, Infallible>);
    json(Body::from_stream(body)).into_response()
}

fn truncated(endpoint: Endpoint) -> Response {
    let answer = good_answer(endpoint);
    let sent = Bytes::from(&answer[..answer.len() / 2]);
    let broken_off = stream::once(async {
        // Time for the first half to leave before the connection goes down.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
    });
    let body = Body::from_stream(stream::iter([Ok(sent)]).chain(broken_off));
    ([(header::CONTENT_LENGTH, answer.len())], json(body)).into_response()
}

fn slow_body(endpoint: Endpoint) -> Response {
    let bytes = good_answer(endpoint).as_bytes().chunks(1);
    let dribble = stream::iter(bytes).then(|byte| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok::<_, Infallible>(byte)
    });
    json(Body::from_stream(dribble)).into_response()
}

fn bad_codes() -> Response {
    let overlong = "T".repeat(1000);
    let codes = ["T1001", "../x", "a/b", "", "T1 T2", "T1%2F..", &overlong];
    let tenants = codes.map(|code| serde_json::json!({ "code": code }));
    json(serde_json::json!({ "tenants": tenants }).to_string()).into_response()
}
