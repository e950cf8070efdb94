use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use hyper::rt::Executor;

/// Where hyper puts the streams of one HTTP/2 connection.
#[derive(Clone)]
pub struct Streams(UnboundedSender<BoxFuture<'static, ()>>);

/// The streams that [`in_one_task`] has not started yet.
pub struct Arriving(UnboundedReceiver<BoxFuture<'static, ()>>);

pub fn streams() -> (Streams, Arriving) {
    let (sender, receiver) = unbounded();
    (Streams(sender), Arriving(receiver))
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        // Fails only where the connection is gone, and with it the reader of the answer.
        let _ = self.0.unbounded_send(Box::pin(stream));
    }
}

/// Runs a connection and its streams in one task. As tasks of their own, the first stream to answer
/// would wake the connection, which the scheduler then runs at once: one system call an answer.
/// Like this all that has been read is answered first, and written together.
pub async fn in_one_task<C: Future>(connection: C, arriving: Arriving) -> C::Output {
    let mut connection = pin!(connection);
    let mut arriving = arriving.0;
    let mut running = FuturesUnordered::new();
    poll_fn(|context| {
        loop {
            if let Poll::Ready(output) = connection.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            while let Ok(stream) = arriving.try_recv() {
                // One that panics is reset by hyper as it goes; the others go on.
                running.push(AssertUnwindSafe(stream).catch_unwind());
            }
            let mut answered = false;
            while let Poll::Ready(Some(_)) = running.poll_next_unpin(context) {
                answered = true;
            }
            if !answered {
                return Poll::Pending;
            }
        }
    })
    .await
}
