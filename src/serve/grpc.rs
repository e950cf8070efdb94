//! The check listener's transport: HTTP/2 by hyper. Checks take the short way through it; tonic's
//! layers around a service (routing, deadlines, boxed bodies) are of no use to them. Health and
//! reflection are tonic's.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Either as EitherBody;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::accept::{Accepted, Entrance, serve_each};
use super::check::{Call, CheckServer, LOOKED_AT, Pairing, Reply};
use super::message_body::{MessageBody, MessageLimits};
use super::streams::{Streams, in_one_task, streams};
use crate::lifecycle::Readiness;
use crate::telemetry::traces::{Parent, TRACEPARENT};

/// Envoy opens one connection a worker and puts all its requests on it.
const MAX_STREAMS: u32 = 65_536;
/// A burst of client time-outs makes Envoy reset many streams at once. h2 takes 20 of them for an
/// attack and closes the connection, and with it every check under way.
const MAX_PENDING_RESETS: usize = 65_536;

/// A question for health or reflection is a name.
const MAX_OTHER_MESSAGE: usize = 16 * 1024;

/// What answers on the check listener.
pub struct CheckEdge {
    /// Answers the checks.
    pub check: CheckServer,
    /// Bounds of one message and of all unfinished ones.
    pub limits: Arc<MessageLimits>,
    /// For the health service.
    pub readiness: Readiness,
}

/// Serves checks and health until `shutdown`, then finishes what is under way.
pub async fn serve(entrance: Entrance, edge: CheckEdge, shutdown: impl Future<Output = ()>) {
    let CheckEdge { check, limits, readiness } = edge;
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, false).await;
    let watcher = tokio::spawn(follow(reporter, readiness));
    let checks = TaskTracker::new();
    let others = others(health.max_decoding_message_size(MAX_OTHER_MESSAGE));
    let pairing = Pairing::new(Arc::clone(&check.0.metrics));
    let edge = Arc::new(Edge { check, limits, checks: checks.clone(), others, pairing });
    let serve = move |arrival| serve_connection(Arc::clone(&edge), arrival);
    serve_each(entrance, serve, checks, shutdown).await;
    watcher.abort();
}

async fn serve_connection(edge: Arc<Edge>, arrival: Accepted) {
    let Accepted { stream, place, watcher, .. } = arrival;
    let asked = AtomicU32::new(0);
    let service = service_fn(move |request| {
        place.asked();
        let early = asked.fetch_add(1, Ordering::Relaxed) < LOOKED_AT;
        Arc::clone(&edge).answer(request, early)
    });
    let (executor, arriving) = streams();
    let connection = builder(executor).serve_connection(TokioIo::new(stream), service);
    // How a peer leaves does not matter.
    let _ = in_one_task(watcher.watch(connection), arriving).await;
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

/// Health, and reflection for tools such as grpcurl, in both of its versions.
fn others(health: HealthServer<impl Health>) -> Routes {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(CheckServer::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::new(health);
    // An error would be that of our own descriptors, which are the same in every process.
    if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
        routes = routes
            .add_service(v1.max_decoding_message_size(MAX_OTHER_MESSAGE))
            .add_service(v1alpha.max_decoding_message_size(MAX_OTHER_MESSAGE));
    }
    routes.prepare()
}

/// What is served on a connection.
struct Edge {
    check: CheckServer,
    limits: Arc<MessageLimits>,
    /// Under way. The others are not: a watch of the health service never ends by itself.
    checks: TaskTracker,
    others: Routes,
    pairing: Pairing,
}

impl Edge {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        early: bool,
    ) -> Result<Response<EitherBody<Reply, Body>>, Infallible> {
        if request.uri().path() == CheckServer::CHECK {
            let _under_way = self.checks.token();
            // Not looked for where there are no traces.
            let trace = self
                .check
                .0
                .ledger
                .traces
                .get()
                .and_then(|_| Parent::parse(request.headers().get(TRACEPARENT)?.as_bytes()));
            let pairing = early.then_some(&self.pairing);
            if let Some(pairing) = pairing {
                pairing.look_at_call(request.headers());
            }
            let body = MessageBody::new(request.into_body(), Arc::clone(&self.limits));
            let response = self.check.answer(body, Call { trace, pairing }).await;
            return Ok(response.map(EitherBody::Left));
        }
        // Boxed: its large future would be part of every check's.
        let mut others = self.others.clone();
        let response = Box::pin(others.call(request.map(Body::new))).await?;
        Ok(response.map(EitherBody::Right))
    }
}

/// Health says what readiness says, also while it changes.
async fn follow(reporter: HealthReporter, readiness: Readiness) {
    let mut serving = false;
    loop {
        readiness.becomes(!serving).await;
        serving = !serving;
        report(&reporter, serving).await;
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
