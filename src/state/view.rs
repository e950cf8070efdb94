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
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::{
        Evidence, GrantEvidence, Holder, Target, TenantRefs, Timestamp, Vouched, Withdrawn,
    };
    use crate::state::Cursor;

    const ACME: Holder<'_> = Holder { issuer: "i", client: "acme" };

    fn view() -> (View, Arc<Withdrawals>, Arc<Mutex<Vec<String>>>) {
        let withdrawals = Arc::new(Withdrawals::new(TenantRefs::new(&[7; 32])));
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let told = Arc::clone(&told);
            Box::new(move |records: &[Arc<Record>]| {
                let word =
                    |record: &Arc<Record>| format!("{}={}", record.key.client, record.lifted);
                told.lock().unwrap().extend(records.iter().map(word));
            })
        };
        (View::new(Arc::clone(&withdrawals), sink, true), withdrawals, told)
    }

    fn grant(seq: i64, at: i64, lifted: i64) -> Record {
        let tenant = TenantRefs::new(&[7; 32]).of("T1");
        Record {
            key: Key::of(ACME, Target::Grant(tenant)),
            not_before: at,
            expires_at: None,
            lifted,
            body: String::new(),
            seq,
            at,
        }
    }

    fn client(seq: i64, at: i64, lifted: i64) -> Record {
        Record { key: Key::client(ACME), ..grant(seq, at, lifted) }
    }

    fn loaded(records: Vec<Record>) -> Loaded {
        Loaded { now: 1_000, cursor: Cursor { seq: 100, id: String::new() }, records }
    }

    fn stands(withdrawals: &Withdrawals) -> bool {
        let grant =
            Some(GrantEvidence { tenant: "T1", vouched: Vouched::At(Timestamp::default()) });
        let standing = withdrawals.standing(ACME, Evidence { grant, ..Evidence::default() });
        assert!(matches!(standing, Ok(()) | Err(Withdrawn::Grant)));
        standing.is_ok()
    }

    #[test]
    fn the_later_word_counts_in_whatever_order_it_arrives() {
        let (mut view, withdrawals, told) = view();
        assert_eq!(view.apply(vec![grant(2, 20, 0), grant(1, 10, 1)]).len(), 1);
        assert!(!stands(&withdrawals));
        assert_eq!(view.apply(vec![grant(3, 30, 1)]).len(), 1);
        assert!(stands(&withdrawals));
        view.apply(vec![client(4, 40, 0), client(5, 50, 1), client(5, 50, 1)]);
        assert_eq!(*told.lock().unwrap(), ["acme=1", "acme=1"], "only the last word counts");
    }

    #[test]
    fn a_restored_older_backup_resurrects_nothing() {
        let (mut view, withdrawals, told) = view();
        view.apply(vec![grant(7, 70, 0), client(8, 80, 1)]);
        // Neither the withdrawal nor the deletion is in the backup.
        let merged = view.merge(loaded(vec![client(3, 30, 0)]), Lineage::Broken);
        assert!(!stands(&withdrawals));
        assert_eq!((merged.changed, merged.lost.len()), (0, 2));
        assert_eq!(*told.lock().unwrap(), ["acme=1"]);
        // The backup has the lifting of an earlier withdrawal.
        let merged = view.merge(loaded(vec![grant(2, 20, 1), client(8, 80, 1)]), Lineage::Broken);
        assert_eq!((merged.changed, merged.lost.len()), (0, 1));
        assert!(!stands(&withdrawals));
        // What is lifted after the restore is lifted, although its number is lower.
        view.merge(loaded(vec![grant(5, 90, 1), client(8, 80, 1)]), Lineage::Broken);
        assert!(stands(&withdrawals));
    }

    #[test]
    fn a_lifting_or_a_client_that_the_database_lost_is_gone() {
        let (mut view, withdrawals, told) = view();
        view.apply(vec![grant(7, 70, 1), client(8, 80, 0)]);
        let merged = view.merge(loaded(vec![grant(2, 20, 0)]), Lineage::Broken);
        assert!(!stands(&withdrawals));
        assert_eq!((merged.changed, merged.lost.len()), (2, 0));
        assert_eq!(*told.lock().unwrap(), ["acme=0", "acme=1"]);
    }

    #[test]
    fn a_load_of_the_same_history_goes_by_numbers() {
        let (mut view, withdrawals, _) = view();
        view.apply(vec![grant(7, 70, 0)]);
        // A clock that was set back does not hide a later word.
        let merged = view.merge(loaded(vec![grant(8, 60, 1)]), Lineage::Same);
        assert_eq!((merged.changed, merged.lost.len()), (1, 0));
        assert!(stands(&withdrawals));
        let merged = view.merge(loaded(vec![grant(7, 70, 0)]), Lineage::Same);
        assert_eq!((merged.changed, merged.lost.len()), (0, 0));
        assert!(stands(&withdrawals));
    }

    #[test]
    fn what_was_written_after_the_moment_of_a_load_stays() {
        let (mut view, _, told) = view();
        view.apply(vec![client(101, 70, 0)]);
        view.merge(loaded(Vec::new()), Lineage::Same);
        view.apply(vec![Record {
            key: Key::client(Holder { client: "b", ..ACME }),
            ..client(1, 1_001, 0)
        }]);
        view.merge(loaded(Vec::new()), Lineage::Broken);
        assert_eq!(*told.lock().unwrap(), ["acme=0", "b=0", "acme=1"]);
    }

    #[test]
    fn without_credentials_none_are_kept_and_a_client_is_never_written_back() {
        let with = |seq, at| Record {
            body: r#"{"scopes":["a"],"credentials":[{"sha256":"SECRET"}]}"#.to_owned(),
            ..client(seq, at, 0)
        };
        let (mut view, _, _) = view();
        view.apply(vec![with(1, 10)]);
        let kept = |view: &View| view.records().next().unwrap().body.contains("SECRET");
        assert!(kept(&view));
        assert!(!view.keep_credentials(false) && !kept(&view));
        view.apply(vec![with(2, 20)]);
        assert!(!kept(&view));
        // The same row again is not a difference, and an older backup is not repaired from here.
        assert_eq!(view.merge(loaded(vec![with(2, 20)]), Lineage::Same).changed, 0);
        let merged = view.merge(loaded(vec![with(1, 10)]), Lineage::Broken);
        assert_eq!((merged.changed, merged.lost.len()), (0, 0));
        assert!(view.keep_credentials(true));
        view.merge(loaded(vec![with(2, 20)]), Lineage::Broken);
        assert!(kept(&view));
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let (mut view, withdrawals, _) = view();
        view.apply(vec![Record { expires_at: Some(100), ..grant(7, 70, 0) }]);
        view.expire(99);
        assert!(!stands(&withdrawals));
        view.expire(100);
        assert!(stands(&withdrawals) && view.records().next().is_none());
    }
}
