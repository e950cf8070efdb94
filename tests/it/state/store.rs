//! What every engine must do, statement by statement.

use std::time::Duration;

use tenantgate::domain::{Holder, SystemClock, Target, TenantRefs};
use tenantgate::state::{
    Audit, AuditQuery, Change, Cursor, Expect, Key, LATEST, Record, Retention, StoreError,
    UsageQuery, UsageRow, Written,
};

use super::Place;

const ACME: Holder<'_> = Holder { issuer: "https://i", client: "acme" };
const HOUR: i64 = 3_600_000_000;

fn withdraw(tenant: &str, request_id: &str) -> Change {
    let tenant = TenantRefs::new(&[7; 32]).of(tenant);
    Change {
        key: Key::of(ACME, Target::Grant(tenant)),
        hold: Duration::from_secs(10),
        keep: Some(Duration::from_secs(3600)),
        lift: false,
        body: String::new(),
        expect: Expect::Anything,
        audit: audit(request_id),
    }
}

fn client(id: &str, body: &str, expect: Expect, request_id: &str) -> Change {
    Change {
        key: Key::client(Holder { client: id, ..ACME }),
        hold: Duration::ZERO,
        keep: None,
        lift: false,
        body: body.to_owned(),
        expect,
        audit: audit(request_id),
    }
}

fn audit(request_id: &str) -> Audit {
    Audit {
        request_id: request_id.to_owned(),
        actor: "it's \\ \"me\"".to_owned(),
        action: "test".to_owned(),
        detail: r#"{"reason":"ü $1 $2"}"#.to_owned(),
    }
}

