//! Three running replicas on one PostgreSQL: how fast a withdrawal is everywhere, and what a
//! database costs that is not there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use serde_json::Value;
use sqlx::Connection as _;
use tenantgate::app::{Environment, Running, start};
use tenantgate::domain::{Holder, SystemClock, Target};
use tenantgate::state::{Audit, Backend, Change, Expect, Key, Written};
use tokio::time::Instant;
use uuid::Uuid;

use super::Place;
use crate::app::{CONFIG, Gate, Provider, SECRET, clients_yaml, command};

const ACME: Holder<'_> = Holder { issuer: "https://issuer.test", client: "acme" };
/// What the contract promises.
const BOUND: Duration = Duration::from_secs(2);

struct Replica {
    running: Running,
    check: envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient<
        tonic::transport::Channel,
    >,
}

struct Fleet {
    replicas: Vec<Replica>,
    tenants: Vec<String>,
    http: reqwest::Client,
    provider: Provider,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn start(place: &Place, tenants: usize) -> Self {
        Self::with(place, tenants, 3, CONFIG).await
    }

    async fn with(place: &Place, tenants: usize, replicas: usize, config: &str) -> Self {
        let Backend::Postgres(settings) = &place.engine else { panic!("not PostgreSQL") };
        let tenants: Vec<String> = (0..tenants).map(|number| format!("T{number}")).collect();
        let provider = Provider::default();
        let codes: Vec<&str> = tenants.iter().map(String::as_str).collect();
        provider.grant("acme", &codes);
        let lookup = provider.start().await;
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let state = format!(
            "\nstate: {{ postgres: {{ url: \"{}\" }}, key_file: digest.key }}\n",
            settings.url.expose()
        );
        write("tenantgate.yaml", &(config.replace("PROVIDER", &lookup) + &state));
        write("clients.yaml", &clients_yaml(""));
        command(&["keys", "generate", "--dir"], &folder.path().join("keys"));
        command(&["keys", "digest", "--out"], &folder.path().join("digest.key"));
        let config = folder.path().join("tenantgate.yaml");
        let replicas =
            futures::future::join_all((0..replicas).map(|_| Replica::start(&config))).await;
        let http = reqwest::Client::new();
        Self { replicas, tenants, http, provider, _folder: folder }
    }

    async fn mint(&self, replica: usize, tenant: &str) -> String {
        let address = self.replicas[replica].running.addresses.token.as_ref().unwrap();
        let answer = self.http.post(format!("http://{address}/oauth2/token"));
        let answer = answer
            .basic_auth("acme", Some(SECRET))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type=client_credentials&tenant={tenant}"))
            .send()
            .await
            .unwrap();
        let body: Value = answer.json().await.unwrap();
        body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    }

