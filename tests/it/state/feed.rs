//! Replicas that follow one state.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::Connection as _;
use tenantgate::domain::{
    Evidence, GrantEvidence, Holder, Secret, SystemClock, Target, TenantRefs, Timestamp, Vouched,
    Withdrawals,
};
use tenantgate::state::{
    Audit, Backend, Change, Expect, FeedSettings, Key, PostgresSettings, Record, Retention, State,
    Written,
};
use uuid::Uuid;

use super::Place;

const ACME: Holder<'_> = Holder { issuer: "https://i", client: "acme" };

struct Replica {
    state: Arc<State>,
    clients: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Replica {
    async fn new(engine: &Backend, snapshot: Option<PathBuf>) -> Self {
        let clock = Arc::new(SystemClock);
        let store = engine.open(clock.clone()).await.unwrap();
        let withdrawals = Arc::new(Withdrawals::new(TenantRefs::new(&[7; 32])));
        let clients: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
        let sink = {
            let clients = Arc::clone(&clients);
            Box::new(move |records: &[Arc<Record>]| {
                let word = |record: &Arc<Record>| (record.key.client.clone(), !record.is_lifted());
                clients.lock().unwrap().extend(records.iter().map(word));
            })
        };
        let settings = FeedSettings {
            poll: Duration::from_millis(20),
            retention: Retention { audit: Duration::MAX, usage: Duration::MAX },
            snapshot,
            key_id: "k".to_owned(),
            credentials: true,
        };
        let state = Arc::new(State::new(store, withdrawals, sink, clock, settings));
        state.start().await.unwrap();
        Self { state, clients }
    }

    async fn write(&self, change: Change) -> Record {
        match self.state.write(change).await.unwrap() {
            Written::Done(record) => record,
            other => panic!("{other:?}"),
        }
    }

    /// Whether evidence from the beginning of time stands.
    fn stands(&self, tenant: &str) -> bool {
        let grant = Some(GrantEvidence { tenant, vouched: Vouched::At(Timestamp::from_secs(1)) });
        let evidence = Evidence { grant, ..Evidence::default() };
        self.state.withdrawals().standing(ACME, evidence).is_ok()
    }

    async fn follow(&self) {
        self.state.follow().await.unwrap();
    }
}

fn change(key: Key, lift: bool) -> Change {
    Change {
        key,
        hold: Duration::from_secs(1),
        keep: None,
        lift,
        body: String::new(),
        expect: Expect::Anything,
        audit: Audit {
            request_id: Uuid::now_v7().to_string(),
            actor: "test".to_owned(),
            action: "test".to_owned(),
            detail: String::new(),
        },
    }
}

fn grant(tenant: &str, lift: bool) -> Change {
    change(Key::of(ACME, Target::Grant(TenantRefs::new(&[7; 32]).of(tenant))), lift)
}

async fn sql(engine: &Backend, statements: &'static str) {
    let Backend::Postgres(settings) = engine else { panic!("not PostgreSQL") };
    let mut connection = sqlx::PgConnection::connect(settings.url.expose()).await.unwrap();
    sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_writes_the_others_follow() {
    for place in Place::all().await {
        let one = Replica::new(&place.engine, None).await;
        one.write(grant("T1", false)).await;
        // In force here before the answer.
        assert!(!one.stands("T1") && one.stands("T2"), "{}", place.name);
        if place.name == "SQLite" {
            continue;
        }
        let other = Replica::new(&place.engine, None).await;
        assert!(!other.stands("T1"));
        one.write(grant("T1", true)).await;
        one.write(grant("T2", false)).await;
        one.write(change(Key::client(ACME), false)).await;
        other.follow().await;
        assert!(other.stands("T1") && !other.stands("T2"));
        assert_eq!(*other.clients.lock().unwrap(), [("acme".to_owned(), true)]);
        assert!(other.state.age() < Duration::from_secs(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_and_a_reader_that_misses_nothing() {
    let Some(place) = Place::postgres().await else { return };
    let reader = Replica::new(&place.engine, None).await;
    let writers: Vec<_> =
        futures::future::join_all((0..4).map(|_| Replica::new(&place.engine, None))).await;
    let writing =
        futures::future::join_all(writers.iter().enumerate().map(|(number, writer)| async move {
            for tenant in 0..25 {
                writer.write(grant(&format!("W{number}-{tenant}"), false)).await;
            }
        }));
    let reading = async {
        for _ in 0..40 {
            reader.follow().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(writing, reading);
    reader.follow().await;
    assert_eq!(reader.state.withdrawals().len(), 100);
    assert_eq!(reader.state.health().differences, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_resurrects_nothing_and_is_repaired() {
    let Some(place) = Place::postgres().await else { return };
    let replica = Replica::new(&place.engine, None).await;
    replica.write(grant("T0", false)).await;
    replica.write(change(Key::client(Holder { client: "gone", ..ACME }), false)).await;
    // The backup is made here.
    replica.write(grant("T1", false)).await;
    replica.write(change(Key::client(Holder { client: "gone", ..ACME }), true)).await;
    replica.follow().await;
    sql(
        &place.engine,
        "DELETE FROM tenantgate_feed WHERE seq > 2;
         UPDATE tenantgate_head SET seq = 2;
         DELETE FROM tenantgate_audit WHERE seq > 2;
         DELETE FROM tenantgate_record WHERE seq > 2;
         INSERT INTO tenantgate_record SELECT 'client', 'https://i', 'gone', '', 0, NULL, 0, '', \
         2, 0;",
    )
    .await;
    // Others go on with the restored database, further than it was before.
    let other = Replica::new(&place.engine, None).await;
    assert!(other.stands("T1"));
    for tenant in 10..15 {
        other.write(grant(&format!("T{tenant}"), false)).await;
    }
    replica.follow().await;
    for tenant in ["T0", "T1", "T10", "T14"] {
        assert!(!replica.stands(tenant), "{tenant}");
    }
    assert_eq!(replica.clients.lock().unwrap().last().unwrap(), &("gone".to_owned(), false));
    other.follow().await;
    assert!(!other.stands("T1"));
    assert_eq!(other.clients.lock().unwrap().last().unwrap(), &("gone".to_owned(), false));
    // A replica that has seen nothing of it finds it in the database.
    assert!(!Replica::new(&place.engine, None).await.stands("T1"));
    // And it can be restored.
    other.write(grant("T1", true)).await;
    replica.follow().await;
    assert!(replica.stands("T1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_starts_from_its_copy_while_the_database_is_away() {
    let Some(place) = Place::postgres().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("state.snapshot");
    let replica = Replica::new(&place.engine, Some(copy.clone())).await;
    replica.write(grant("T1", false)).await;
    replica.follow().await;
    replica.write(grant("T2", false)).await;
    drop(replica);
    let nobody = "postgres://nobody@127.0.0.1:9/none".to_owned();
    let away = Backend::Postgres(PostgresSettings { url: Secret::new(nobody), ca_pem: None });
    let without = Replica::new(&away, None).await;
    assert!(!without.state.withdrawals().is_known());
    assert!(without.state.health().trouble.is_some());
    let with = Replica::new(&away, Some(copy.clone())).await;
    assert!(with.state.withdrawals().is_known() && with.state.health().from_snapshot);
    assert!(!with.stands("T1") && !with.stands("T2") && with.stands("T3"));
    // With the database again, it goes on from where the copy was.
    let again = Replica::new(&place.engine, Some(copy)).await;
    assert!(!again.state.health().from_snapshot && !again.stands("T2"));
    assert_eq!(again.state.health().differences, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_refused_while_the_database_is_read_only_and_reads_go_on() {
    let Some(place) = Place::postgres().await else { return };
    let replica = Replica::new(&place.engine, None).await;
    replica.write(grant("T1", false)).await;
    sql(
        &place.engine,
        "DO $$ BEGIN EXECUTE format(
            'ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END \
            $$",
    )
    .await;
    // Only new connections notice.
    let reader = Replica::new(&place.engine, None).await;
    let outcome = reader.state.write(grant("T2", false)).await;
    assert!(matches!(outcome, Err(tenantgate::state::StoreError::ReadOnly)), "{outcome:?}");
    reader.follow().await;
    assert!(!reader.stands("T1") && reader.stands("T2"));
}
