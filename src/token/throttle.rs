use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use prometheus::IntCounter;

use crate::domain::{Caller, Clock};
use crate::telemetry::Metrics;

/// Many clients may share one source: a gateway, a company's proxy.
const SOURCE_FACTOR: u32 = 10;
/// Above this many limits, those that have filled up again are forgotten.
const KEYS: usize = 100_000;

/// Slows down guessing. Asked only after the quick checks have failed, so a correct generated
/// secret is never delayed, whatever others do in the client's name.
pub struct Throttle {
    hasher: RandomState,
    /// One client from one source: failures from other sources do not count.
    by_client: Limit,
    by_source: Limit,
}

struct Limit {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, OurClock, NoOpMiddleware<Duration>>,
    refused: IntCounter,
}

struct OurClock(Arc<dyn Clock>);

impl GovernorClock for OurClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.monotonic().nanos())
    }
}

impl Throttle {
    /// `failures_per_minute` is for one client from one source; a source has ten times as many.
    pub fn new(failures_per_minute: NonZeroU32, clock: &Arc<dyn Clock>, metrics: &Metrics) -> Self {
        let limit = |per_minute, label| Limit {
            limiter: RateLimiter::dashmap_with_clock(
                Quota::per_minute(per_minute),
                OurClock(Arc::clone(clock)),
            ),
            refused: metrics.throttled.with_label_values(&[label]),
        };
        let factor = NonZeroU32::MIN.saturating_add(SOURCE_FACTOR - 1);
        Self {
            hasher: RandomState::new(),
            by_client: limit(failures_per_minute, "client"),
            by_source: limit(failures_per_minute.saturating_mul(factor), "source"),
        }
    }

    /// Counts one attempt; the error says how long to wait.
    pub fn attempt(&self, caller: Caller, client: &str) -> Result<(), Duration> {
        let source = caller.network();
        // The source first: it bounds how many names a caller can fill the other map with. Hashed,
        // so that a key's size is not the caller's choice.
        self.by_source.take(self.hasher.hash_one(source))?;
        self.by_client.take(self.hasher.hash_one((source, client)))
    }
}

impl Limit {
    fn take(&self, key: u64) -> Result<(), Duration> {
        if self.limiter.len() > KEYS {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&key).map_err(|not_until| {
            self.refused.inc();
            let now = self.limiter.clock().now();
            not_until.wait_time_from(now)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::domain::{ManualClock, Timestamp};

    fn source(last: u8) -> Caller {
        Caller(IpAddr::from([192, 0, 2, last]))
    }

    fn throttle() -> (Throttle, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_000)));
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        (Throttle::new(NonZeroU32::new(3).unwrap(), &shared, &Metrics::new()), clock)
    }

    fn failures(throttle: &Throttle, source: Caller, client: &str, attempts: usize) -> usize {
        (0..attempts).filter(|_| throttle.attempt(source, client).is_err()).count()
    }

    #[test]
    fn one_client_from_one_source_is_slowed_and_nobody_else() {
        let (throttle, clock) = throttle();
        assert_eq!(failures(&throttle, source(1), "victim", 5), 2);
        assert_eq!(failures(&throttle, source(2), "victim", 3), 0);
        assert_eq!(failures(&throttle, source(1), "other", 3), 0);
        clock.advance(Duration::from_secs(20));
        assert_eq!(failures(&throttle, source(1), "victim", 2), 1);
    }

    #[test]
    fn one_source_is_slowed_whatever_names_it_uses() {
        let (throttle, _clock) = throttle();
        let refused = (0..40)
            .filter(|name| throttle.attempt(source(1), &format!("c{name}")).is_err())
            .count();
        assert_eq!(refused, 10);
        let wait = throttle.attempt(source(1), "c").unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2));
    }
}
