//! What a process runs with, part by part: each from a source of its own, with the value that the
//! source gave when it was last good. What one says is applied whatever is wrong with another.

mod fingerprint;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::domain::{Problem, Timestamp};

pub use fingerprint::Fingerprint;
pub use watch::FolderWatch;

/// Files or folders that one thing is read from.
#[derive(Debug)]
pub struct Source<T> {
    value: Option<Arc<T>>,
    problems: Vec<Problem>,
    /// When the value was last known to be what the source says.
    confirmed_at: Option<Timestamp>,
    /// The files as they were when they were read.
    seen: Option<Fingerprint>,
}

/// What reading a source gave.
#[derive(Debug)]
pub enum Reading<T> {
    Good(T),
    /// Something is wrong with it, but what could be read counts: it takes away, or gives no more
    /// than it says.
    Partly(T, Vec<Problem>),
    /// Nothing can be said: the value stays as it was.
    Broken(Vec<Problem>),
}

impl<T> Reading<T> {
    pub fn new(value: T, problems: Vec<Problem>) -> Self {
        if problems.is_empty() { Self::Good(value) } else { Self::Partly(value, problems) }
    }
}

/// What a look at the sources is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Reads what has changed.
    Changed,
    /// Reads what is broken, too: what it needs may be there by now.
    Retry,
    /// Reads everything: somebody asked for it.
    Everything,
}

/// A look at the sources at some time.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    pub look: Look,
    pub at: Timestamp,
}

/// How a source is doing, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    pub name: String,
    pub in_force: bool,
    pub confirmed_at: Option<Timestamp>,
    /// Empty: all that the source says is in force.
    pub problems: Vec<String>,
}

impl SourceStatus {
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

impl<T> Default for Source<T> {
    fn default() -> Self {
        Self { value: None, problems: Vec::new(), confirmed_at: None, seen: None }
    }
}

impl<T> Source<T> {
    /// Reads the files if this look wants it, and says whether it did. `field` is to blame where
    /// reading panics, which must not keep others from being read. The value in force is lent to
    /// `read`.
    pub fn read<'f>(
        &mut self,
        field: &str,
        files: impl IntoIterator<Item = &'f Path>,
        glance: Glance,
        read: impl FnOnce(Option<&T>) -> Reading<T>,
    ) -> bool {
        let seen = Fingerprint::of(files);
        let due = match glance.look {
            Look::Changed => false,
            Look::Retry => !self.is_ok(),
            Look::Everything => true,
        };
        if !due && self.seen.as_ref() == Some(&seen) {
            self.confirm(glance.at);
            return false;
        }
        let value = self.value.as_deref();
        let reading = catch_unwind(AssertUnwindSafe(|| read(value))).unwrap_or_else(|_| {
            Reading::Broken(vec![Problem::new(field, "reading it failed", "report this fault")])
        });
        // Not what is there by now: a change while it was read has to be seen the next time.
        self.seen = Some(seen);
        self.take(reading, glance.at);
        true
    }

    pub fn take(&mut self, reading: Reading<T>, now: Timestamp) {
        let (value, problems) = match reading {
            Reading::Good(value) => (value, Vec::new()),
            Reading::Partly(value, problems) => (value, problems),
            Reading::Broken(problems) => {
                self.problems = problems;
                return;
            }
        };
        (self.value, self.problems) = (Some(Arc::new(value)), problems);
        self.confirm(now);
    }

    pub fn confirm(&mut self, now: Timestamp) {
        if self.is_ok() && self.value.is_some() {
            self.confirmed_at = Some(now);
        }
    }

    /// Has it read by the next look: what it is read against has changed.
    pub fn forget_seen(&mut self) {
        self.seen = None;
    }

    /// The value in force.
    pub fn value(&self) -> Option<&Arc<T>> {
        self.value.as_ref()
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    pub fn status(&self, name: impl Into<String>) -> SourceStatus {
        SourceStatus {
            name: name.into(),
            in_force: self.value.is_some(),
            confirmed_at: self.confirmed_at,
            problems: self.problems.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Vec<Problem> {
        vec![Problem::new("clients.file", "is gone", "restore it")]
    }

    #[test]
    fn the_last_good_value_stays_in_force_and_grows_old() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("clients.yaml");
        let mut source = Source::default();
        let mut look = |look, secs, read: fn(Option<&&str>) -> Reading<&'static str>| {
            let glance = Glance { look, at: Timestamp::from_secs(secs) };
            let done = source.read("clients.file", [file.as_path()], glance, read);
            let status = source.status("clients");
            let value = source.value().map(|value| **value);
            (done, value, status.is_ok(), status.confirmed_at.map(Timestamp::secs))
        };
        let unread = |_: Option<&&str>| -> Reading<&'static str> { panic!("nothing to read") };
        let one = look(Look::Changed, 10, |_| Reading::Good("one"));
        assert_eq!(one, (true, Some("one"), true, Some(10)));
        assert_eq!(look(Look::Retry, 20, unread), (false, Some("one"), true, Some(20)));

        std::fs::write(&file, "x").unwrap();
        let broken = look(Look::Changed, 30, |_| Reading::Broken(problem()));
        assert_eq!(broken, (true, Some("one"), false, Some(20)));
        assert_eq!(look(Look::Changed, 40, unread), (false, Some("one"), false, Some(20)));
        let part = look(Look::Retry, 50, |before| {
            assert_eq!(before, Some(&"one"));
            Reading::new("two", problem())
        });
        assert_eq!(part, (true, Some("two"), false, Some(20)));
        let good = look(Look::Everything, 60, |_| Reading::new("three", Vec::new()));
        assert_eq!(good, (true, Some("three"), true, Some(60)));
        let panicked = look(Look::Everything, 70, |_| panic!("while reading"));
        assert_eq!(panicked, (true, Some("three"), false, Some(60)));
    }
}
