use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the wall clock says, in nanoseconds since the Unix epoch. It may be set at any time, also
/// back: for what is in tokens and files, never for how long something took or has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// A clock that only goes forward, whatever becomes of the wall clock: for ages, deadlines and
/// waiting. Means something within this process only. Zero is long before its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

macro_rules! arithmetic {
    ($time:ident) => {
        impl $time {
            /// Since the epoch.
            pub const fn from_nanos(nanos: u64) -> Self {
                Self(nanos)
            }

            /// Since the epoch, as in the claims of RFC 7519, section 2.
            pub const fn from_secs(secs: u64) -> Self {
                Self(secs.saturating_mul(1_000_000_000))
            }

            /// Since the epoch.
            pub const fn nanos(self) -> u64 {
                self.0
            }

            /// Whole seconds since the epoch, rounded down.
            pub const fn secs(self) -> u64 {
                self.0 / 1_000_000_000
            }

            /// How long after `earlier` this is; zero if it is not after it.
            pub const fn since(self, earlier: Self) -> Duration {
                Duration::from_nanos(self.0.saturating_sub(earlier.0))
            }

            /// Saturates at the end of time.
            pub const fn plus(self, duration: Duration) -> Self {
                Self(self.0.saturating_add(nanos(duration)))
            }

            /// Saturates at the epoch.
            pub const fn minus(self, duration: Duration) -> Self {
                Self(self.0.saturating_sub(nanos(duration)))
            }
        }
    };
}

arithmetic!(Timestamp);
arithmetic!(Monotonic);

/// RFC 3339, in UTC, to the second.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = Duration::from_secs(self.secs());
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch).fmt(f)
    }
}

const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

/// Both readings of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For what is compared with the clocks of others: token times, certificates.
    pub wall: Timestamp,
    /// For ages and deadlines: it is never set.
    pub monotonic: Monotonic,
}

impl Moment {
    /// As a clock reads that was never set.
    pub const fn of(wall: Timestamp) -> Self {
        Self { wall, monotonic: Monotonic::from_nanos(wall.nanos()) }
    }

    /// What the wall clock would have said at `then`, had it always gone as it does now.
    pub const fn wall_at(self, then: Monotonic) -> Timestamp {
        self.wall.minus(self.monotonic.since(then))
    }

    /// How old what carries this time is. `None`: it is from the future by more than `leeway`, so
    /// one of two clocks is wrong, and it is not known which.
    pub fn age_of(self, then: Timestamp, leeway: Duration) -> Option<Duration> {
        (then <= self.wall.plus(leeway)).then(|| self.wall.since(then))
    }
}

/// Where time comes from. Passed in everywhere, so that tests decide what time it is.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Never goes back, and goes on while the machine sleeps.
    fn monotonic(&self) -> Monotonic;

    /// Both at once. A setting of the wall clock may show here a moment later than in `now`.
    fn moment(&self) -> Moment {
        Moment { monotonic: self.monotonic(), wall: self.now() }
    }
}

/// The clocks of this machine.
pub struct SystemClock;

/// What the monotonic clock shows at its first reading: old times must not come before zero.
const ORIGIN: u64 = Monotonic::from_secs(100 * 365 * 24 * 3600).nanos();
/// How often a moment looks at the wall clock. In between it goes by the monotonic one, so that a
/// check does not ask the system twice.
const COMPARE_EVERY: Duration = Duration::from_millis(20);

static FIRST_READING: OnceLock<Instant> = OnceLock::new();
/// When the two clocks were last compared, and how far the wall clock was ahead then.
static COMPARED: AtomicU64 = AtomicU64::new(0);
static AHEAD: AtomicU64 = AtomicU64::new(0);

#[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(nanos(since_epoch))
    }

    fn monotonic(&self) -> Monotonic {
        let first = FIRST_READING.get_or_init(Instant::now);
        Monotonic(ORIGIN + nanos(first.elapsed()))
    }

    fn moment(&self) -> Moment {
        let monotonic = self.monotonic();
        let compared = Monotonic(COMPARED.load(Ordering::Acquire));
        if monotonic.since(compared) < COMPARE_EVERY {
            let ahead = AHEAD.load(Ordering::Relaxed);
            return Moment { monotonic, wall: Timestamp(monotonic.0.wrapping_add(ahead)) };
        }
        let wall = self.now();
        AHEAD.store(wall.0.wrapping_sub(monotonic.0), Ordering::Relaxed);
        COMPARED.store(monotonic.0, Ordering::Release);
        Moment { monotonic, wall }
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    /// Begins at this time and stands still.
    pub fn at(start: Timestamp) -> Self {
        let Moment { wall, monotonic } = Moment::of(start);
        Self { wall: AtomicU64::new(wall.0), monotonic: AtomicU64::new(monotonic.0) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.wall.fetch_add(nanos(by), Ordering::SeqCst);
        self.monotonic.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// Somebody sets the wall clock; no time passes.
    pub fn set(&self, wall: Timestamp) {
        self.wall.store(wall.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.monotonic.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_system_s_moments_go_forward_and_show_the_wall_clock() {
        let mut last = SystemClock.moment();
        for _ in 0..10_000 {
            let moment = SystemClock.moment();
            assert!(moment.monotonic >= last.monotonic);
            let (wall, now) = (moment.wall, SystemClock.now());
            assert!(now.since(wall).max(wall.since(now)) < SECOND / 10, "{wall:?} {now:?}");
            last = moment;
        }
    }

    #[test]
    fn a_time_is_told_as_rfc_3339() {
        assert_eq!(Timestamp::from_secs(1_700_000_000).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(Timestamp::from_nanos(u64::MAX).to_string(), "2554-07-21T23:34:33Z");
    }

    #[test]
    fn what_comes_from_the_future_has_no_age() {
        let now = Moment::of(Timestamp::from_secs(1_000));
        let age = |secs| now.age_of(Timestamp::from_secs(secs), 10 * SECOND);
        assert_eq!(age(990), Some(10 * SECOND));
        assert_eq!(age(1_010), Some(Duration::ZERO));
        assert_eq!(age(1_011), None);
    }

    #[test]
    fn a_past_moment_is_told_by_the_clock_of_today() {
        let clock = ManualClock::at(Timestamp::from_secs(10_000));
        let then = clock.monotonic();
        clock.advance(5 * SECOND);
        clock.set(Timestamp::from_secs(6_400));
        assert_eq!(clock.moment().wall_at(then), Timestamp::from_secs(6_395));
    }
}
