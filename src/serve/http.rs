use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::finish::finish;
use super::gathering::Gathering;
use super::streams::{Streams, streams, together};

/// What slow and greedy peers get of an HTTP listener.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    pub connections: usize,
    /// For the whole head of a request.
    pub header_read: Duration,
    /// Between two reads, also on an idle connection, and for a peer that does not read.
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
    let connections = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let requests = TaskTracker::new();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, requests) = (router.clone(), requests.clone());
                let connection = Connection { stream, peer, permit, limits };
                connection.spawn(router, requests, &graceful);
            }
            Err(error) => {
                // Out of file descriptors, mostly: others may be closed in a moment.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    finish(graceful, requests).await;
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

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    limits: HttpLimits,
}

impl Connection {
    fn spawn(self, router: Router, requests: TaskTracker, graceful: &GracefulShutdown) {
        let peer = ConnectInfo(self.peer);
        let service = router
            .map_request(move |mut request: http::Request<_>| {
                request.extensions_mut().insert(peer);
                request
            })
            .map_future(move |answer| requests.track_future(answer));
        let mut stream = TimeoutStream::new(self.stream);
        stream.set_read_timeout(Some(self.limits.idle));
        stream.set_write_timeout(Some(self.limits.idle));
        let io = TokioIo::new(Gathering(Box::pin(stream)));
        let (executor, arriving) = streams();
        let connection = builder(executor, self.limits)
            .serve_connection(io, TowerToHyperService::new(service))
            .into_owned();
        let connection = graceful.watch(connection);
        let permit = self.permit;
        tokio::spawn(async move {
            // How a peer leaves is its own affair.
            let _ = together(connection, arriving).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn start(limits: HttpLimits) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", axum::routing::get(|| async { "hello" }));
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, router, limits, shutdown.clone()));
        (address, shutdown)
    }

    fn limits() -> HttpLimits {
        HttpLimits {
            header_read: Duration::from_millis(300),
            idle: Duration::from_millis(600),
            ..HttpLimits::with_connections(2)
        }
    }

    /// Whether the other side ends the connection before patience does.
    async fn ends(stream: &mut TcpStream) -> bool {
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
    }

    #[tokio::test]
    async fn a_head_that_drips_and_a_silent_connection_are_ended() {
        let (address, _shutdown) = start(limits()).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert!(ends(&mut silent).await);

        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let drip = tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nhost: a\r\nx: ".iter().cycle() {
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut rest = Vec::new();
        assert!(timeout(PATIENCE, read.read_to_end(&mut rest)).await.is_ok());
        drip.abort();
    }

    #[tokio::test]
    async fn a_peer_that_asks_and_never_reads_is_ended() {
        let (address, _shutdown) = start(limits()).await;
        let mut greedy = TcpStream::connect(address).await.unwrap();
        let requests = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
        let stuffed = async { while greedy.write_all(&requests).await.is_ok() {} };
        assert!(timeout(PATIENCE * 2, stuffed).await.is_ok());
    }

    #[tokio::test]
    async fn more_connections_than_allowed_wait_for_a_place() {
        let (address, _shutdown) = start(limits()).await;
        let _one = TcpStream::connect(address).await.unwrap();
        let _two = TcpStream::connect(address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut byte = [0];
        let early = timeout(Duration::from_millis(200), third.read(&mut byte)).await;
        assert!(early.is_err(), "answered although both places are taken");
        let mut answer = String::new();
        timeout(PATIENCE, third.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn a_peer_that_asks_nothing_does_not_hold_up_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let limits = HttpLimits::with_connections(2);
        let served = tokio::spawn(serve(listener, Router::new(), limits, shutdown.clone()));
        let mut silent = TcpStream::connect(address).await.unwrap();
        // HTTP/2 with empty settings, and not a word more, not even to a PING.
        silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        shutdown.cancel();
        timeout(PATIENCE, served).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn shutting_down_finishes_what_is_under_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "done"
        };
        let router = Router::new().route("/", axum::routing::get(slow));
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, router, limits(), shutdown.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        shutdown.cancel();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.ends_with("done"), "{answer}");
        timeout(PATIENCE, served).await.unwrap().unwrap();
    }
}
