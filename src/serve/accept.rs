//! The one accept loop: TCP and Unix sockets, with and without TLS, for every protocol.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;

use super::connections::{Connections, Place};
use super::finish::finish;
use super::listener::{Listener, Socket};
use super::peer::{Peer, PeerStream};
use super::tls::{CertificateName, Tls};

/// Where connections come in.
pub struct Entrance {
    /// Where connections are accepted.
    pub listener: Listener,
    /// `None`: plain.
    pub tls: Option<Arc<Tls>>,
    /// How many there are, and may be.
    pub connections: Arc<Connections>,
}

/// A connection that has been accepted.
pub struct Accepted {
    pub stream: PeerStream<Either<Socket, Box<TlsStream<Socket>>>>,
    pub peer: Peer,
    /// Of the client's certificate, where it had to show one.
    pub certificate: Option<CertificateName>,
    pub place: Arc<Place>,
    /// Ends the connection gracefully.
    pub watcher: Watcher,
}

/// Runs `serve` for every connection until `shutdown`, then waits until `requests` are answered.
pub async fn serve_each<F>(
    entrance: Entrance,
    serve: impl Fn(Accepted) -> F + Clone + Send + 'static,
    requests: TaskTracker,
    shutdown: impl Future<Output = ()>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut graceful = GracefulShutdown::new();
    let mut admission = entrance.tls.as_ref().map(|tls| tls.admission());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = next(&entrance) => accepted,
            () = changed(&mut admission) => {
                // Who was let in may not be any more, and has to show its certificate again.
                tokio::spawn(std::mem::take(&mut graceful).shutdown());
                continue;
            }
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((socket, peer, place)) => {
                let place = Arc::new(place);
                let arriving = Arriving {
                    socket,
                    peer,
                    place: Arc::clone(&place),
                    watcher: graceful.watcher(),
                };
                let (tls, serve) = (entrance.tls.clone(), serve.clone());
                let task = tokio::spawn(async move {
                    if let Some(arrival) = arriving.arrive(tls).await {
                        serve(arrival).await;
                    }
                });
                place.belongs_to(task.abort_handle());
            }
            Err(error) => {
                // Out of file descriptors, mostly: others may be closed in a moment.
                tracing::warn!(%error, listener = entrance.connections.listener,
                    "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(entrance);
    finish(graceful, requests).await;
}

async fn changed(admission: &mut Option<watch::Receiver<u64>>) {
    let never = match admission {
        Some(admission) => admission.changed().await.is_err(),
        None => true,
    };
    if never {
        std::future::pending::<()>().await;
    }
}

async fn next(entrance: &Entrance) -> io::Result<(Socket, Peer, Place)> {
    let (socket, peer) = match &entrance.listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            // Fails only where the peer has gone again, which is noticed soon enough.
            let _ = stream.set_nodelay(true);
            (Either::Left(stream), Peer(Some(peer)))
        }
        Listener::Unix(listener) => (Either::Right(listener.accept().await?.0), Peer(None)),
    };
    Ok((socket, peer, entrance.connections.place().await))
}

/// A connection before its handshake, if it needs one.
struct Arriving {
    socket: Socket,
    peer: Peer,
    place: Arc<Place>,
    watcher: Watcher,
}

impl Arriving {
    async fn arrive(self, tls: Option<Arc<Tls>>) -> Option<Accepted> {
        let Self { socket, peer, place, watcher } = self;
        let mut certificate = None;
        let stream = match tls {
            None => Either::Left(socket),
            Some(tls) => {
                let within = place.patience().to_begin;
                let Ok(Ok(stream)) = tokio::time::timeout(within, tls.handshake(socket)).await
                else {
                    place.closed_without_handshake();
                    return None;
                };
                let presented = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                certificate = presented.map(|presented| CertificateName::of(presented));
                Either::Right(Box::new(stream))
            }
        };
        let stream = PeerStream::new(stream, Arc::clone(&place));
        Some(Accepted { stream, peer, certificate, place, watcher })
    }
}
