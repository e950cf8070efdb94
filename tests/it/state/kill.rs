//! Writers that are killed at a random moment: what was acknowledged is there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tenantgate::domain::{Holder, Secret, SystemClock, Target, TenantRefs};
use tenantgate::state::{
    Audit, Backend, Change, Expect, Key, PostgresSettings, StoreError, Written,
};
use uuid::Uuid;

use super::Place;

const PLACE: &str = "TENANTGATE_TEST_STATE";
/// The writer is a test of this binary, in a process of its own.
const WRITER: [&str; 4] = ["state::kill::writer", "--exact", "--ignored", "--nocapture"];
const MARK: &str = "acknowledged ";

fn change(number: u32) -> Change {
    let holder = Holder { issuer: "https://i", client: "acme" };
    let tenant = TenantRefs::new(&[7; 32]).of(&format!("{}-{number}", Uuid::now_v7()));
    Change {
        key: Key::of(holder, Target::Grant(tenant)),
        hold: Duration::ZERO,
        keep: None,
        lift: false,
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

#[tokio::test]
#[ignore = "started by the other test, which kills it"]
async fn writer() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let engine = match place.contains("://") {
        true => Backend::Postgres(PostgresSettings { url: Secret::new(place), ca_pem: None }),
        false => Backend::Sqlite(place.into()),
    };
    let store = loop {
        match engine.open(Arc::new(SystemClock)).await {
            // The one before has been killed, but the system is still at it.
            Err(StoreError::Refused(why)) if why.contains("in use") => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => break opened.unwrap(),
        }
    };
    store.migrate().await.unwrap();
    for number in 0.. {
        let written = store.write(change(number)).await.unwrap();
        let Written::Done(record) = written else { panic!("{written:?}") };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{MARK}{}", record.seq).unwrap();
        out.flush().unwrap();
    }
}

/// A few in every run; `TENANTGATE_ROUNDS=100` for the figures of docs/fleet.md.
fn rounds() -> u64 {
    std::env::var("TENANTGATE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// The numbers that a writer saw acknowledged before it was killed.
fn kill_a_writer(place: &str, after: Duration) -> Vec<i64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(WRITER)
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let mut killer = None;
    for line in lines.map_while(Result::ok) {
        let Some((_, number)) = line.split_once(MARK) else { continue };
        acknowledged.extend(number.parse::<i64>());
        if killer.is_none() {
            // By its number, because this thread goes on reading what it prints.
            let pid = child.id();
            killer = Some(std::thread::spawn(move || {
                std::thread::sleep(after);
                let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
                assert!(killed.unwrap().success());
            }));
        }
    }
    killer.expect("something was written").join().unwrap();
    child.wait().unwrap();
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill() {
    for place in Place::all().await {
        let name = match &place.engine {
            Backend::Sqlite(path) => path.display().to_string(),
            Backend::Postgres(settings) => settings.url.expose().to_owned(),
        };
        let mut acknowledged = Vec::new();
        for round in 0..rounds() {
            let (name, after) = (name.clone(), Duration::from_millis(5 + round * 37 % 120));
            let killed = tokio::task::spawn_blocking(move || kill_a_writer(&name, after)).await;
            acknowledged.extend(killed.unwrap());
        }
        let loaded = place.open().await.load().await.unwrap();
        let stored: std::collections::HashSet<i64> =
            loaded.records.iter().map(|record| record.seq).collect();
        let lost = acknowledged.iter().filter(|seq| !stored.contains(seq)).count();
        println!(
            "{}: {} writers killed, {} writes acknowledged, {lost} lost",
            place.name,
            rounds(),
            acknowledged.len()
        );
        assert_eq!(lost, 0, "{}", place.name);
        assert!(acknowledged.len() as u64 >= rounds());
    }
}