    /// Withdraws by the first replica and tells how long each goes on allowing.
    async fn withdraw(&self, tenant: &str, token: &str) -> Vec<Duration> {
        let engine = self.replicas[0].running.engine();
        let target = Target::Grant(engine.withdrawals().unwrap().refs().of(tenant));
        let change = Change {
            key: Key::of(ACME, target),
            hold: Duration::from_secs(10),
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
        };
        let written = engine.state().unwrap().write(change).await.unwrap();
        assert!(matches!(written, Written::Done(_)));
        let answered = Instant::now();
        let until_denied = self.replicas.iter().map(|replica| async move {
            loop {
                if replica.status(tenant, token).await != 200 {
                    return answered.elapsed();
                }
                assert!(answered.elapsed() < Duration::from_secs(10), "still allowed");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        futures::future::join_all(until_denied).await
    }

    #[expect(clippy::print_stdout, reason = "figures for docs/fleet.md")]
    async fn rounds(&self, what: &str) {
        let mut took = Vec::new();
        for (round, tenant) in self.tenants.iter().enumerate() {
            let token = self.mint(round % 3, tenant).await;
            for replica in &self.replicas {
                assert_eq!(replica.status(tenant, &token).await, 200);
            }
            took.extend(self.withdraw(tenant, &token).await);
        }
        took.sort_unstable();
        let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
        println!("{what}: {} withdrawals, median {median:?}, worst {worst:?}", self.tenants.len());
        assert!(worst < BOUND, "{worst:?}");
    }
}

impl Replica {
    async fn start(config: &Path) -> Self {
        let environment = Environment {
            clock: Arc::new(SystemClock),
            check_runtime: tokio::runtime::Handle::current(),
        };
        let running = start(config, environment).await.unwrap();
        let url = format!("http://{}", running.addresses.check);
        let connected = AuthorizationClient::connect(url);
        Self { check: connected.await.unwrap(), running }
    }

    async fn status(&self, tenant: &str, token: &str) -> u16 {
        let path = format!("/api/{tenant}/report");
        let bearer = format!("Bearer {token}");
        Gate::ask(self.check.clone(), &path, &[("authorization", &bearer)]).await.status
    }
}

/// A few in every run; `TENANTGATE_ROUNDS=200` for the figures of docs/fleet.md.
fn rounds() -> usize {
    std::env::var("TENANTGATE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_is_everywhere_within_two_seconds() {
    for place in Place::postgres().await.into_iter().chain(Place::pooled().await) {
        let fleet = Fleet::start(&place, rounds()).await;
        // A transaction that somebody leaves open in another database holds nothing back.
        let elsewhere = super::server().unwrap().url.as_str();
        let mut other = sqlx::PgConnection::connect(elsewhere).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT txid_current()").execute(&mut other).await.unwrap();
        fleet.rounds(place.name).await;
    }
}

const FAST: &str = "{ refresh: 1s, max_age: 10s }";

fn fast() -> String {
    CONFIG.replace("{ refresh: 60s, max_age: 300s }", FAST).replace("timeout: 20s", "timeout: 1s")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_is_asked_once_however_many_replicas_there_are() {
    let Some(place) = Place::postgres().await else { return };
    let fleet = Fleet::with(&place, 2, 3, &fast()).await;
    let mints = (0..3).map(|replica| fleet.mint(replica, "T1"));
    let tokens = futures::future::join_all(mints).await;
    assert_eq!(fleet.provider.lookups(), 1, "three first mints at once");
    let started = Instant::now();
    let before = fleet.provider.lookups();
    while started.elapsed() < Duration::from_secs(4) {
        for (replica, token) in fleet.replicas.iter().zip(&tokens) {
            assert_eq!(replica.status("T1", token).await, 200);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lookups = fleet.provider.lookups() - before;
    // Four refreshes, where three replicas on their own make twelve.
    assert!((3..=6).contains(&lookups), "{lookups}");
    // What is withdrawn at the provider stops everywhere as soon as with one replica.
    fleet.provider.grant("acme", &["T0"]);
    let withdrawn = Instant::now();
    for (replica, token) in fleet.replicas.iter().zip(&tokens) {
        while replica.status("T1", token).await == 200 {
            assert!(withdrawn.elapsed() < Duration::from_secs(4), "still allowed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_while_it_asks_holds_nobody_up_for_long() {
    let Some(place) = Place::postgres().await else { return };
    let fleet = Fleet::with(&place, 2, 1, &fast()).await;
    fleet.mint(0, "T1").await;
    let Backend::Postgres(settings) = &place.engine else { panic!("not PostgreSQL") };
    let mut database = sqlx::PgConnection::connect(settings.url.expose()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let dead = "UPDATE tenantgate_lookup SET owner = 'dead', looked_up_at = 0,
        lease_until = (extract(epoch FROM now()) * 1000000)::bigint + 3600000000";
    let done = sqlx::raw_sql(dead).execute(&mut database).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
    let before = fleet.provider.lookups();
    // Its answer is older than a refresh by then, and nobody else's comes.
    let started = Instant::now();
    while fleet.provider.lookups() == before {
        assert!(started.elapsed() < Duration::from_secs(6), "nobody asks any more");
        let token = fleet.mint(0, "T1").await;
        assert_eq!(fleet.replicas[0].status("T1", &token).await, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
