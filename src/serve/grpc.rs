//! The check listener's transport: HTTP/2 by hyper. Checks take the short way through it; tonic's
//! layers around a service (routing, deadlines, boxed bodies) are of no use to them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Either as EitherBody;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use super::check::{CheckServer, Reply};
use super::finish::finish;
use super::gathering::Gathering;
use super::listener::Listener;
use super::streams::{Streams, streams, together};
use crate::lifecycle::Readiness;

/// Envoy opens one connection a worker and puts all its requests on it.
const MAX_STREAMS: u32 = 65_536;
/// A burst of client time-outs makes Envoy reset many streams at once. h2 takes 20 of them for an
/// attack and closes the connection, and with it every check under way.
const MAX_PENDING_RESETS: usize = 65_536;

/// Serves checks and health until `shutdown`, then finishes what is under way.
pub async fn serve(
    listener: Listener,
    check: CheckServer,
    readiness: Readiness,
    shutdown: impl Future<Output = ()>,
) {
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, false).await;
    let watcher = tokio::spawn(follow(reporter, readiness));
    let checks = TaskTracker::new();
    let health = Routes::new(health).prepare();
    let edge = Arc::new(Edge { check, checks: checks.clone(), health });
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok(stream) => {
                let edge = Arc::clone(&edge);
                let service = service_fn(move |request| Arc::clone(&edge).answer(request));
                let (executor, arriving) = streams();
                let connection = builder(executor).serve_connection(TokioIo::new(stream), service);
                let connection = graceful.watch(connection);
                tokio::spawn(async move {
                    // How a peer leaves is its own affair.
                    let _ = together(connection, arriving).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: others may be closed in a moment.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    finish(graceful, checks).await;
    watcher.abort();
}

type Stream = Gathering<Either<TcpStream, UnixStream>>;

async fn accept(listener: &Listener) -> io::Result<Stream> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Gathering(Either::Left(stream)))
        }
        Listener::Unix(listener) => Ok(Gathering(Either::Right(listener.accept().await?.0))),
    }
}

fn builder(executor: Streams) -> Builder<Streams> {
    let mut builder = Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// What is served on a connection.
struct Edge {
    check: CheckServer,
    /// Under way. Health is not: whoever watches it never ends by itself.
    checks: TaskTracker,
    health: Routes,
}

impl Edge {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<EitherBody<Reply, Body>>, Infallible> {
        if request.uri().path() == CheckServer::CHECK {
            let _under_way = self.checks.token();
            let response = self.check.answer(request.into_body()).await;
            return Ok(response.map(EitherBody::Left));
        }
        // Boxed: its large future would be part of every check's.
        let mut health = self.health.clone();
        let response = Box::pin(health.call(request.map(Body::new))).await?;
        Ok(response.map(EitherBody::Right))
    }
}

/// Health says what readiness says, also while it changes.
async fn follow(reporter: HealthReporter, readiness: Readiness) {
    let mut shown = false;
    loop {
        readiness.becomes(!shown).await;
        shown = !shown;
        report(&reporter, shown).await;
    }
}

async fn report(reporter: &HealthReporter, serving: bool) {
    let status = if serving {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    reporter.set_service_status("", status).await;
    reporter.set_service_status(CheckServer::NAME, status).await;
}
