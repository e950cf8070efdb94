use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// What slow and greedy peers get of an HTTP listener.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    pub connections: usize,
    /// For the whole head of a request.
    pub header_read: Duration,
    /// Between two reads, also on an idle connection.
    pub idle: Duration,
    pub streams: u32,
}

impl HttpLimits {
    pub fn with_connections(connections: usize) -> Self {
        Self {
            connections,
            header_read: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            streams: 128,
        }
    }
}

const MAX_HEAD: usize = 32 * 1024;

/// Serves a router over HTTP/1.1 and HTTP/2 until `shutdown`, then finishes what is under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    shutdown: CancellationToken,
) {
    let builder = Arc::new(builder(limits));
    let connections = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let router = router.clone();
                let connection = Connection { builder: Arc::clone(&builder), stream, peer, permit };
                connection.spawn(router, limits.idle, &graceful);
            }
            Err(error) => {
                // Out of file descriptors, mostly: others may be closed in a moment.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn builder(limits: HttpLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
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

struct Connection {
    builder: Arc<Builder<TokioExecutor>>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
}

impl Connection {
    fn spawn(self, router: Router, idle: Duration, graceful: &GracefulShutdown) {
        let peer = ConnectInfo(self.peer);
        let service = router.map_request(move |mut request: http::Request<_>| {
            request.extensions_mut().insert(peer);
            request
        });
        let mut stream = TimeoutStream::new(self.stream);
        stream.set_read_timeout(Some(idle));
        let io = TokioIo::new(Box::pin(stream));
        let connection =
            self.builder.serve_connection(io, TowerToHyperService::new(service)).into_owned();
        let connection = graceful.watch(connection);
        let permit = self.permit;
        tokio::spawn(async move {
            // How a peer leaves is its own affair.
            let _ = connection.await;
            drop(permit);
        });
    }
}
