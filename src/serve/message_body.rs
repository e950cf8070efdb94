//! The body of a check: bounded in itself, in time, and together with all others that are
//! unfinished.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use prometheus::IntCounterVec;
use tokio::time::{Sleep, sleep};

use crate::telemetry::Metrics;

/// Envoy gives up on a check long before.
const FINISHED_WITHIN: Duration = Duration::from_secs(10);
/// What a request costs that waits for its message: its headers, its task.
const WAITING: usize = 4 * 1024;

/// The bounds of what checks may hold before they are whole.
pub struct MessageLimits {
    message: usize,
    unfinished: usize,
    held: AtomicUsize,
    refused: IntCounterVec,
}

impl MessageLimits {
    /// `message`: the bytes of one; `unfinished`: of all that have not ended yet, together.
    pub fn new(message: usize, unfinished: usize, metrics: &Metrics) -> Arc<Self> {
        let (held, refused) = (AtomicUsize::new(0), metrics.check_messages_refused.clone());
        Arc::new(Self { message, unfinished, held, refused })
    }

    fn refuse(&self, reason: &str, kind: io::ErrorKind) -> io::Error {
        self.refused.with_label_values(&[reason]).inc();
        io::Error::from(kind)
    }

    fn take(&self, bytes: usize) -> bool {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > self.unfinished {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        held <= self.unfinished
    }
}

/// A message that arrives whole, as nearly all do, is not counted and costs nothing.
pub struct MessageBody<B> {
    body: B,
    limits: Arc<MessageLimits>,
    read: usize,
    held: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl<B> MessageBody<B> {
    pub fn new(body: B, limits: Arc<MessageLimits>) -> Self {
        Self { body, limits, read: 0, held: 0, until: None }
    }

    /// Holds as much as has been read, and something for the waiting.
    fn hold(&mut self) -> io::Result<()> {
        let wanted = self.read + WAITING;
        let more = wanted.saturating_sub(self.held);
        if more > 0 && !self.limits.take(more) {
            return Err(self.limits.refuse("crowded", io::ErrorKind::OutOfMemory));
        }
        self.held = self.held.max(wanted);
        Ok(())
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if let Err(error) = self.hold() {
            return Poll::Ready(error);
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(FINISHED_WITHIN)));
        until.as_mut().poll(context).map(|()| self.limits.refuse("slow", io::ErrorKind::TimedOut))
    }
}

impl<B> Drop for MessageBody<B> {
    fn drop(&mut self) {
        if self.held > 0 {
            self.limits.held.fetch_sub(self.held, Ordering::Relaxed);
        }
    }
}

impl<B> Body for MessageBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Poll::Ready(polled) = Pin::new(&mut this.body).poll_frame(context) else {
            let error = ready!(this.wait(context));
            return Poll::Ready(Some(Err(error)));
        };
        let Some(frame) = polled else { return Poll::Ready(None) };
        let frame = frame.map_err(io::Error::other)?;
        this.read += frame.data_ref().map_or(0, Bytes::len);
        if this.read > this.limits.message {
            let error = this.limits.refuse("too_large", io::ErrorKind::FileTooLarge);
            return Poll::Ready(Some(Err(error)));
        }
        if !this.body.is_end_stream()
            && let Err(error) = this.hold()
        {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    type Sender = UnboundedSender<Result<Frame<Bytes>, Infallible>>;

    fn start(
        limits: &Arc<MessageLimits>,
    ) -> (Sender, impl Body<Data = Bytes, Error = io::Error> + Unpin + use<>) {
        let (sender, sent) = unbounded();
        (sender, MessageBody::new(StreamBody::new(sent), Arc::clone(limits)))
    }

    fn send(sender: &Sender, bytes: usize) {
        sender.unbounded_send(Ok(Frame::data(vec![0; bytes].into()))).unwrap();
    }

    async fn read(
        body: &mut (impl Body<Data = Bytes, Error = io::Error> + Unpin),
    ) -> io::Result<usize> {
        Ok(body.frame().await.unwrap()?.into_data().unwrap().len())
    }

    #[tokio::test]
    async fn all_unfinished_messages_share_a_bound_and_give_it_back() {
        let limits = MessageLimits::new(100_000, 150_000, &Metrics::new());
        let (first_sender, mut first) = start(&limits);
        let (second_sender, mut second) = start(&limits);
        send(&first_sender, 90_000);
        send(&second_sender, 90_000);
        assert_eq!(read(&mut first).await.unwrap(), 90_000);
        assert_eq!(read(&mut second).await.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        drop((first, second));
        assert_eq!(limits.held.load(Ordering::Relaxed), 0);
        let (third_sender, mut third) = start(&limits);
        send(&third_sender, 90_000);
        assert_eq!(read(&mut third).await.unwrap(), 90_000);
    }

    #[tokio::test]
    async fn one_message_has_a_bound_of_its_own() {
        let (sender, mut body) = start(&MessageLimits::new(100, 150_000, &Metrics::new()));
        send(&sender, 60);
        send(&sender, 60);
        assert_eq!(read(&mut body).await.unwrap(), 60);
        assert_eq!(read(&mut body).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_go_on_ends() {
        let (sender, mut body) = start(&MessageLimits::new(100, 150_000, &Metrics::new()));
        send(&sender, 60);
        assert_eq!(read(&mut body).await.unwrap(), 60);
        assert_eq!(read(&mut body).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_message_that_arrives_whole_holds_nothing() {
        let whole = Full::new(Bytes::from_static(b"whole"));
        let mut body = MessageBody::new(whole, MessageLimits::new(100, 0, &Metrics::new()));
        assert_eq!(read(&mut body).await.unwrap(), 5);
    }
}
