//! The one accept loop: TCP and Unix sockets, with and without TLS, for every protocol.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;

use super::connections::{Connections, Place};
use super::finish::finish;
use super::listener::{Listener, Socket};
use super::peer::{Peer, PeerStream};

/// Where connections come in.
pub struct Entrance {
    pub listener: Listener,
    pub connections: Arc<Connections>,
}

/// A connection that has been accepted.
pub struct Arrival {
    pub stream: PeerStream<Socket>,
    pub peer: Peer,
    pub place: Arc<Place>,
    /// Ends the connection gracefully.
    pub watcher: Watcher,
}

/// Runs `serve` for every connection until `shutdown`, then waits until `requests` are answered.
pub async fn serve_each<F>(
    entrance: Entrance,
    serve: impl Fn(Arrival) -> F,
    requests: TaskTracker,
    shutdown: impl Future<Output = ()>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = next(&entrance) => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((socket, peer, place)) => {
                let place = Arc::new(place);
                let stream = PeerStream::new(socket, Arc::clone(&place));
                let watcher = graceful.watcher();
                let arrival = Arrival { stream, peer, place: Arc::clone(&place), watcher };
                place.belongs_to(tokio::spawn(serve(arrival)).abort_handle());
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
