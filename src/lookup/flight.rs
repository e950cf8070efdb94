use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::telemetry::traces::carried;

/// One piece of work under way at most; a caller that wants its result meanwhile shares it. The
/// work runs in a task of its own, so a caller that goes away does not end it for the others.
pub struct Flight<T>(Mutex<Option<watch::Receiver<Option<T>>>>);

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

/// A place in the queue for a flight's result.
pub struct Joined<T>(watch::Receiver<Option<T>>);

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Joins the work under way, or starts it.
    pub fn join<F>(&self, work: impl FnOnce() -> F) -> Joined<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut current = lock(&self.0);
        if let Some(running) = current.as_ref().filter(|receiver| is_running(receiver)) {
            return Joined(running.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let work = work();
        tokio::spawn(carried(async move { sender.send_replace(Some(work.await)) }));
        *current = Some(receiver.clone());
        Joined(receiver)
    }

    /// Whether the work is under way.
    pub fn is_running(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(is_running)
    }
}

fn is_running<T>(receiver: &watch::Receiver<Option<T>>) -> bool {
    receiver.borrow().is_none() && receiver.has_changed().is_ok()
}

impl<T: Clone> Joined<T> {
    /// `None` if the work panicked.
    pub async fn result(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|value| value.clone())
    }
}

/// A panic elsewhere must not spread: what these locks guard is whole after every statement.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_shared_and_outlives_the_caller_that_started_it() {
        let flight = Flight::default();
        let runs = Arc::new(AtomicU32::new(0));
        let work = || {
            let runs = Arc::clone(&runs);
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        drop(flight.join(work));
        assert!(flight.is_running());
        let (a, b) = (flight.join(work), flight.join(work));
        assert_eq!((a.result().await, b.result().await), (Some(1), Some(1)));
        assert!(!flight.is_running());
        assert_eq!(flight.join(work).result().await, Some(2), "a finished flight is not joined");
    }

    #[tokio::test]
    async fn a_panic_is_no_result_and_the_next_caller_starts_anew() {
        let flight: Flight<u32> = Flight::default();
        assert_eq!(flight.join(|| async { panic!("planted") }).result().await, None);
        assert_eq!(flight.join(|| async { 7 }).result().await, Some(7));
    }
}
