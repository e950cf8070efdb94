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
            let word = |record: &Arc<Record>| format!("{}={}", record.key.client, record.lifted);
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
    let grant = Some(GrantEvidence { tenant: "T1", vouched: Vouched::At(Timestamp::default()) });
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
