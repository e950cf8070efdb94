//! Coming up, keeping up and going down.

mod supervise;

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use supervise::{Supervisor, TaskStatus};

/// From SIGTERM to the end at most, with a second to spare below the 25 that are promised.
/// Kubernetes' grace period has to be longer.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(24);

/// Ready once every guard is dropped, until draining begins.
#[derive(Clone)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
    draining: CancellationToken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Phase {
    pending: usize,
    draining: bool,
}

impl Phase {
    fn is_ready(self) -> bool {
        self.pending == 0 && !self.draining
    }
}

/// Something that has to happen before this process is ready. Dropping it says that it has.
pub struct Guard(watch::Sender<Phase>);

impl Default for Readiness {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::default()), draining: CancellationToken::new() }
    }
}

impl Readiness {
    /// Holds readiness back for as long as it lives.
    pub fn guard(&self) -> Guard {
        self.phase.send_modify(|phase| phase.pending += 1);
        Guard(self.phase.clone())
    }

    /// Whether this process can be sent requests.
    pub fn is_ready(&self) -> bool {
        self.phase.borrow().is_ready()
    }

    /// Whether this process is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until readiness is `wanted`.
    pub async fn becomes(&self, wanted: bool) {
        let mut phase = self.phase.subscribe();
        // An error would mean that no sender is left, but this very value holds one.
        let _ = phase.wait_for(|phase| phase.is_ready() == wanted).await;
    }

    /// From now on not ready; a holder of the token stops taking new work.
    pub fn start_draining(&self) {
        self.phase.send_modify(|phase| phase.draining = true);
        self.draining.cancel();
    }

    /// Cancelled when draining begins.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send_modify(|phase| phase.pending -= 1);
    }
}

/// The signals that a running process listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRequest {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

impl Signals {
    /// Fails where the system gives no signal handler.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.terminate.recv() => SignalRequest::Stop,
            _ = self.interrupt.recv() => SignalRequest::Stop,
            _ = self.hangup.recv() => SignalRequest::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_guard_is_dropped_and_never_while_draining() {
        let readiness = Readiness::default();
        let (one, two) = (readiness.guard(), readiness.guard());
        assert!(!readiness.is_ready());
        drop(one);
        assert!(!readiness.is_ready());
        drop(two);
        assert!(readiness.is_ready());
        readiness.start_draining();
        assert!(!readiness.is_ready() && readiness.draining().is_cancelled());
    }
}
