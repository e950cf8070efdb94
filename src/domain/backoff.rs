use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// How long to wait after failures in a row: twice as long after each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first.
    pub first: Duration,
    /// It grows no more from here on.
    pub longest: Duration,
}

impl Backoff {
    /// After `failures`, which counts from 1.
    pub fn after(self, failures: u32) -> Duration {
        let waits = ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .without_max_times();
        // After so many every wait is the longest.
        let nth = failures.clamp(1, 64) - 1;
        waits.build().nth(nth as usize).unwrap_or(self.longest)
    }

    /// The same or up to half of it less: those who failed together do not return together.
    pub fn spread_after(self, failures: u32) -> Duration {
        self.after(failures).mul_f64(0.5 + 0.5 * rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_the_longest() {
        let seconds = Duration::from_secs;
        let backoff = Backoff { first: seconds(1), longest: seconds(5) };
        let waits: Vec<_> = [0, 1, 2, 3, 4, u32::MAX].map(|n| backoff.after(n)).into();
        assert_eq!(waits, [1, 1, 2, 4, 5, 5].map(seconds));
        for failures in 1..100 {
            let spread = backoff.spread_after(failures);
            assert!(spread >= backoff.after(failures) / 2 && spread <= backoff.after(failures));
        }
    }
}
