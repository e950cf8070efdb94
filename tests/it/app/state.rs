//! What is withdrawn by a call: in checks and in mints, on the running app.

use tenantgate::domain::{CredentialDigest, Holder, Target, TokenRef};
use tenantgate::state::{Audit, Change, ClientBody, Expect, Key, StoredCredential, Written};
use uuid::Uuid;

use super::*;

const ACME: Holder<'_> = Holder { issuer: "https://issuer.test", client: "acme" };
const T1: &str = "/api/T1/report";
const T2: &str = "/api/T2/report";

fn config() -> String {
    let api_key = "    api_key: { header: x-api-key }\n    routes:";
    let config = CONFIG.replace("    routes:", api_key);
    format!("{config}\nstate: {{ sqlite: state/tenantgate.db, key_file: digest.key }}\n")
}

async fn withdraw(gate: &Gate, target: Target, hold: u64, lift: bool) {
    let change = Change { lift, ..change(Key::of(ACME, target), String::new()) };
    write(gate, Change { hold: Duration::from_secs(hold), ..change }).await;
}

async fn write(gate: &Gate, change: Change) {
    let state = gate.running.engine().state().unwrap();
    assert!(matches!(state.write(change).await.unwrap(), Written::Done(_)));
}

fn change(key: Key, body: String) -> Change {
    Change {
        key,
        hold: Duration::ZERO,
        keep: None,
        lift: false,
        body,
        expect: Expect::Anything,
        audit: Audit {
            request_id: Uuid::now_v7().to_string(),
            actor: "test".to_owned(),
            action: "test".to_owned(),
            detail: String::new(),
        },
    }
}

fn grant(gate: &Gate, tenant: &str) -> Target {
    Target::Grant(gate.running.engine().withdrawals().unwrap().refs().of(tenant))
}

async fn key_status(gate: &Gate, path: &str) -> u16 {
    gate.check_headers(path, &[("x-api-key", SECRET)]).await.status
}

fn claim(token: &str, name: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice::<Value>(&payload).unwrap()[name].clone()
}

#[tokio::test]
async fn a_withdrawn_grant_counts_again_only_on_newer_evidence() {
    let gate = Gate::with_config(&config()).await;
    let old = gate.mint().await;
    assert_eq!((gate.status(T1, &old).await, key_status(&gate, T1).await), (200, 200));
    let lookups = gate.provider.lookups();

    withdraw(&gate, grant(&gate, "T1"), 10, false).await;
    assert_eq!((gate.status(T1, &old).await, gate.status(T2, &old).await), (403, 200));
    assert_eq!((key_status(&gate, T1).await, key_status(&gate, T2).await), (403, 200));
    let foreign = gate.check("/api/T9/report", &old).await;
    assert_eq!(gate.check(T1, &old).await, foreign, "told like any foreign tenant");

    // Within the hold no evidence is new enough, so none is asked for.
    let within = gate.mint().await;
    assert_eq!((gate.status(T1, &within).await, gate.status(T2, &within).await), (403, 200));
    assert_eq!(claim(&within, "tenant_list").as_array().unwrap().len(), 1);
    assert_eq!(gate.request("&tenant=T1").await.0, 400);
    gate.clock.advance(Duration::from_secs(10));
    assert_eq!(gate.request("&tenant=T1").await.0, 400, "a tie denies");
    assert_eq!(gate.provider.lookups(), lookups);

    // After it, an older answer is not served from the cache.
    gate.clock.advance(Duration::from_secs(2));
    assert_eq!(gate.status(T1, &old).await, 403);
    let new = gate.mint().await;
    assert_eq!(gate.provider.lookups(), lookups + 1);
    assert_eq!((gate.status(T1, &new).await, key_status(&gate, T1).await), (200, 200));
    gate.mint().await;
    assert_eq!(gate.provider.lookups(), lookups + 1, "and is asked for once");
}

#[tokio::test]
async fn what_is_restored_works_again_with_the_token_from_before() {
    let gate = Gate::with_config(&config()).await;
    let token = gate.mint().await;
    for lift in [false, true] {
        withdraw(&gate, grant(&gate, "T1"), 10, lift).await;
        assert_eq!(gate.status(T1, &token).await, if lift { 200 } else { 403 });
    }
}

#[tokio::test]
async fn a_static_grant_stays_withdrawn_until_it_is_restored() {
    let prepare = |folder: &Path| {
        std::fs::write(folder.join("clients.yaml"), clients_yaml("    tenants: [T1, T2]\n"))
            .unwrap();
    };
    let gate = Gate::prepared(&config(), prepare).await;
    withdraw(&gate, grant(&gate, "T1"), 0, false).await;
    gate.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(gate.request("&tenant=T1").await.0, 400);
    let token = gate.mint().await;
    assert_eq!((gate.status(T1, &token).await, gate.status(T2, &token).await), (403, 200));
    assert_eq!((key_status(&gate, T1).await, key_status(&gate, T2).await), (403, 200));
    withdraw(&gate, grant(&gate, "T1"), 0, true).await;
    let token = gate.mint().await;
    assert_eq!((gate.status(T1, &token).await, key_status(&gate, T1).await), (200, 200));
}

