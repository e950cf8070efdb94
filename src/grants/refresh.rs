use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::Freshness;
use crate::domain::{ClientId, GrantSet, Timestamp};

use super::entry::Entry;
use super::{Hint, Tenants};

const TOKEN_TICK: Duration = Duration::from_millis(250);
const FASTEST_SCAN: Duration = Duration::from_millis(100);
const SLOWEST_SCAN: Duration = Duration::from_secs(1);
/// After so many failures in a row the provider is taken to be down, and only asked a few times
/// a scan until it answers.
const DOWN_AFTER: u32 = 5;
const PROBES: usize = 2;
/// The bound of the cache where there is no lookup config to set it.
const STATIC_ENTRIES: usize = 10_000;

impl Tenants {
    /// The work in the background, until `shutdown`: the refresh of active clients, hints, and the
    /// renewal of the lookup's own token.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let work = async {
            let mut hinted = self.hinted.lock().await;
            tokio::join!(self.keep_token(), self.follow_hints(&mut hinted), self.keep_fresh());
        };
        shutdown.run_until_cancelled(work).await;
    }

    async fn keep_token(&self) {
        loop {
            self.core.settings.load().directory.renew_token();
            sleep(TOKEN_TICK).await;
        }
    }

    async fn follow_hints(&self, hinted: &mut mpsc::Receiver<Hint>) {
        while let Some(Hint { client, at }) = hinted.recv().await {
            let entry = self.entry(&client);
            let answered = |set: &Arc<GrantSet>| set.looked_up_at > at;
            if entry.cell.current().as_ref().is_some_and(answered) {
                entry.cell.served();
                continue;
            }
            self.start(&client, &entry, true).await;
        }
    }

    async fn keep_fresh(&self) {
        loop {
            let settings = self.core.settings.load_full();
            if let Freshness::Lookup { refresh, max_age } = settings.freshness {
                self.refresh_due(max_age).await;
                sleep((refresh / 10).clamp(FASTEST_SCAN, SLOWEST_SCAN)).await;
            } else {
                sleep(SLOWEST_SCAN).await;
            }
            let limits = settings.directory.limits();
            self.evict(limits.map_or(STATIC_ENTRIES, |limits| limits.cache_clients));
        }
    }

    async fn refresh_due(&self, active_for: Duration) {
        for (client, entry) in self.due(active_for) {
            // Waiting for a place takes time, and a mint may have looked this one up meanwhile.
            if entry.may_look_up(self.core.clock.now()) {
                self.start(&client, &entry, false).await;
            }
        }
    }

    /// The active clients whose time has come, the longest overdue first. One pass over the
    /// entries that reads two atomics of each. A client that goes quiet stays active for `max_age`:
    /// within it its next call is vouched for, and must not meet grants from before the silence.
    pub(super) fn due(&self, active_for: Duration) -> Vec<(ClientId, Arc<Entry>)> {
        let now = self.core.clock.now();
        let active_since = now.minus(active_for);
        let is_due =
            |entry: &Entry| entry.cell.last_used() >= active_since && entry.may_look_up(now);
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| is_due(entry))
            .map(|entry| (entry.key().clone(), Arc::clone(entry.value())))
            .collect();
        due.sort_by_key(|(_, entry)| entry.not_before());
        if self.core.failures.load(Ordering::Relaxed) >= DOWN_AFTER {
            due.truncate(PROBES);
        }
        due
    }

    /// Starts a lookup as soon as there is a place for it, and serves the cell that hinted.
    async fn start(&self, client: &ClientId, entry: &Arc<Entry>, hinted: bool) {
        let directory = Arc::clone(&self.core.settings.load().directory);
        let permit = directory.background_permit().await;
        let seat = self.look_up(client, entry);
        let cell = hinted.then(|| Arc::clone(&entry.cell));
        tokio::spawn(async move {
            seat.result().await;
            drop(permit);
            if let Some(cell) = cell {
                cell.served();
            }
        });
    }

    /// Forgets the clients that were not used for the longest time. A cell that somebody holds
    /// must stay: a second one would not be the one that its holder reads.
    pub(super) fn evict(&self, bound: usize) {
        let excess = self.entries.len().saturating_sub(bound);
        if excess == 0 {
            return;
        }
        let idle = |entry: &Arc<Entry>| {
            Arc::strong_count(entry) == 1 && Arc::strong_count(&entry.cell) == 1
        };
        let mut candidates: Vec<(Timestamp, ClientId)> = self
            .entries
            .iter()
            .filter(|entry| idle(entry))
            .map(|entry| (entry.last_used(), entry.key().clone()))
            .collect();
        candidates.sort();
        for (_, client) in candidates.into_iter().take(excess) {
            if self.entries.remove_if(&client, |_, entry| idle(entry)).is_some() {
                self.size.dec();
            }
        }
    }
}
