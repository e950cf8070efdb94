use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::domain::{ClientId, Monotonic};
use crate::lookup::{Unavailable, lock};

/// This many different clients must have met a provider that does not answer.
const DOWN_AFTER: usize = 3;

/// Whether the provider is down for all clients. One client whose lookup fails, however often and
/// for whatever reason, says nothing about the others.
#[derive(Default)]
pub struct Provider {
    /// The clients that have met an outage since the last good answer.
    failing: Mutex<Vec<ClientId>>,
    /// How many those are, readable without the lock.
    count: AtomicUsize,
    health: Mutex<Health>,
}

/// How the lookups of all clients went, for an operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// When the last good answer came. `None`: there was none.
    pub last_good: Option<Monotonic>,
    /// How many lookups have failed since the last good answer.
    pub failures: u64,
    /// Why the last one failed.
    pub last_failure: Option<Unavailable>,
}

impl Provider {
    pub fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    pub fn answered(&self, now: Monotonic) {
        *lock(&self.health) = Health { last_good: Some(now), ..Health::default() };
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut failing = lock(&self.failing);
            failing.clear();
            self.count.store(0, Ordering::Relaxed);
        }
    }

    pub fn failed(&self, client: &ClientId, reason: &Unavailable) {
        let mut health = lock(&self.health);
        health.failures += 1;
        health.last_failure = Some(reason.clone());
        drop(health);
        if reason.is_outage() && !self.is_down() {
            let mut failing = lock(&self.failing);
            if !failing.contains(client) {
                failing.push(client.clone());
            }
            self.count.store(failing.len(), Ordering::Relaxed);
        }
    }

    pub fn is_down(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= DOWN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(failures: &[(&str, Unavailable)]) -> Provider {
        let provider = Provider::default();
        for (client, reason) in failures {
            provider.failed(&ClientId::parse(client).unwrap(), reason);
        }
        provider
    }

    fn status(status: u16) -> Unavailable {
        Unavailable::Status { status, retry_after: None }
    }

    #[test]
    fn outages_of_several_clients_are_the_provider_s() {
        let reasons = [Unavailable::Timeout, Unavailable::Broken(String::new()), status(503)];
        let several: Vec<_> = ["a", "b", "c"].into_iter().zip(reasons.clone()).collect();
        let provider = after(&several);
        assert!(provider.is_down());
        assert_eq!(provider.health().failures, 3);
        assert_eq!(provider.health().last_failure, Some(status(503)));
        let now = Monotonic::from_secs(7);
        provider.answered(now);
        assert_eq!(provider.health(), Health { last_good: Some(now), ..Health::default() });
        assert!(!provider.is_down());
        assert!(!after(&several[..2]).is_down());
        let of_one: Vec<_> = ["a"; 30].into_iter().zip(reasons.into_iter().cycle()).collect();
        assert!(!after(&of_one).is_down());
    }

    #[test]
    fn a_definite_answer_concerns_its_client_only() {
        for reason in [
            status(404),
            status(410),
            status(429),
            Unavailable::NotJson,
            Unavailable::WrongShape(String::new()),
            Unavailable::TooLarge,
            Unavailable::Redirect(302),
            Unavailable::Unauthorized("403"),
            Unavailable::Busy,
        ] {
            let failures = ["a", "b", "c", "d", "e"].map(|client| (client, reason.clone()));
            assert!(!after(&failures).is_down(), "{reason}");
        }
    }
}