#[tokio::test]
async fn revoked_tokens_are_refused_and_the_next_one_is_not() {
    let gate = Gate::with_config(&config()).await;
    let old = gate.mint().await;
    withdraw(&gate, Target::Tokens, 0, false).await;
    assert_eq!(gate.status(T1, &old).await, 401);
    // In the very same second.
    let new = gate.mint().await;
    assert_eq!(gate.status(T1, &new).await, 200);
    let id = claim(&new, "jti");
    withdraw(&gate, Target::Token(TokenRef::of(id.as_str().unwrap())), 0, false).await;
    let answer = gate.check(T1, &new).await;
    assert_eq!(answer.status, 401);
    assert!(answer.headers["www-authenticate"].contains("error=\"invalid_token\""));
    let another = gate.mint().await;
    assert_eq!((gate.status(T1, &another).await, key_status(&gate, T1).await), (200, 200));
}

#[tokio::test]
async fn a_blocked_client_can_do_nothing_until_it_is_unblocked() {
    let gate = Gate::with_config(&config()).await;
    let token = gate.mint().await;
    withdraw(&gate, Target::Client, 0, false).await;
    assert_eq!((gate.status(T1, &token).await, key_status(&gate, T1).await), (401, 401));
    let (status, body) = gate.request("").await;
    assert_eq!((status, &body["error"]), (400, &json!("unauthorized_client")));
    withdraw(&gate, Target::Client, 0, true).await;
    assert_eq!((gate.status(T1, &token).await, gate.request("").await.0), (200, 200));
}

#[tokio::test]
async fn a_client_of_the_state_is_one_like_those_of_the_file() {
    let gate = Gate::with_config(&config()).await;
    gate.provider.grant("stored", &["T5"]);
    let document = |scope: &str| {
        let document = ClientBody {
            scopes: vec![scope.to_owned()],
            credentials: vec![StoredCredential {
                id: "1".to_owned(),
                sha256: hex::encode(CredentialDigest::sha256_of("another secret")),
                active: true,
                created_at: 0,
                expires_at: None,
            }],
            ..ClientBody::default()
        };
        serde_json::to_string(&document).unwrap()
    };
    let stored = || Key::client(Holder { client: "stored", ..ACME });
    write(&gate, change(stored(), document("reports.read"))).await;
    let mint = || async {
        let request = gate.http.post(gate.token_url("/oauth2/token"));
        let request = request.basic_auth("stored", Some("another secret"));
        let answer = request.form(&[("grant_type", "client_credentials")]).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, body) = mint().await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(gate.status("/api/T5/report", token).await, 200);
    // A scope that is taken away counts at once, as in the file.
    write(&gate, change(stored(), document("other"))).await;
    assert_eq!(gate.status("/api/T5/report", token).await, 403);
    // One of the file goes by the file, and files are read without losing those of the state.
    write(&gate, change(Key::client(ACME), document("other"))).await;
    gate.write("clients.yaml", &clients_yaml("    token_ttl: 30m\n"));
    gate.running.reload().await.unwrap();
    assert_eq!(gate.request("").await.0, 200);
    assert_eq!(mint().await.0, 200);
    write(&gate, Change { lift: true, ..change(stored(), String::new()) }).await;
    assert_eq!((gate.status("/api/T5/report", token).await, mint().await.0), (401, 401));
}

#[tokio::test]
async fn nothing_is_decided_before_the_state_is_known() {
    let section = r#"
state: { postgres: { url: "postgres://nobody@127.0.0.1:9/none" }, key_file: digest.key }
"#;
    let gate = Gate::with_config(&format!("{CONFIG}{section}")).await;
    let (status, text) = gate.admin("/readyz?verbose").await;
    assert_eq!(status, 503);
    assert!(text.contains("state: the state's database cannot be used"), "{text}");
    let (status, body) = gate.request("").await;
    assert_eq!((status, &body["error"]), (503, &json!("temporarily_unavailable")));
    assert_eq!(gate.status("/docs/index", "").await, 200, "public");
    gate.clock.advance(Duration::from_secs(7));
    let (_, metrics) = gate.admin("/metrics").await;
    for line in ["tenantgate_state_ok 0", "tenantgate_state_age_seconds 7\n"] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn the_state_outlives_the_process_and_serves_one() {
    let gate = Gate::with_config(&config()).await;
    let token = gate.mint().await;
    withdraw(&gate, grant(&gate, "T1"), 0, false).await;
    let (_, text) = gate.admin("/readyz?verbose").await;
    assert!(text.contains("state: ok, 0 s old"), "{text}");
    let path = gate.file("tenantgate.yaml");
    let clock = Arc::clone(&gate.clock);
    let environment = || Environment {
        clock: Arc::clone(&clock) as _,
        check_runtime: tokio::runtime::Handle::current(),
    };
    let second = start(&path, environment()).await.err().unwrap().to_string();
    assert!(second.contains("is in use by another process"), "{second}");
    let Gate { running, folder: _folder, provider: _provider, .. } = gate;
    running.drain().await;
    let again = start(&path, environment()).await.unwrap();
    let check = AuthorizationClient::connect(format!("http://{}", again.addresses.check));
    let check = check.await.unwrap();
    let bearer = format!("Bearer {token}");
    for (path, status) in [(T1, 403), (T2, 200)] {
        let answer = Gate::ask(check.clone(), path, &[("authorization", &bearer)]).await;
        assert_eq!(answer.status, status, "{path}");
    }
}
