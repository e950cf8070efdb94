//! Who used which tenant, and who was refused: hourly counts, kept until they are taken.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

/// Deciding threads rarely share one.
const SHARDS: usize = 16;
/// Rows of one hour in a shard. What does not fit is counted under [`OTHER`].
const MAX_ROWS: usize = 4096;
/// Rows of refusals of one client in a shard: it may ask for any number of tenants.
const MAX_REFUSED: usize = 128;
/// In the place of issuer, client or tenant: all those without a row of their own.
pub const OTHER: &str = "other";
const HOUR: i64 = 3_600_000_000;

/// One decision, as it is counted. Times are microseconds since the Unix epoch.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub issuer: &'a str,
    pub client: &'a str,
    /// The tenant's reference, or empty.
    pub tenant: &'a str,
    /// `allowed`, or the reason of the denial.
    pub outcome: &'static str,
    pub refused: bool,
    pub at: i64,
}

/// What was counted under one key in one hour. `other` stands for names without room for a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The start of the hour, in microseconds since the Unix epoch.
    pub hour: i64,
    /// Who vouches for the client. Empty: no client was identified.
    pub issuer: String,
    /// The client id. Empty: no client was identified.
    pub client: String,
    /// The tenant's reference. Empty: none, or no client was identified.
    pub tenant: String,
    /// `allowed`, or the name of the reason for the refusal.
    pub outcome: &'static str,
    /// The decisions since the last [`Usage::take`].
    pub count: i64,
    /// The time of the first of them, in microseconds since the Unix epoch.
    pub first: i64,
    /// The time of the last of them, in microseconds since the Unix epoch.
    pub last: i64,
}

/// Counts decisions by hour, issuer, client, tenant and outcome, in bounded memory.
pub struct Usage {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    rows: HashTable<Counted>,
    /// How many rows of refusals each client has, by the client's hash.
    refused: HashMap<u64, usize>,
    hour: i64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl Usage {
    /// Counts one decision.
    pub fn count(&self, seen: Seen<'_>) {
        self.add(seen, 1, seen.at);
    }

    /// Puts back what was taken and could not be stored.
    pub fn give_back(&self, rows: &[Counted]) {
        for row in rows {
            let seen = Seen {
                issuer: &row.issuer,
                client: &row.client,
                tenant: &row.tenant,
                outcome: row.outcome,
                refused: false,
                at: row.first,
            };
            self.add(seen, row.count, row.last);
        }
    }

    /// What was counted since the last call. The hour's rows stay, with a count of 0: they count
    /// against the bounds until the hour ends.
    pub fn take(&self) -> Vec<Counted> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            for row in shard.rows.iter_mut().filter(|row| row.count > 0) {
                taken.push(row.clone());
                row.count = 0;
            }
        }
        taken
    }

    fn add(&self, seen: Seen<'_>, count: i64, last: i64) {
        let hour = seen.at - seen.at.rem_euclid(HOUR);
        let mut shard = lock(&self.shards[shard_of_this_thread()]);
        shard.begin(hour);
        let mut seen = seen;
        for _ in 0..3 {
            let hash = self.hash(hour, &seen);
            if let Some(row) = shard.rows.find_mut(hash, |row| row.is_of(hour, &seen)) {
                (row.first, row.last) = if row.count == 0 {
                    (seen.at, last)
                } else {
                    (row.first.min(seen.at), row.last.max(last))
                };
                row.count += count;
                return;
            }
            let client = self.hasher.hash_one((seen.issuer, seen.client));
            match shard.room_for(client, &seen) {
                Room::Yes => {
                    let row = Counted {
                        hour,
                        issuer: seen.issuer.to_owned(),
                        client: seen.client.to_owned(),
                        tenant: seen.tenant.to_owned(),
                        outcome: seen.outcome,
                        count,
                        first: seen.at,
                        last,
                    };
                    if seen.refused {
                        *shard.refused.entry(client).or_default() += 1;
                    }
                    shard.rows.insert_unique(hash, row, |row| {
                        self.hasher.hash_one((
                            row.hour,
                            &*row.issuer,
                            &*row.client,
                            &*row.tenant,
                            row.outcome,
                        ))
                    });
                    return;
                }
                Room::OfTheClient => seen.tenant = OTHER,
                Room::No => (seen.issuer, seen.client, seen.tenant) = (OTHER, OTHER, OTHER),
            }
        }
    }

    fn hash(&self, hour: i64, seen: &Seen<'_>) -> u64 {
        self.hasher.hash_one((hour, seen.issuer, seen.client, seen.tenant, seen.outcome))
    }
}

