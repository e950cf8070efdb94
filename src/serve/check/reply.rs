//! An answer as Envoy's `CheckResponse`.

use bytes::Bytes;
use tonic::Code;

use super::wire::v1::check_response::HttpResponse;
use super::wire::v1::value::Kind;
use super::wire::v1::{
    BoolValue, CheckResponse, DeniedHttpResponse, Field, HeaderValue, HeaderValueOption,
    HttpStatus, OkHttpResponse, Status, Struct, Value,
};
use crate::gate;
use crate::gate::{Allow, Answer, Deny};

pub fn render(answer: &Answer<'_>) -> CheckResponse {
    match answer {
        Answer::Allow(allow) => allowed(allow),
        Answer::Deny(deny) => denied(deny),
    }
}

fn allowed(allow: &Allow<'_>) -> CheckResponse {
    CheckResponse {
        status: Some(Status { code: Code::Ok.into() }),
        // Envoy puts it under `envoy.filters.http.ext_authz`.
        dynamic_metadata: Some(fields(&allow.metadata)),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: allow.set.iter().map(|(name, value)| header(name, value)).collect(),
            headers_to_remove: allow.remove.iter().map(|name| text(name)).collect(),
        })),
    }
}

fn denied(deny: &Deny<'_>) -> CheckResponse {
    CheckResponse {
        status: Some(Status { code: Code::PermissionDenied.into() }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: deny.status.into() }),
            headers: deny.headers.iter().map(|(name, value)| header(name, value)).collect(),
            body: text(&deny.body),
        })),
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn fields(values: &[(&str, gate::Value<'_>)]) -> Struct {
    let fields =
        values.iter().map(|(name, value)| Field { key: text(name), value: value_of(value) });
    Struct { fields: fields.collect() }
}

fn value_of(value: &gate::Value<'_>) -> Option<Value> {
    let kind = match value {
        gate::Value::Number(number) => Kind::Number(f64::from(*number)),
        gate::Value::Text(value) => Kind::Text(text(value)),
        gate::Value::Fields(values) => Kind::Fields(fields(values)),
    };
    Some(Value { kind: Some(kind) })
}

/// With `append: false`, which overwrites what the client sent. Deprecated, but every Envoy from
/// 1.36 on honours it, and alike.
fn header(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: text(name), value: text(value), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), append: Some(BoolValue { value: false }) }
}