fn done(written: Written) -> Record {
    match written {
        Written::Done(record) => record,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_made_once_and_told() {
    for place in Place::all().await {
        let store = place.open().await;
        assert_eq!(store.schema().await.unwrap().version, 0, "{}", place.name);
        assert!(store.load().await.is_err(), "{}", place.name);
        for _ in 0..2 {
            assert_eq!(store.migrate().await.unwrap().version, LATEST, "{}", place.name);
        }
        assert_eq!(store.load().await.unwrap().cursor.seq, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_replicas_on_an_empty_database_migrate_once() {
    let Some(place) = Place::postgres().await else { return };
    let replicas: Vec<_> = futures::future::join_all((0..5).map(|_| place.open())).await;
    let migrated = futures::future::join_all(replicas.iter().map(|store| store.migrate())).await;
    for schema in migrated {
        assert_eq!(schema.unwrap().version, LATEST);
    }
    let first = replicas[0].load().await.unwrap().cursor;
    assert_eq!(replicas[4].load().await.unwrap().cursor, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_stored_fed_and_audited_together() {
    for place in Place::all().await {
        let store = place.open().await;
        store.migrate().await.unwrap();
        let start = store.load().await.unwrap().cursor;
        let record = done(store.write(withdraw("T1", "r1")).await.unwrap());
        assert_eq!((record.seq, record.lifted), (1, 0), "{}", place.name);
        assert_eq!(record.not_before - record.at, 10_000_000);
        assert_eq!(record.expires_at.unwrap() - record.not_before, HOUR);

        let polled = store.poll(&start).await.unwrap();
        assert_eq!((polled.head, polled.events.len()), (1, 2), "{}", place.name);
        assert_eq!((&polled.events[0].cursor, &polled.events[0].record), (&start, &None));
        assert_eq!(polled.events[1].record.as_ref(), Some(&record));
        assert!(polled.now >= record.at);
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.cursor, polled.events[1].cursor);
        assert_eq!(loaded.records, std::slice::from_ref(&record));

        let query = AuditQuery { to: i64::MAX, limit: 10, ..AuditQuery::default() };
        let audited = store.audit(query.clone()).await.unwrap();
        assert_eq!(audited.len(), 1, "{}", place.name);
        let wanted = audit("r1");
        assert_eq!((&audited[0].request_id, audited[0].seq), (&wanted.request_id, record.seq));
        assert_eq!((&audited[0].actor, &audited[0].detail), (&wanted.actor, &wanted.detail));
        let other = AuditQuery { client: "other".to_owned(), ..query };
        assert_eq!(store.audit(other).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_four_times_at_once_is_one_change() {
    for place in Place::all().await {
        let store = place.open().await;
        store.migrate().await.unwrap();
        let all = (0..4).map(|_| store.write(withdraw("T1", "same")));
        let mut did = 0;
        for written in futures::future::join_all(all).await {
            match written.unwrap() {
                Written::Done(record) => {
                    did += 1;
                    assert_eq!(record.seq, 1, "{}", place.name);
                }
                Written::Repeated(entry) => assert_eq!((entry.seq, &*entry.action), (1, "test")),
                Written::Conflict => panic!("{}", place.name),
            }
        }
        assert_eq!((did, store.load().await.unwrap().cursor.seq), (1, 1), "{}", place.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_expected_must_be_there_and_no_number_is_left_out() {
    for place in Place::all().await {
        let store = place.open().await;
        store.migrate().await.unwrap();
        let start = store.load().await.unwrap().cursor;
        let write = |change| {
            let store = store.clone();
            async move { store.write(change).await.unwrap() }
        };
        let conflict = Written::Conflict;
        let unknown = client("a", "", Expect::Version(7), "r0");
        assert_eq!(write(unknown).await, conflict, "{}", place.name);
        let first = done(write(client("a", "{}", Expect::Absent, "r1")).await);
        assert_eq!(write(client("a", "{}", Expect::Absent, "r2")).await, conflict);
        // A request that was refused may be made again under its id.
        let second = done(write(client("a", "{2}", Expect::Version(first.seq), "r2")).await);
        assert_eq!(write(client("a", "", Expect::Version(first.seq), "r3")).await, conflict);
        let delete = Change { lift: true, ..client("a", "", Expect::Version(second.seq), "r4") };
        assert!(done(write(delete).await).is_lifted());
        let again = done(write(client("a", "{3}", Expect::Absent, "r5")).await);
        assert_eq!((&*again.body, again.lifted), ("{3}", 0), "{}", place.name);

        let polled = store.poll(&start).await.unwrap();
        let numbers: Vec<i64> = polled.events.iter().map(|event| event.cursor.seq).collect();
        assert_eq!(numbers, (0..=polled.head).collect::<Vec<_>>(), "{}", place.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_only_gets_wider_until_it_is_lifted() {
    for place in Place::all().await {
        let store = place.open().await;
        store.migrate().await.unwrap();
        let first = done(store.write(withdraw("T1", "r1")).await.unwrap());
        let shorter = Change { hold: Duration::ZERO, ..withdraw("T1", "r2") };
        let second = done(store.write(shorter.clone()).await.unwrap());
        assert_eq!(second.not_before, first.not_before, "{}", place.name);
        assert_eq!(second.expires_at, first.expires_at);
        let for_ever = Change { keep: None, ..withdraw("T1", "r3") };
        assert_eq!(done(store.write(for_ever).await.unwrap()).expires_at, None);
        let again = done(store.write(withdraw("T1", "r4")).await.unwrap());
        assert_eq!(again.expires_at, None, "{}", place.name);
        let lift = Change { lift: true, ..withdraw("T1", "r5") };
        assert!(done(store.write(lift).await.unwrap()).is_lifted());
        let shorter = Change { audit: audit("r6"), ..shorter };
        let anew = done(store.write(shorter).await.unwrap());
        assert_eq!((anew.lifted, anew.not_before), (0, anew.at), "{}", place.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tidying_leaves_the_last_event_and_what_still_counts() {
    for place in Place::all().await {
        let store = place.open().await;
        store.migrate().await.unwrap();
        let over =
            Change { hold: Duration::ZERO, keep: Some(Duration::ZERO), ..withdraw("T1", "1") };
        store.write(over).await.unwrap();
        let counts = done(store.write(withdraw("T2", "2")).await.unwrap());
        store.add_usage(&[usage(0, "acme", 3)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let retention = Retention { audit: Duration::ZERO, usage: Duration::from_secs(60) };
        store.tidy(retention).await.unwrap();
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.records, [counts], "{}", place.name);
        assert_eq!(store.poll(&loaded.cursor).await.unwrap().events.len(), 1);
        let all = AuditQuery { to: i64::MAX, limit: 10, ..AuditQuery::default() };
        assert_eq!(store.audit(all).await.unwrap(), [], "{}", place.name);
        let all = UsageQuery { to: i64::MAX, limit: 10, ..UsageQuery::default() };
        assert_eq!(store.usage(all).await.unwrap(), [], "{}", place.name);
    }
}

fn usage(hour: i64, client: &str, count: i64) -> UsageRow {
    UsageRow {
        hour: hour * HOUR,
        issuer: ACME.issuer.to_owned(),
        client: client.to_owned(),
        reference: "ref".to_owned(),
        outcome: "allowed".to_owned(),
        count,
        first: hour * HOUR + count,
        last: hour * HOUR + 2 * count,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_adds_up() {
    for place in Place::all().await {
        let store = place.open().await;
        store.migrate().await.unwrap();
        store.add_usage(&[usage(1, "a", 3), usage(1, "b", 1), usage(1, "a", 2)]).await.unwrap();
        store.add_usage(&[usage(1, "a", 1), usage(2, "a", 9)]).await.unwrap();
        let ask = |client: &str, from, to| UsageQuery {
            client: client.to_owned(),
            reference: String::new(),
            from: from * HOUR,
            to: to * HOUR,
            limit: 100,
        };
        let found = store.usage(ask("a", 1, 2)).await.unwrap();
        assert_eq!(found.len(), 1, "{}", place.name);
        let row = &found[0];
        assert_eq!((row.count, row.first, row.last), (6, HOUR + 1, HOUR + 6), "{}", place.name);
        let counts = |rows: Vec<UsageRow>| rows.iter().map(|row| row.count).collect::<Vec<_>>();
        assert_eq!(counts(store.usage(ask("", 0, 9)).await.unwrap()), [9, 6, 1]);
        let limited = UsageQuery { limit: 1, ..ask("", 0, 9) };
        assert_eq!(counts(store.usage(limited).await.unwrap()), [9], "{}", place.name);
    }
}

#[tokio::test]
async fn a_sqlite_file_serves_one_process() {
    let place = Place::sqlite();
    let first = place.open().await;
    let second = place.engine.open(std::sync::Arc::new(SystemClock)).await;
    let told = second.err().unwrap().to_string();
    assert!(told.contains("is in use by another process"), "{told}");
    drop(first);
    place.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_or_empty_is_told_apart() {
    let Some(place) = Place::postgres().await else { return };
    let store = place.open().await;
    let cursor = Cursor { seq: 0, id: String::new() };
    let outcome = store.poll(&cursor).await;
    assert!(matches!(outcome, Err(StoreError::SchemaOld { found: 0 })), "{outcome:?}");
}
