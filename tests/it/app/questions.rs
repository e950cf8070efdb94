//! Revocation and introspection, on the running app.

use tenantgate::domain::{Holder, Target};
use tenantgate::state::{Audit, Change, Expect, Key, Written};
use uuid::Uuid;

use super::*;

const T1: &str = "/api/T1/report";

fn config() -> String {
    format!("{CONFIG}\nstate: {{ sqlite: state/tenantgate.db, key_file: digest.key }}\n")
}

/// Beside acme a client that may see all tokens, and one that may not; all with the same secret but
/// for its name.
fn others() -> String {
    let entry = |id: &str, scope: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "  - {{ id: {id}, scopes: [{scope}], credentials: [{{ digest: \"sha256:{digest}\" }}] \
             }}\n"
        )
    };
    entry("auditor", "\"tenantgate:introspect\"") + &entry("stranger", "other")
}

async fn started() -> Gate {
    let prepare = |folder: &Path| {
        std::fs::write(folder.join("clients.yaml"), clients_yaml(&others())).unwrap();
    };
    Gate::prepared(&config(), prepare).await
}

async fn ask(gate: &Gate, endpoint: &str, client: &str, token: &str) -> (u16, Value) {
    let secret = if client == "acme" { SECRET } else { client };
    let request = gate.http.post(gate.token_url(&format!("/oauth2/{endpoint}")));
    let form = [("token", token), ("token_type_hint", "access_token")];
    let response = request.basic_auth(client, Some(secret)).form(&form).send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_default())
}

async fn active(gate: &Gate, token: &str) -> bool {
    let (status, body) = ask(gate, "introspect", "auditor", token).await;
    assert_eq!(status, 200);
    body["active"].as_bool().unwrap()
}

#[tokio::test]
async fn a_client_sees_and_revokes_its_own_tokens_only() {
    let gate = started().await;
    let token = gate.mint().await;
    let (status, shown) = ask(&gate, "introspect", "acme", &token).await;
    assert_eq!((status, &shown["active"]), (200, &json!(true)), "{shown}");
    assert_eq!(shown["client_id"], "acme");
    assert_eq!(shown["scope"], "reports.read other");
    assert_eq!(shown["token_type"], "Bearer");
    assert!(shown["exp"].as_u64() > shown["iat"].as_u64(), "{shown}");
    assert!(!shown.to_string().contains("tenant"), "{shown}");
    assert_eq!(ask(&gate, "introspect", "stranger", &token).await.1, json!({ "active": false }));
    assert_eq!(ask(&gate, "introspect", "auditor", &token).await.1, shown);

    assert_eq!(ask(&gate, "revoke", "stranger", &token).await.0, 400);
    assert_eq!(ask(&gate, "revoke", "auditor", &token).await.0, 400);
    assert_eq!(gate.status(T1, &token).await, 200, "it is nobody else's to revoke");
    let other = gate.mint().await;
    assert_eq!(ask(&gate, "revoke", "acme", &token).await.0, 200);
    assert_eq!((gate.status(T1, &token).await, gate.status(T1, &other).await), (401, 200));
    assert_eq!((active(&gate, &token).await, active(&gate, &other).await), (false, true));
    assert_eq!(ask(&gate, "revoke", "acme", &token).await.0, 200, "again");
}

#[tokio::test]
async fn what_is_no_token_is_inactive_and_nothing_is_left_to_be_revoked() {
    let gate = started().await;
    let token = gate.mint().await;
    let long = "x".repeat(40_000);
    let broken = format!("{}x", &token[..token.len() - 1]);
    for odd in ["x", "a.b.c", "\u{0}", "Bearer x", &long, &broken, "…"] {
        assert_eq!(ask(&gate, "revoke", "acme", odd).await.0, 200);
        assert_eq!(ask(&gate, "introspect", "acme", odd).await.1, json!({ "active": false }));
    }
    for (endpoint, body, status) in [
        ("revoke", "", 400),
        ("introspect", "token=a&token=b", 400),
        ("introspect", "token=", 400),
        ("introspect", "token=a&client_id=other", 400),
    ] {
        let request = gate.http.post(gate.token_url(&format!("/oauth2/{endpoint}")));
        let request = request.basic_auth("acme", Some(SECRET));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{endpoint} {body}");
        assert_eq!(response.json::<Value>().await.unwrap()["error"], "invalid_request");
    }
    let get = gate.http.get(gate.token_url("/oauth2/introspect")).send().await.unwrap();
    assert_eq!(get.status(), 405);
    assert_eq!(ask(&gate, "revoke", "nobody", &token).await.0, 401);
    assert_eq!(ask(&gate, "introspect", "nobody", &token).await.1["error"], "invalid_client");
    assert_eq!(gate.status(T1, &token).await, 200);
}

