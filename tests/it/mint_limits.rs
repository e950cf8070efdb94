//! What bounds a token, whatever the registry or the request says.

use serde_json::json;

use super::app::{CONFIG, Gate, SECRET, clients_yaml};

#[tokio::test]
async fn no_token_lives_longer_than_the_cap() {
    let capped = CONFIG.replace("  audience:", "  max_token_ttl: 10m\n  audience:");
    let gate = Gate::with_config(&capped).await;
    for (own, expected) in [("30m", 600), ("2m", 120)] {
        gate.write("clients.yaml", &clients_yaml(&format!("    token_ttl: {own}\n")));
        gate.running.reload().await.unwrap();
        let (status, body) = gate.request("").await;
        assert_eq!((status, &body["expires_in"]), (200, &json!(expected)), "{own}");
    }
}

#[tokio::test]
async fn an_empty_list_of_tenants_without_a_lookup_is_no_grant() {
    let lookup = CONFIG.split("  lookup:\n").nth(1).unwrap().split("apis:").next().unwrap();
    let config = CONFIG.replace(&format!("  lookup:\n{lookup}"), "  lookup: static\n");
    let gate = Gate::with_config(&config).await;
    let (status, body) = gate.request("").await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_target")));
    gate.write("clients.yaml", &clients_yaml("    tenants: [T1]\n"));
    gate.running.reload().await.unwrap();
    assert_eq!(gate.request("").await.0, 200);
}

#[tokio::test]
async fn only_a_form_is_read_as_a_form() {
    let gate = Gate::start().await;
    for (media_type, expected) in [
        ("application/x-www-form-urlencoded", 200),
        ("Application/X-WWW-Form-URLencoded; charset=utf-8", 200),
        ("text/plain", 400),
        ("multipart/form-data; boundary=x", 400),
    ] {
        let request = gate.http.post(gate.token_url("/oauth2/token"));
        let request = request.basic_auth("acme", Some(SECRET)).header("content-type", media_type);
        let answer = request.body("grant_type=client_credentials").send().await.unwrap();
        assert_eq!(answer.status(), expected, "{media_type}");
    }
}
