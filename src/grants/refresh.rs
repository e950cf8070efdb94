use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::Freshness;
use crate::domain::{ClientId, GrantSet, Monotonic};

use super::entry::Entry;
use super::shared::Wanted;
use super::{LookupHint, Settings, Tenants, WINDOW};

const TOKEN_TICK: Duration = Duration::from_millis(250);
const FASTEST_SCAN: Duration = Duration::from_millis(100);
const SLOWEST_SCAN: Duration = Duration::from_secs(1);
/// This many lookups of a scan try a provider that is down, until it answers.
const PROBES: usize = 2;
/// How often the active clients are counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// From this load on a warning is logged that the refresh is about to fall behind, and how often.
const HIGH_LOAD: f64 = 0.7;
const WARN_EVERY: Duration = Duration::from_secs(300);
/// The bound of the cache where there is no lookup config to set it.
const STATIC_ENTRIES: usize = 10_000;

fn has_grants(entry: &Entry) -> bool {
    entry.cell.current().as_ref().is_some_and(|set| !set.codes.is_empty())
}

/// When the load was last counted and warned about.
#[derive(Default)]
pub(super) struct LoadWatch {
    counted_at: Option<Monotonic>,
    warned_at: Option<Monotonic>,
}

#[cfg(test)]
impl LoadWatch {
    pub(super) fn has_warned(&self) -> bool {
        self.warned_at.is_some()
    }
}

impl Tenants {
    /// The background work, until `shutdown`: the refresh of active clients, hints, and the renewal
    /// of the lookup's own token.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let work = async {
            let mut hinted = self.hinted.lock().await;
            tokio::join!(
                self.keep_token(),
                self.follow_hints(&mut hinted),
                self.keep_fresh(),
                self.follow_shared()
            );
        };
        shutdown.run_until_cancelled(work).await;
    }

    async fn keep_token(&self) {
        loop {
            self.core.settings.load().directory.renew_token();
            sleep(TOKEN_TICK).await;
        }
    }

    async fn follow_hints(&self, hinted: &mut mpsc::Receiver<LookupHint>) {
        while let Some(LookupHint { client, at, newer_than }) = hinted.recv().await {
            let entry = self.entry(&client);
            let answered = |set: &Arc<GrantSet>| set.looked_up_at > at;
            if entry.cell.current().as_ref().is_some_and(answered) {
                entry.cell.served();
                continue;
            }
            self.start(&client, &entry, newer_than, true).await;
        }
    }

    async fn keep_fresh(&self) {
        let mut watch = LoadWatch::default();
        loop {
            let settings = self.core.settings.load_full();
            if let Freshness::Lookup { refresh, max_age } = settings.freshness {
                self.refresh_due(refresh, max_age).await;
                self.watch_load(&settings, &mut watch);
                sleep((refresh / 10).clamp(FASTEST_SCAN, SLOWEST_SCAN)).await;
            } else {
                sleep(SLOWEST_SCAN).await;
            }
            let limits = settings.directory.limits();
            self.evict(limits.map_or(STATIC_ENTRIES, |limits| limits.cache_clients));
        }
    }

    pub(super) async fn refresh_due(&self, refresh: Duration, active_for: Duration) {
        for (nth, (client, entry)) in self.due(active_for).into_iter().enumerate() {
            if self.sets_back(&entry, refresh, active_for) {
                continue;
            }
            if nth >= PROBES && self.core.provider.is_down() {
                return;
            }
            // Waiting for a place takes time, and a mint may have looked this one up meanwhile.
            let now = self.core.instruments.clock.monotonic();
            if entry.may_look_up(now) {
                self.start(&client, &entry, now.minus(refresh / 2), false).await;
            }
        }
    }

    /// The active clients whose time has come, the longest overdue first. One pass over the entries
    /// that reads two atomics of each. A client that goes quiet stays active for `max_age`: within
    /// that time its next call is vouched for, and must not see grants from before the pause.
    pub(super) fn due(&self, active_for: Duration) -> Vec<(ClientId, Arc<Entry>)> {
        let now = self.core.instruments.clock.monotonic();
        let active_since = now.minus(active_for);
        let is_due =
            |entry: &Entry| entry.may_look_up(now) && entry.cell.last_used() >= active_since;
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| is_due(entry))
            .map(|entry| (entry.key().clone(), Arc::clone(entry.value())))
            .collect();
        due.sort_by_key(|(_, entry)| entry.not_before());
        due
    }

    /// Warns in time that there are more active clients than the lookups can keep fresh.
    pub(super) fn watch_load(&self, settings: &Settings, watch: &mut LoadWatch) {
        let Freshness::Lookup { refresh, max_age } = settings.freshness else { return };
        let Some(places) = settings.directory.background_places() else { return };
        let now = self.core.instruments.clock.monotonic();
        if watch.counted_at.is_some_and(|at| now.since(at) < COUNT_EVERY) {
            return;
        }
        watch.counted_at = Some(now);
        let active_since = now.minus(max_age);
        let is_active = |entry: &Entry| entry.cell.last_used() >= active_since;
        let (mut active, mut granted) = (0, 0);
        for entry in self.entries.iter().filter(|entry| is_active(entry)) {
            active += 1;
            granted += usize::from(has_grants(&entry));
        }
        self.core.emptied.counted(granted, now, refresh.mul_f64(WINDOW));
        let load = self.core.pace.load_of(active, places, refresh);
        self.core.instruments.metrics.active_clients.set(active as i64);
        self.core.instruments.metrics.refresh_load.set(load);
        let recently = watch.warned_at.is_some_and(|at| now.since(at) < WARN_EVERY);
        if load >= HIGH_LOAD && !recently {
            watch.warned_at = Some(now);
            let lookup_millis = self.core.pace.mean().as_secs_f64() * 1000.0;
            tracing::warn!(
                active,
                lookup_millis,
                places,
                load,
                "the refresh of active clients {}; raise tenants.lookup.concurrency (half of it \
                 is for the refresh) or tenants.freshness.refresh",
                if load < 1.0 { "is about to fall behind" } else { "falls behind" },
            );
        }
    }

    /// Starts a lookup as soon as there is a place for it, and marks the hint of a cell as served.
    async fn start(
        &self,
        client: &ClientId,
        entry: &Arc<Entry>,
        newer_than: Monotonic,
        hinted: bool,
    ) {
        let directory = Arc::clone(&self.core.settings.load().directory);
        let permit = directory.background_permit().await;
        let seat = self.look_up(client, entry, Wanted::since(newer_than));
        let cell = hinted.then(|| Arc::clone(&entry.cell));
        tokio::spawn(async move {
            seat.result().await;
            drop(permit);
            if let Some(cell) = cell {
                cell.served();
            }
        });
    }

    /// Forgets the least recently used clients. A cell that is in use must stay: its holder would
    /// not see a second one.
    pub(super) fn evict(&self, bound: usize) {
        let excess = self.entries.len().saturating_sub(bound);
        if excess == 0 {
            return;
        }
        let idle = |entry: &Arc<Entry>| {
            Arc::strong_count(entry) == 1 && Arc::strong_count(&entry.cell) == 1
        };
        let mut candidates: Vec<(Monotonic, ClientId)> = self
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
