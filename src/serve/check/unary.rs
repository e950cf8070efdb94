//! A unary gRPC call as it is on the wire: one message in the request's body, one in the
//! response's, and trailers. Tonic's own codec serves streams too, with two buffers of 8 KiB a
//! call, for which a check has no use.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body, Frame};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");
/// A byte that says whether the message is compressed, and four with its length.
const PREFIX: usize = 5;

/// Reads the one message of a request, whose body has its own bounds. `None`: it is none, or
/// compressed, which we never say that we accept.
pub async fn message<B: Body<Data = Bytes>>(body: B) -> Result<Option<Bytes>, B::Error> {
    let mut body = std::pin::pin!(body);
    // A message of usual size comes as one frame and is not copied.
    let (mut first, mut rest) = (Bytes::new(), Vec::new());
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() { first = data } else { rest.extend_from_slice(&data) }
    }
    Ok(unframed(if rest.is_empty() { first } else { [&first, &rest[..]].concat().into() }))
}

fn unframed(body: Bytes) -> Option<Bytes> {
    let ([0, length @ ..], message) = body.split_at_checked(PREFIX)? else { return None };
    (*length == (message.len() as u32).to_be_bytes()).then(|| body.slice(PREFIX..))
}

/// The response that carries one message.
pub fn response(message: &[u8]) -> Response<Reply> {
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.push(0);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    let mut response = Response::new(Reply::Message(framed.into()));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The body of a response: what is still to be sent of it.
#[derive(Default)]
pub enum Reply {
    Message(Bytes),
    Trailers,
    #[default]
    Nothing,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, rest) = match std::mem::replace(&mut *self, Self::Nothing) {
            Self::Message(message) => (Frame::data(message), Self::Trailers),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, OK);
                (Frame::trailers(trailers), Self::Nothing)
            }
            Self::Nothing => return Poll::Ready(None),
        };
        *self = rest;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Full, StreamBody};

    async fn read(frames: &[&[u8]]) -> Option<Bytes> {
        let frames: Vec<_> = frames
            .iter()
            .map(|frame| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(frame))))
            .collect();
        let Ok(message) = message(StreamBody::new(futures::stream::iter(frames))).await;
        message
    }

    #[tokio::test]
    async fn reads_one_message_however_it_is_cut() {
        assert_eq!(read(&[b"\0\0\0\0\x03abc"]).await.unwrap(), "abc");
        assert_eq!(read(&[b"\0", b"", b"\0\0\0\x03a", b"b", b"c"]).await.unwrap(), "abc");
        assert_eq!(read(&[b"\0\0\0\0\0"]).await.unwrap(), "");
    }

    #[tokio::test]
    async fn refuses_everything_else() {
        for broken in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x03ab", b"\0\0\0\0\x01ab", b"\x02\0\0\0\0"]
        {
            assert_eq!(read(&[broken]).await, None, "{broken:?}");
        }
        assert_eq!(read(&[b"\x01\0\0\0\x01a"]).await, None, "compressed");
    }

    #[tokio::test]
    async fn what_is_written_can_be_read_and_ends_with_a_status() {
        let response = response(b"reply");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(message(Full::new(body.to_bytes())).await.unwrap().unwrap(), "reply");
    }
}
