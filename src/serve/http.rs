use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus::IntCounter;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::accept::{Accepted, Entrance, serve_each};
use super::connections::{Place, UnderWay};
use super::streams::{Streams, in_one_task, streams};

/// What slow and greedy peers get of an HTTP listener, beside its bound on connections.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// For the whole head of a request.
    pub header_read: Duration,
    /// Between two reads, also on an idle connection, and for a peer that does not read.
    pub idle: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { header_read: Duration::from_secs(10), idle: Duration::from_secs(75), streams: 128 }
    }
}

const MAX_HEAD: usize = 32 * 1024;

/// Serves a router over HTTP/1.1 and HTTP/2 until `shutdown`, then finishes what is under way.
pub async fn serve(
    entrance: Entrance,
    router: Router,
    limits: HttpLimits,
    shutdown: CancellationToken,
) {
    let requests = TaskTracker::new();
    let panics = entrance.connections.panics.clone();
    let server = Server { router, limits, requests: requests.clone(), panics };
    let serve = move |arrival| server.clone().serve(arrival);
    serve_each(entrance, serve, requests, shutdown.cancelled()).await;
}

#[derive(Clone)]
struct Server {
    router: Router,
    limits: HttpLimits,
    requests: TaskTracker,
    panics: IntCounter,
}

impl Server {
    async fn serve(self, arrival: Accepted) {
        let Accepted { stream, peer, certificate, place, watcher } = arrival;
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(self.limits.idle));
        stream.set_write_timeout(Some(self.limits.idle));
        let (executor, arriving) = streams();
        let builder = builder(executor, self.limits);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            self.answer(request, Arc::clone(&place))
        });
        let io = TokioIo::new(Box::pin(stream));
        let connection = builder.serve_connection(io, service).into_owned();
        // How a peer leaves does not matter.
        let _ = in_one_task(watcher.watch(connection), arriving).await;
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        place: Arc<Place>,
    ) -> impl Future<Output = Result<Response, Infallible>> + use<> {
        let (version, counted) = (request.version(), self.requests.token());
        let exchange = Arc::new(Exchange {
            under_way: UnderWay::begin(place),
            read_whole: AtomicBool::new(request.body().is_end_stream()),
        });
        let panics = self.panics.clone();
        let body = |body| Body::new(RequestBody { body, exchange: Arc::clone(&exchange) });
        let answer = self.router.clone().oneshot(request.map(body));
        async move {
            let _counted = counted;
            // A handler that panics must not end the other streams of its connection.
            let answered = AssertUnwindSafe(answer).catch_unwind().await;
            let Ok(mut response) = answered.unwrap_or_else(|_| {
                panics.inc();
                Ok(panicked())
            });
            let unread = !exchange.read_whole.load(Ordering::Relaxed);
            if unread && version <= Version::HTTP_11 {
                // What is left of the body would be taken for the next request.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    }
}

fn panicked() -> Response {
    let body = r#"{"error":"server_error","error_description":"a fault of this server"}"#;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn builder(executor: Streams, limits: HttpLimits) -> Builder<Streams> {
    let mut builder = Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// A request and its answer.
struct Exchange {
    under_way: Arc<UnderWay>,
    read_whole: AtomicBool,
}

/// The body of a request. A peer that does not send it on loses its place.
struct RequestBody {
    body: Incoming,
    exchange: Arc<Exchange>,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Exchange { under_way, read_whole } = &*self.exchange;
        match &polled {
            Poll::Pending => under_way.waits_for_its_sender(),
            Poll::Ready(_) => under_way.goes_on(),
        }
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            read_whole.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