enum Room {
    Yes,
    /// Only in the row for the client's other tenants.
    OfTheClient,
    No,
}

impl Shard {
    /// A new hour starts empty, except for rows that are not taken yet. After a clock was set back,
    /// the later hour's bounds stay.
    fn begin(&mut self, hour: i64) {
        if hour > self.hour {
            self.hour = hour;
            self.refused.clear();
            self.rows.retain(|row| row.count > 0);
        }
    }

    fn room_for(&self, client: u64, seen: &Seen<'_>) -> Room {
        let others = [seen.tenant, seen.client].contains(&OTHER);
        let refused = self.refused.get(&client).copied().unwrap_or_default();
        // Some more rows for [`OTHER`] itself: as many as there are clients and reasons.
        match others {
            true if self.rows.len() < 2 * MAX_ROWS || seen.client == OTHER => Room::Yes,
            true => Room::No,
            false if seen.refused && refused >= MAX_REFUSED => Room::OfTheClient,
            false if self.rows.len() >= MAX_ROWS => Room::OfTheClient,
            false => Room::Yes,
        }
    }
}

impl Counted {
    fn is_of(&self, hour: i64, seen: &Seen<'_>) -> bool {
        self.hour == hour
            && self.tenant == seen.tenant
            && self.client == seen.client
            && self.issuer == seen.issuer
            && self.outcome == seen.outcome
    }
}

fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    OWN.get()
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(client: &'a str, tenant: &'a str, refused: bool, at: i64) -> Seen<'a> {
        let outcome = if refused { "tenant_not_granted" } else { "allowed" };
        Seen { issuer: "i", client, tenant, outcome, refused, at }
    }

    #[test]
    fn counts_add_up_by_the_hour_and_are_taken_once() {
        let usage = Usage::default();
        for at in [5, 7, 6] {
            usage.count(seen("a", "T1", false, HOUR + at));
        }
        usage.count(seen("a", "T1", true, HOUR + 9));
        usage.count(seen("a", "T1", false, 2 * HOUR));
        let mut rows = usage.take();
        rows.sort_by_key(|row| (row.hour, row.outcome));
        let told: Vec<_> =
            rows.iter().map(|row| (row.hour / HOUR, row.outcome, row.count)).collect();
        assert_eq!(told, [(1, "allowed", 3), (1, "tenant_not_granted", 1), (2, "allowed", 1)]);
        assert_eq!((rows[0].first, rows[0].last), (HOUR + 5, HOUR + 7));
        assert_eq!(usage.take(), []);
        usage.give_back(&rows);
        usage.count(seen("a", "T1", false, 2 * HOUR + 1));
        let counts: i64 = usage.take().iter().map(|row| row.count).sum();
        assert_eq!(counts, 6);
    }

    #[test]
    fn a_million_tenants_that_one_client_tries_take_few_rows() {
        let usage = Usage::default();
        for number in 0..1_000_000 {
            usage.count(seen("prober", &number.to_string(), true, HOUR));
        }
        usage.count(seen("other-app", "T1", false, HOUR));
        let rows = usage.take();
        assert!(rows.len() <= MAX_REFUSED + 2, "{}", rows.len());
        let others = rows.iter().find(|row| row.tenant == OTHER).unwrap();
        assert_eq!(others.count, 1_000_000 - MAX_REFUSED as i64);
        assert!(rows.iter().any(|row| row.client == "other-app" && row.tenant == "T1"));
    }

    #[test]
    fn however_many_clients_and_tenants_there_are_the_rows_are_bounded() {
        let usage = Usage::default();
        for number in 0..100_000 {
            let name = number.to_string();
            usage.count(seen(&name, &name, false, HOUR));
            if number % 100 == 0 {
                usage.take();
            }
        }
        let rows: usize = usage.shards.iter().map(|shard| lock(shard).rows.len()).sum();
        assert!(rows <= 2 * MAX_ROWS + 10, "{rows}");
        usage.take();
        // The next hour starts empty.
        usage.count(seen("a", "T1", false, 2 * HOUR));
        assert_eq!(usage.take().len(), 1);
    }
}
