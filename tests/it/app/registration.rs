//! Clients that are registered by a call, on the running app.

use reqwest::Method;

use super::management::{REQUEST_ID, TOKEN, managed};
use super::*;

async fn call(gate: &Gate, method: &str, path: &str, body: Value) -> (u16, Value) {
    let address = gate.running.addresses.management.as_ref().unwrap();
    let url = format!("http://{address}/v1/clients{path}");
    let request = gate.http.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
    let request = request.bearer_auth(TOKEN);
    let request = if body.is_null() { request } else { request.json(&body) };
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

async fn create(gate: &Gate, body: Value) -> Value {
    let (status, made) = call(gate, "POST", "", body).await;
    assert_eq!(status, 201, "{made}");
    made
}

async fn mint(gate: &Gate, client: &str, secret: &Value) -> Result<String, (u16, Value)> {
    let request = gate.http.post(gate.token_url("/oauth2/token"));
    let request = request.basic_auth(client, secret.as_str());
    let form = [("grant_type", "client_credentials")];
    let response = request.form(&form).send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    match status {
        200 => Ok(body["access_token"].as_str().unwrap().to_owned()),
        _ => Err((status, body["error"].clone())),
    }
}

#[tokio::test]
async fn a_client_is_registered_changed_and_deleted_by_calls() {
    let gate = managed(true).await;
    let body = json!({
        "client_id": "a:b@c", "scope": "reports.read other", "tenants": ["CANARY", "T7"],
        "token_ttl": "10m", "developer": { "id": "dev" }, "attributes": { "plan": ["gold", 1] },
        "quota": { "requests_per_unit": 5, "unit": "MINUTE" },
    });
    let made = create(&gate, body.clone()).await;
    assert_eq!(made["source"], "state");
    assert!(!made.to_string().contains("CANARY"), "{made}");
    assert_eq!(made["tenants"].as_array().unwrap().len(), 2);
    assert_eq!((&made["token_ttl"], &made["quota"]["unit"]), (&json!("10m"), &json!("MINUTE")));
    assert_eq!(made["attributes"]["plan"], json!(["gold", 1]));
    let token = mint(&gate, "a:b@c", &made["client_secret"]).await.unwrap();
    let t7 = "/api/T7/report";
    assert_eq!(gate.status(t7, &token).await, 200);
    assert_eq!(gate.status("/api/T1/report", &token).await, 403);

    let (_, shown) = call(&gate, "GET", "/a:b@c", Value::Null).await;
    assert!(shown.get("client_secret").is_none());
    assert_eq!(shown["scope"], "reports.read other");
    assert_eq!(call(&gate, "POST", "", body).await.0, 409, "exists");

    // What is left out stays; what is taken away is gone from live tokens too.
    let (status, shown) = call(&gate, "PATCH", "/a:b@c", json!({ "scope": ["other"] })).await;
    assert_eq!((status, &shown["scope"]), (200, &json!("other")));
    assert_eq!(shown["tenants"].as_array().unwrap().len(), 2);
    assert_eq!(gate.status(t7, &token).await, 403);
    let patch = json!({ "scope": "reports.read", "token_ttl": null, "tenants": ["T8"] });
    let (_, shown) = call(&gate, "PATCH", "/a:b@c", patch).await;
    assert!(shown.get("token_ttl").is_none(), "{shown}");
    assert_eq!(gate.status(t7, &token).await, 403);

    let patch = json!({ "tenants": ["T7"], "developer": { "id": "dev", "status": "inactive" } });
    let (_, shown) = call(&gate, "PATCH", "/a:b@c", patch).await;
    assert_eq!(shown["developer"], json!({ "id": "dev", "status": "inactive" }));
    assert_eq!(gate.status(t7, &token).await, 401);
    call(&gate, "PATCH", "/a:b@c", json!({ "developer": null })).await;
    assert_eq!(gate.status(t7, &token).await, 200);

    assert_eq!(call(&gate, "DELETE", "/a:b@c", Value::Null).await.0, 204);
    assert_eq!(gate.status(t7, &token).await, 401);
    assert_eq!(call(&gate, "GET", "/a:b@c", Value::Null).await.0, 404);
    assert_eq!(call(&gate, "DELETE", "/a:b@c", Value::Null).await.0, 404);
    // Registered again, it starts again: neither its old secret nor its old tokens count.
    let again = json!({ "client_id": "a:b@c", "scope": "reports.read", "tenants": ["T7"] });
    let again = create(&gate, again).await;
    assert_eq!(gate.status(t7, &token).await, 401);
    assert_eq!(mint(&gate, "a:b@c", &made["client_secret"]).await.unwrap_err().0, 401);
    gate.clock.advance(Duration::from_secs(2));
    let token = mint(&gate, "a:b@c", &again["client_secret"]).await.unwrap();
    assert_eq!(gate.status(t7, &token).await, 200);
}

#[tokio::test]
async fn a_request_that_is_made_again_is_answered_alike_and_does_nothing() {
    let gate = managed(true).await;
    let body = json!({ "client_id": "new", "scope": "other", "request_id": REQUEST_ID });
    gate.provider.grant("new", &["T1"]);
    let first = create(&gate, body.clone()).await;
    let again = create(&gate, body.clone()).await;
    assert_eq!(again, first, "its secret too");
    let mut other = body.clone();
    other["client_id"] = json!("other");
    assert_eq!(call(&gate, "POST", "", other).await.0, 409);

    let id = "8a6f2c1e-43a5-4b7e-9a55-0c9b2f8f7d12";
    let rotate = json!({ "request_id": id });
    let rotated = call(&gate, "POST", "/new:rotate-secret", rotate.clone()).await;
    assert_eq!(rotated.0, 200);
    assert_eq!(call(&gate, "POST", "/new:rotate-secret", rotate.clone()).await, rotated);
    for secret in [&first["client_secret"], &rotated.1["client_secret"]] {
        mint(&gate, "new", secret).await.unwrap();
    }
    let third = call(&gate, "POST", "/new:rotate-secret", json!({})).await;
    assert_eq!(third.0, 409, "two are active");
    let revoke = json!({ "credential_id": first["credential_id"] });
    let (status, shown) = call(&gate, "POST", "/new:revoke-secret", revoke.clone()).await;
    assert_eq!((status, &shown["credentials"][0]["status"]), (200, &json!("revoked")));
    assert_eq!(mint(&gate, "new", &first["client_secret"]).await.unwrap_err().0, 401);
    mint(&gate, "new", &rotated.1["client_secret"]).await.unwrap();
    assert_eq!(call(&gate, "POST", "", body).await.0, 409, "its secret is revoked");
    let unknown = json!({ "credential_id": "nothing" });
    assert_eq!(call(&gate, "POST", "/new:revoke-secret", unknown).await.0, 404);
}

#[tokio::test]
async fn clients_of_the_file_are_shown_and_stopped_but_not_changed() {
    let gate = managed(true).await;
    let token = gate.mint().await;
    let (_, shown) = call(&gate, "GET", "/acme", Value::Null).await;
    assert_eq!((&shown["source"], &shown["blocked"]), (&json!("file"), &json!(false)));
    assert_eq!(shown["credentials"], json!([{ "status": "active" }]));
    let acme = json!({ "client_id": "acme" });
    for (method, path, body) in [
        ("POST", "", acme),
        ("PATCH", "/acme", json!({ "scope": "other" })),
        ("DELETE", "/acme", Value::Null),
        ("POST", "/acme:rotate-secret", json!({})),
        ("POST", "/acme:revoke-secret", json!({ "credential_id": "1" })),
    ] {
        let (status, answer) = call(&gate, method, path, body).await;
        assert_eq!(status, 409, "{method} {path}");
        assert!(answer["error_description"].as_str().unwrap().contains("clients.yaml"));
    }
    let t1 = "/api/T1/report";
    assert_eq!(call(&gate, "POST", "/acme:block", json!({})).await.0, 200);
    assert_eq!((gate.status(t1, &token).await, gate.request("").await.0), (401, 400));
    assert_eq!(call(&gate, "GET", "/acme", Value::Null).await.1["blocked"], true);
    assert_eq!(call(&gate, "POST", "/acme:unblock", Value::Null).await.0, 200);
    assert_eq!(gate.status(t1, &token).await, 200);
    assert_eq!(call(&gate, "POST", "/acme:revoke-tokens", json!({})).await.0, 200);
    assert_eq!(gate.status(t1, &token).await, 401);
    let (_, shown) = call(&gate, "GET", "/acme", Value::Null).await;
    assert!(shown["tokens_not_before"].as_str().unwrap().ends_with('Z'));

    // The same id in both: the file counts, and it is said.
    create(&gate, json!({ "client_id": "both", "scope": "other" })).await;
    let file = clients_yaml("  - { id: both, scopes: [reports.read] }\n");
    gate.write("clients.yaml", &file);
    gate.running.reload().await.unwrap();
    let (_, shown) = call(&gate, "GET", "/both", Value::Null).await;
    assert_eq!((&shown["source"], &shown["scope"]), (&json!("file"), &json!("reports.read")));
    assert_eq!(call(&gate, "PATCH", "/both", json!({})).await.0, 409);
}

#[tokio::test]
async fn clients_are_listed_in_pages_by_their_ids() {
    let gate = managed(true).await;
    for id in ["zeta", "beta", "gamma"] {
        create(&gate, json!({ "client_id": id })).await;
    }
    let ids = |list: &Value| {
        let clients = list["clients"].as_array().unwrap();
        clients.iter().map(|c| c["client_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (status, all) = call(&gate, "GET", "", Value::Null).await;
    assert_eq!(
        (status, ids(&all)),
        (200, vec!["acme".into(), "beta".into(), "gamma".into(), "zeta".into()])
    );
    assert!(all.get("next").is_none());
    let (_, first) = call(&gate, "GET", "?limit=2", Value::Null).await;
    assert_eq!((ids(&first), &first["next"]), (vec!["acme".into(), "beta".into()], &json!("beta")));
    let (_, rest) = call(&gate, "GET", "?limit=2&after=beta", Value::Null).await;
    assert_eq!((ids(&rest), rest.get("next")), (vec!["gamma".into(), "zeta".into()], None));
    for query in ["?limit=0", "?limit=x", "?limit=1001", "?page=2"] {
        assert_eq!(call(&gate, "GET", query, Value::Null).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_named_by_its_field() {
    let gate = managed(true).await;
    for (field, value, told) in [
        ("client_id", json!("a/b"), "client_id: "),
        ("client_id", json!("..."), "client_id: "),
        ("scope", json!("a\\b"), "scope: "),
        ("scope", json!(5), "scope: "),
        ("tenants", json!(["CANARY/"]), "tenants[0]: "),
        ("tenants", json!(["CANARY", "CANARY"]), "tenants[1]: "),
        ("tenants", json!("CANARY"), "tenants: "),
        ("token_ttl", json!("30M"), "token_ttl: "),
        ("token_ttl", json!(30), "token_ttl: "),
        ("developer", json!({ "id": "a b" }), "developer.id: "),
        ("developer", json!({ "id": "a", "status": "gone" }), "developer.status: "),
        ("apis", json!(["nothing"]), "apis[0]: "),
        ("attributes", json!({ "sub": "x" }), "attributes.sub: "),
        ("attributes", json!({ "a": { "b": 1 } }), "attributes.a: "),
        ("quota", json!({ "requests_per_unit": 0, "unit": "DAY" }), "quota.requests_per_unit: "),
        ("quota", json!({ "requests_per_unit": 1, "unit": "day" }), "quota.unit: "),
        ("request_id", json!("1"), "request_id: "),
        ("tenant", json!("CANARY"), "tenant: is not known"),
    ] {
        let mut body = json!({ "client_id": "new" });
        body[field] = value.clone();
        let (status, answer) = call(&gate, "POST", "", body).await;
        let text = answer["error_description"].as_str().unwrap();
        assert!(status == 400 && text.contains(told), "{field} {value}: {status} {text}");
        assert!(!text.contains("CANARY"), "{text}");
    }
    assert_eq!(call(&gate, "GET", "/new", Value::Null).await.0, 404);
    assert_eq!(call(&gate, "POST", "/new:dance", json!({})).await.0, 404);
    assert_eq!(call(&gate, "POST", "/acme:block", json!({ "why": 1 })).await.0, 400);
    let gate = managed(false).await;
    assert_eq!(call(&gate, "GET", "/acme", Value::Null).await.0, 200);
    assert_eq!(call(&gate, "POST", "", json!({ "client_id": "new" })).await.0, 409);
    assert_eq!(call(&gate, "POST", "/acme:block", json!({})).await.0, 409);
}
