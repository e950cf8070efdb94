//! What this process knows of the state, and how a row changes that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::client::without_credentials;
use super::record::{Key, Kind, Record};
use super::store::Loaded;
use crate::domain::Withdrawals;

/// Where registered clients go: the new word on each of them.
pub type ClientSink = Box<dyn Fn(&[Arc<Record>]) + Send + Sync>;

/// How a row came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// By the feed, or a load of the history that this process has followed: the higher number is
    /// the later word.
    Same,
    /// By a load after the history broke: a restored backup, a failover that lost commits, or too
    /// long an absence. Numbers say nothing then, and what this process has seen withdrawn stays
    /// so.
    Broken,
}

pub struct View {
    withdrawals: Arc<Withdrawals>,
    clients: ClientSink,
    /// Whether the digests of clients' secrets are kept: this process proves clients, or manages
    /// them.
    credentials: bool,
    records: HashMap<Key, Arc<Record>>,
}

/// What a load changed.
#[derive(Debug, Default)]
pub struct Merged {
    /// Records that were not known, or differently.
    pub changed: usize,
    /// What this process knows and the database has lost: to be written again.
    pub lost: Vec<Record>,
}

impl View {
    pub fn new(withdrawals: Arc<Withdrawals>, clients: ClientSink, credentials: bool) -> Self {
        Self { withdrawals, clients, credentials, records: HashMap::new() }
    }

    /// Whether everything has to be read again: what is kept now was thrown away before.
    pub fn keep_credentials(&mut self, keep: bool) -> bool {
        let before = std::mem::replace(&mut self.credentials, keep);
        if before && !keep {
            for record in self.records.values_mut() {
                *record = Arc::new(without_credentials(Record::clone(record)));
            }
        }
        !before && keep
    }

    fn take(&self, record: Record) -> Record {
        if self.credentials { record } else { without_credentials(record) }
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(|record| &**record)
    }

    pub fn record(&self, key: &Key) -> Option<Arc<Record>> {
        self.records.get(key).cloned()
    }

    /// Takes changes of the history that this process follows. Tells which were news.
    pub fn apply(&mut self, records: Vec<Record>) -> Vec<Record> {
        let is_news = |view: &Self, record: &Record| {
            view.records.get(&record.key).is_none_or(|known| known.seq < record.seq)
        };
        let mut news = Vec::new();
        for record in records {
            let record = self.take(record);
            if is_news(self, &record) {
                self.keep(record.clone());
                news.push(record);
            }
        }
        self.tell_clients(&news);
        news
    }

    /// Takes everything that the database has.
    pub fn merge(&mut self, loaded: Loaded, lineage: Lineage) -> Merged {
        let mut merged = Merged::default();
        let mut news = Vec::new();
        let mut seen = HashSet::with_capacity(loaded.records.len());
        for record in loaded.records {
            let record = self.take(record);
            seen.insert(record.key.clone());
            match self.records.get(&record.key) {
                Some(known) if **known == record => {}
                Some(known) if !wins(&record, known, lineage) => {
                    // A client without its secrets is not to be written.
                    let whole =
                        self.credentials || known.key.kind != Kind::Client || known.is_lifted();
                    if lineage == Lineage::Broken && whole {
                        merged.lost.push(Record::clone(known));
                    }
                }
                Some(_) | None => news.push(record),
            }
        }
        // A write of this process may have come after the moment of the load.
        let in_time = |known: &Record| match lineage {
            Lineage::Same => known.seq <= loaded.cursor.seq,
            Lineage::Broken => known.at <= loaded.now,
        };
        let missing = self.records.values().filter(|known| !seen.contains(&known.key));
        let missing = missing.filter(|known| in_time(known));
        let mut gone = Vec::new();
        for known in missing.map(|known| Record::clone(known)) {
            match (known.key.kind, known.is_lifted(), lineage) {
                // Gives access, and the database does not know it.
                (Kind::Client, false, _) => gone.push(Record { lifted: 1, ..known }),
                (Kind::Client, true, Lineage::Broken) | (_, false, Lineage::Broken) => {
                    merged.lost.push(known);
                }
                // Tidied away at its end; a withdrawal ends here by itself.
                (Kind::Client, true, Lineage::Same) => {}
                (_, false, Lineage::Same) | (_, true, _) => {}
            }
        }
        news.extend(gone);
        merged.changed = news.len();
        for record in &news {
            self.keep(record.clone());
        }
        self.tell_clients(&news);
        merged
    }

    fn keep(&mut self, record: Record) {
        if let Some(target) = record.key.target() {
            let floor = (!record.is_lifted()).then(|| record.floor());
            self.withdrawals.set(record.key.holder(), target, floor);
        }
        self.records.insert(record.key.clone(), Arc::new(record));
    }

    fn tell_clients(&self, news: &[Record]) {
        let clients = news.iter().filter(|record| record.key.kind == Kind::Client);
        let clients: Vec<_> =
            clients.filter_map(|record| self.records.get(&record.key).cloned()).collect();
        if !clients.is_empty() {
            (self.clients)(&clients);
        }
    }

    pub fn tell_clients_again(&self) {
        let clients = self.records.values().filter(|record| record.key.kind == Kind::Client);
        (self.clients)(&clients.cloned().collect::<Vec<_>>());
    }

    /// Forgets withdrawals that concern nothing any more. `now` is the database's, in microseconds.
    pub fn expire(&mut self, now: i64) {
        self.withdrawals.expire(super::record::timestamp(now));
        self.records.retain(|_, record| record.expires_at.is_none_or(|end| now < end));
    }
}

/// Whether a loaded record replaces the one that is known.
fn wins(loaded: &Record, known: &Record, lineage: Lineage) -> bool {
    match lineage {
        Lineage::Same => loaded.seq > known.seq,
        Lineage::Broken => {
            let withdrawal = loaded.key.kind != Kind::Client;
            match (withdrawal, loaded.is_lifted(), known.is_lifted()) {
                // Both withdraw: the wider one.
                (true, false, false) => loaded.not_before >= known.not_before,
                // A withdrawal whose lifting was lost is one again: what gives access has to be
                // there.
                (true, false, true) => true,
                (true, true, _) | (false, _, _) => loaded.at >= known.at,
            }
        }
    }
}

#[cfg(test)]
mod tests;
