use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connections::Place;

/// The preface of HTTP/2. A request of HTTP/1.1 that is shorter ends the wait, too.
const BEGINNING: usize = 24;

/// The other side of a connection. A Unix socket gives no address.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<SocketAddr>);

impl Peer {
    /// Who connects through a Unix socket is on this machine.
    pub fn ip(self) -> IpAddr {
        self.0.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
    }
}

/// A connection's stream: it notes when the peer sends something, and ends where it does not begin.
///
/// It offers no vectored writes. With them h2 sends every body of over 256 bytes, which our answers
/// have, by a system call of its own; without them it gathers many answers in one.
pub struct PeerStream<S> {
    stream: S,
    place: Arc<Place>,
    /// While the peer has not begun.
    silence: Option<Silence>,
}

struct Silence {
    read: usize,
    until: Pin<Box<Sleep>>,
}

impl<S> PeerStream<S> {
    pub fn new(stream: S, place: Arc<Place>) -> Self {
        let until = Box::pin(sleep(place.patience().to_begin));
        let silence = Silence { read: 0, until };
        Self { stream, place, silence: Some(silence) }
    }

    fn has_read(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.place.heard();
        if let Some(silence) = &mut self.silence {
            silence.read += bytes;
            if silence.read >= BEGINNING {
                self.silence = None;
            }
        }
    }

    fn check_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(silence) = &mut self.silence else { return Poll::Pending };
        if self.place.has_asked() {
            self.silence = None;
            return Poll::Pending;
        }
        silence.until.as_mut().poll(context).map(|()| {
            self.place.closed_for_silence();
            Err(io::Error::from(io::ErrorKind::TimedOut))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                self.has_read(buffer.filled().len() - before);
                Poll::Ready(read)
            }
            Poll::Pending => self.check_silence(context),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
