use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::MassWithdrawal;
use crate::domain::{GrantSet, Monotonic};
use crate::lookup::lock;

use super::entry::Entry;

/// Clients that recently lost all their grants. One is news; many within one refresh are more
/// likely a lookup that answers wrongly than that many withdrawals.
#[derive(Default)]
pub struct Emptied {
    recent: Mutex<Recent>,
    /// Active clients with grants, last counted while no client had recently lost all.
    granted: AtomicUsize,
}

#[derive(Default)]
struct Recent {
    /// The oldest first.
    falls: VecDeque<Fall>,
    warned: bool,
}

struct Fall {
    at: Monotonic,
    /// What may be put back.
    lost: Option<Lost>,
}

/// A client's grants before an answer without any.
pub struct Lost {
    pub entry: Arc<Entry>,
    pub before: Arc<GrantSet>,
}

/// Many clients have lost everything within one refresh.
pub struct Mass {
    pub clients: usize,
    pub granted: usize,
    /// Not logged yet.
    pub is_news: bool,
    /// Clients that recently lost everything and were not returned here before.
    pub lost: Vec<Lost>,
}

impl Emptied {
    /// Takes the number of active clients that have grants. Ignored while clients lose theirs,
    /// since it shrinks with them.
    pub fn counted(&self, granted: usize, now: Monotonic, window: Duration) {
        let mut recent = lock(&self.recent);
        recent.forget(now, window);
        if recent.falls.is_empty() {
            self.granted.store(granted, Ordering::Relaxed);
        }
    }

    /// Records a client that has just lost everything.
    pub fn note(
        &self,
        lost: Lost,
        rule: &MassWithdrawal,
        now: Monotonic,
        window: Duration,
    ) -> Option<Mass> {
        let mut recent = lock(&self.recent);
        recent.forget(now, window);
        recent.falls.push_back(Fall { at: now, lost: Some(lost) });
        let (clients, granted) = (recent.falls.len(), self.granted.load(Ordering::Relaxed));
        let many = granted > 0 && clients as f64 >= rule.share * granted as f64;
        if clients < rule.at_least || !many {
            return None;
        }
        let is_news = !std::mem::replace(&mut recent.warned, true);
        let lost = recent.falls.iter_mut().filter_map(|fall| fall.lost.take()).collect();
        Some(Mass { clients, granted, is_news, lost })
    }
}

impl Recent {
    fn forget(&mut self, now: Monotonic, window: Duration) {
        while self.falls.front().is_some_and(|fall| now.since(fall.at) > window) {
            self.falls.pop_front();
        }
        self.warned &= !self.falls.is_empty();
    }
}
