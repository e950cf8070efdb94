//! An answer as Envoy's `CheckResponse`. The field numbers are those of
//! `envoy/service/auth/v3/external_auth.proto`; the tests read the replies with the generated
//! types.

use tonic::Code;

use super::message::Message;
use crate::gate::{Allow, Answer, Deny, Value};

/// Enough for most replies, so that writing one allocates once.
const TYPICAL_REPLY: usize = 512;

pub fn render(answer: &Answer<'_>) -> Vec<u8> {
    let mut response = Message::with_capacity(TYPICAL_REPLY);
    match answer {
        Answer::Allow(allow) => allowed(&mut response, allow),
        Answer::Deny(deny) => denied(&mut response, deny),
    }
    response.into_bytes()
}

fn allowed(response: &mut Message, allow: &Allow<'_>) {
    response.message(1, |_ok| {});
    response.message(3, |ok| {
        for (name, value) in &allow.set {
            header(ok, 2, name, value);
        }
        for name in &allow.remove {
            ok.text(5, name);
        }
    });
    // Envoy puts it under `envoy.filters.http.ext_authz`.
    response.message(4, |metadata| {
        for (key, value) in &allow.metadata {
            entry(metadata, key, value);
        }
    });
}

fn denied(response: &mut Message, deny: &Deny<'_>) {
    response.message(1, |status| status.number(1, Code::PermissionDenied as u16));
    response.message(2, |denied| {
        denied.message(1, |status| status.number(1, deny.status));
        for (name, value) in &deny.headers {
            header(denied, 2, name, value);
        }
        denied.text(3, &deny.body);
    });
}

/// An entry of a `google.protobuf.Struct`.
fn entry(of: &mut Message, key: &str, value: &Value<'_>) {
    of.message(1, |entry| {
        entry.text(1, key);
        entry.message(2, |message| match value {
            Value::Number(number) => message.double(2, f64::from(*number)),
            Value::Text(text) => message.text(3, text),
            Value::Fields(fields) => message.message(5, |of| {
                for (key, value) in fields {
                    self::entry(of, key, value);
                }
            }),
        });
    });
}

/// A `HeaderValueOption` with `append: false`, which overwrites what the client sent. Deprecated,
/// but every Envoy from 1.36 on honours it, and alike.
fn header(of: &mut Message, field: u8, name: &str, value: &str) {
    of.message(field, |option| {
        option.message(1, |header| {
            header.text(1, name);
            header.text(2, value);
        });
        option.message(2, |_false| {});
    });
}
