//! The check listener: Envoy's external authorization over gRPC. The only folder that knows Envoy's
//! types.

mod message;
mod pairing;
mod reply;
#[cfg(test)]
mod tests;
mod unary;
mod wire;

use std::io;
use std::panic::catch_unwind;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use prost::Message as _;

pub use self::pairing::{LOOKED_AT, Pairing};
pub use self::unary::Reply;
use self::wire::v1::CheckRequest;
use crate::authz::CheckInput;
use crate::gate::{Gate, Request};
use crate::telemetry::traces::Parent;

/// The key of `context_extensions` that names the API.
const PROFILE: &[u8] = b"tenantgate_api";

/// The gRPC face of a [`Gate`].
#[derive(Clone)]
pub struct CheckServer(pub Arc<Gate>);

impl CheckServer {
    /// The full name of the gRPC service.
    pub const NAME: &'static str = "envoy.service.auth.v3.Authorization";
    /// What reflection tells of it, as a `FileDescriptorSet`.
    pub const DESCRIPTORS: &'static [u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/authorization.bin"));
    /// The path of its one method.
    pub const CHECK: &'static str = "/envoy.service.auth.v3.Authorization/Check";

    /// One message in, one message out; never a gRPC error.
    pub async fn answer(
        &self,
        body: impl http_body::Body<Data = Bytes, Error = io::Error>,
        call: Call<'_>,
    ) -> Response<Reply> {
        let message = match unary::message(body).await {
            // Our own bound, and not a fault of this request.
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                return unary::response(&self.0.failed(reply::render));
            }
            // What is not a message is answered as one without a request: denied, in so many words.
            message => message.ok().flatten().unwrap_or_default(),
        };
        unary::response(&called(&self.0, message, call))
    }
}

/// The bytes of a `CheckResponse` to those of a `CheckRequest`.
pub fn check(gate: &Gate, message: impl Into<Bytes>) -> Vec<u8> {
    called(gate, message.into(), Call::default())
}

/// What a call brings beside its message.
#[derive(Default)]
pub struct Call<'a> {
    pub trace: Option<Parent>,
    /// The message is to be looked at for what it tells of the gateway.
    pub pairing: Option<&'a Pairing>,
}

fn called(gate: &Gate, message: Bytes, call: Call<'_>) -> Vec<u8> {
    let Ok(message) = catch_unwind(|| CheckRequest::decode(message).unwrap_or_default()) else {
        return gate.failed(reply::render);
    };
    if let Some(pairing) = call.pairing {
        pairing.look_at_request(message.http());
    }
    let request = message.http().map(|http| Request {
        input: CheckInput {
            // A name that is not text names no API.
            profile: message
                .extension(PROFILE)
                .map(|name| str::from_utf8(name).unwrap_or_default()),
            // A method that is not text matches no route.
            method: str::from_utf8(&http.method).unwrap_or_default(),
            target: &http.path,
            headers: http,
        },
        id: &http.id,
        trace: call.trace.clone(),
        metadata: true,
    });
    gate.answer(request.as_ref(), reply::render)
}
