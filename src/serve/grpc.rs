use std::time::Duration;

use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::server::NamedService as _;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::check::CheckServer;
use super::listener::Listener;
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
) -> Result<(), tonic::transport::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, false).await;
    let watcher = tokio::spawn(follow(reporter, readiness));
    let router = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(health)
        .add_service(check);
    let served = match listener {
        Listener::Tcp(listener) => {
            // The builder's own setting does not reach sockets of an incoming stream.
            let incoming = TcpListenerStream::new(listener)
                .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
            router.serve_with_incoming_shutdown(incoming, shutdown).await
        }
        Listener::Unix(listener) => {
            let incoming = UnixListenerStream::new(listener);
            router.serve_with_incoming_shutdown(incoming, shutdown).await
        }
    };
    watcher.abort();
    served
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