#[tokio::test]
async fn introspection_agrees_with_the_check_whatever_was_withdrawn() {
    let gate = started().await;
    let acme = Holder { issuer: "https://issuer.test", client: "acme" };
    let token = gate.mint().await;
    let agree = async |what: &str, status: u16| {
        assert_eq!(gate.status(T1, &token).await, status, "{what}");
        assert_eq!(active(&gate, &token).await, status == 200, "{what}");
    };
    agree("at first", 200).await;

    let write = async |target: Target, lift: bool| {
        let audit = Audit {
            request_id: Uuid::now_v7().to_string(),
            actor: "test".to_owned(),
            action: "test".to_owned(),
            detail: String::new(),
        };
        let (hold, body) = (Duration::ZERO, String::new());
        let (key, expect) = (Key::of(acme, target), Expect::Anything);
        let change = Change { key, hold, keep: None, lift, body, expect, audit };
        let written = gate.running.engine().state().unwrap().write(change).await.unwrap();
        assert!(matches!(written, Written::Done(_)));
    };
    write(Target::Client, false).await;
    agree("a blocked client", 401).await;
    write(Target::Client, true).await;
    agree("unblocked", 200).await;
    write(Target::Tokens, false).await;
    agree("revoked tokens", 401).await;
    write(Target::Tokens, true).await;
    agree("not any more", 200).await;

    let file = clients_yaml(&others());
    for (what, changed, status) in [
        ("a revoked app", file.replace("id: acme\n", "id: acme\n    status: revoked\n"), 401),
        (
            "an inactive developer",
            file.replace("id: acme\n", "id: acme\n    developer: { id: d, status: inactive }\n"),
            401,
        ),
        ("a client that is gone", file.replace("id: acme\n", "id: another\n"), 401),
        ("as before", file.clone(), 200),
    ] {
        gate.write("clients.yaml", &changed);
        gate.running.reload().await.unwrap();
        agree(what, status).await;
    }
    // A scope that is taken away is gone from the answer as it is from the token.
    gate.write("clients.yaml", &file.replace("[reports.read, other]", "[other]"));
    gate.running.reload().await.unwrap();
    assert_eq!(gate.status(T1, &token).await, 403);
    assert_eq!(ask(&gate, "introspect", "auditor", &token).await.1["scope"], "other");
    gate.write("clients.yaml", &file);
    gate.running.reload().await.unwrap();

    std::fs::remove_dir_all(gate.file("keys")).unwrap();
    command(&["keys", "generate", "--activate-after", "0s", "--dir"], &gate.file("keys"));
    gate.running.reload().await.unwrap();
    agree("its key is gone", 401).await;
}

#[tokio::test]
async fn without_a_state_nothing_can_be_revoked_and_the_metadata_says_so() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    let (status, answer) = ask(&gate, "revoke", "acme", &token).await;
    assert_eq!((status, &answer["error"]), (400, &json!("unsupported_token_type")));
    assert_eq!(ask(&gate, "introspect", "acme", &token).await.1["active"], true);
    let url = gate.token_url("/.well-known/oauth-authorization-server");
    let metadata: Value = gate.http.get(url).send().await.unwrap().json().await.unwrap();
    assert!(metadata.get("revocation_endpoint").is_none());
    assert_eq!(metadata["introspection_endpoint"], "https://issuer.test/oauth2/introspect");
    let gate = started().await;
    let url = gate.token_url("/.well-known/oauth-authorization-server");
    let metadata: Value = gate.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["revocation_endpoint"], "https://issuer.test/oauth2/revoke");
}
