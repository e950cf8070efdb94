use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much a new lookup weighs in the mean.
const WEIGHT: f64 = 1.0 / 16.0;
/// Jitter around `refresh`: it keeps replicas and clients apart, within the bound.
const EARLIEST: f64 = 0.9;
const LATEST: f64 = 1.1;
/// How much earlier than that it may be under full load, so that clients that came at once do not
/// fall due at once.
const SPREAD: f64 = 0.4;

/// How long lookups take, and what that means for the refresh of the active clients.
#[derive(Default)]
pub struct Pace {
    /// The moving mean of a lookup's seconds, as the bits of a float.
    mean: AtomicU64,
    /// The last load, likewise.
    load: AtomicU64,
}

impl Pace {
    pub fn took(&self, took: Duration) {
        let (mean, took) = (self.mean().as_secs_f64(), took.as_secs_f64());
        // Of two at a time one may be lost, which a mean tolerates.
        let mean = if mean == 0.0 { took } else { mean + (took - mean) * WEIGHT };
        self.mean.store(mean.to_bits(), Ordering::Relaxed);
    }

    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(f64::from_bits(self.mean.load(Ordering::Relaxed)))
    }

    /// The share of its places' time that the refresh of this many clients takes. Above 1 it cannot
    /// keep its bound.
    pub fn load_of(&self, active: usize, places: usize, refresh: Duration) -> f64 {
        let load =
            active as f64 * self.mean().as_secs_f64() / (places as f64 * refresh.as_secs_f64());
        self.load.store(load.to_bits(), Ordering::Relaxed);
        load
    }

    /// How long after a lookup the next one is due.
    pub fn until_next(&self, refresh: Duration) -> Duration {
        let load = f64::from_bits(self.load.load(Ordering::Relaxed)).min(1.0);
        let earliest = EARLIEST - SPREAD * load;
        refresh.mul_f64(earliest + (LATEST - earliest) * rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(60);

    #[test]
    fn the_load_is_what_the_lookups_need_of_their_places() {
        let pace = Pace::default();
        assert_eq!(pace.load_of(100_000, 16, REFRESH), 0.0, "nothing is known yet");
        pace.took(Duration::from_millis(6));
        let load = pace.load_of(100_000, 16, REFRESH);
        assert!((0.62..0.63).contains(&load), "{load}");
        for _ in 0..200 {
            pace.took(Duration::from_millis(12));
        }
        let load = pace.load_of(100_000, 16, REFRESH);
        assert!((1.24..1.26).contains(&load), "{load}");
    }

    #[test]
    fn the_next_refresh_is_never_late_and_spreads_with_the_load() {
        let pace = Pace::default();
        let earliest = |pace: &Pace| {
            let times: Vec<_> = (0..1_000).map(|_| pace.until_next(REFRESH)).collect();
            assert!(times.iter().all(|time| *time <= REFRESH.mul_f64(1.1)));
            times.into_iter().min().unwrap()
        };
        assert!(earliest(&pace) >= REFRESH.mul_f64(0.9));
        pace.took(Duration::from_millis(6));
        pace.load_of(100_000, 16, REFRESH);
        assert!(earliest(&pace) < REFRESH.mul_f64(0.75));
    }
}
