//! The management API on the running app.

use super::*;

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const T1: &str = "/api/T1/report";
pub const REQUEST_ID: &str = "8a6f2c1e-43a5-4b7e-9a55-0c9b2f8f7d11";

fn config(state: bool) -> String {
    let config = CONFIG.replace("admin: \"", "management: \"127.0.0.1:0\", admin: \"");
    let state = match state {
        true => "state: { sqlite: state/tenantgate.db, key_file: digest.key }\n",
        false => "",
    };
    format!("{config}\n{state}management: {{ token_file: management-token }}\n")
}

pub async fn managed(state: bool) -> Gate {
    let prepare = |folder: &Path| std::fs::write(folder.join("management-token"), TOKEN).unwrap();
    Gate::prepared(&config(state), prepare).await
}

async fn call(gate: &Gate, token: &str, action: &str, body: &Value) -> (u16, Value) {
    let address = gate.running.addresses.management.as_ref().unwrap();
    let request = gate.http.post(format!("http://{address}/v1/grants:{action}"));
    let response = request.bearer_auth(token).json(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_grant_is_withdrawn_and_restored_by_a_call_and_the_live_token_with_it() {
    let gate = managed(true).await;
    let token = gate.mint().await;
    assert_eq!(gate.status(T1, &token).await, 200);
    let body = json!({ "client_id": "acme", "tenant": "T1", "request_id": REQUEST_ID });
    let first = call(&gate, TOKEN, "withdraw", &body).await;
    assert_eq!((first.0, gate.status(T1, &token).await), (200, 403));
    assert!(first.1["not_before"].as_str().unwrap().ends_with('Z'), "{first:?}");
    assert_eq!(call(&gate, TOKEN, "withdraw", &body).await, first, "the same answer again");
    assert_eq!(call(&gate, TOKEN, "restore", &body).await.0, 409, "the id is of another change");
    let body = json!({ "client_id": "acme", "tenant": "T1" });
    assert_eq!(call(&gate, TOKEN, "restore", &body).await.0, 200);
    assert_eq!(gate.status(T1, &token).await, 200);
}

#[tokio::test]
async fn what_does_not_fit_is_named_and_no_code_is_told() {
    let gate = managed(true).await;
    let good = json!({ "client_id": "acme", "tenant": "CANARY" });
    for (key, value, status, told) in [
        ("tenant", json!(["CANARY"]), 400, "tenant: "),
        ("tenant", json!("CANARY/"), 400, "tenant: "),
        ("client_id", json!(5), 400, "client_id: "),
        ("client_id", json!("nobody"), 404, "no such client"),
        ("request_id", json!("CANARY"), 400, "request_id: "),
        ("hold", json!("CANARY"), 400, "hold: "),
        ("tenants", json!("CANARY"), 400, "tenants: is not known"),
    ] {
        let mut body = good.clone();
        body[key] = value;
        let (found, answer) = call(&gate, TOKEN, "withdraw", &body).await;
        let text = answer["error_description"].as_str().unwrap();
        assert_eq!(found, status, "{text}");
        assert!(text.contains(told) && !text.contains("CANARY"), "{text}");
    }
    let (status, answer) = call(&gate, TOKEN, "withdraw", &json!({ "client_id": "acme" })).await;
    assert_eq!((status, &answer["error_description"]), (400, &json!("tenant: is missing")));
}

#[tokio::test]
async fn only_a_token_with_the_scope_may_call_and_without_state_nothing_is_stored() {
    let gate = managed(false).await;
    let body = json!({ "client_id": "acme", "tenant": "T1" });
    assert_eq!(call(&gate, "another-token", "withdraw", &body).await.0, 401);
    let token = gate.mint().await;
    let (status, answer) = call(&gate, &token, "withdraw", &body).await;
    assert_eq!((status, &answer["error"]), (403, &json!("insufficient_scope")));
    assert_eq!(call(&gate, TOKEN, "withdraw", &body).await.0, 409);
    let scoped = clients_yaml("").replace("[reports.read,", "[\"tenantgate:grants\",");
    gate.write("clients.yaml", &scoped);
    gate.running.reload().await.unwrap();
    let token = gate.mint().await;
    assert_eq!(call(&gate, &token, "withdraw", &body).await.0, 409, "let in");
}

#[tokio::test]
async fn who_used_a_tenant_and_who_was_refused_can_be_asked() {
    let gate = managed(true).await;
    gate.provider.grant("acme", &["T1", "CANARY"]);
    let token = gate.mint().await;
    for path in [T1, T1, "/api/CANARY/report", "/api/T9/report"] {
        gate.status(path, &token).await;
    }
    gate.status(T1, "x.y.z").await;
    let ask = async |body: Value| -> (u16, Value) {
        let address = gate.running.addresses.management.as_ref().unwrap();
        let request = gate.http.post(format!("http://{address}/v1/usage:query"));
        let response = request.bearer_auth(TOKEN).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    };
    let (status, all) = ask(json!({})).await;
    assert_eq!((status, &all["truncated"]), (200, &json!(false)));
    assert!(!all.to_string().contains("CANARY"), "{all}");
    let counts = |answer: &Value| {
        let rows = answer["rows"].as_array().unwrap().iter();
        let mut told: Vec<_> = rows
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                (text("client_id"), text("outcome"), row["count"].as_i64().unwrap())
            })
            .collect();
        told.sort();
        told
    };
    let row = |client: &str, outcome: &str, count| (client.to_owned(), outcome.to_owned(), count);
    assert_eq!(
        counts(&all),
        [
            row("", "token_malformed", 1),
            row("acme", "allowed", 1),
            row("acme", "allowed", 2),
            row("acme", "tenant_not_granted", 1)
        ]
    );
    gate.status(T1, &token).await;
    let of_t1 = ask(json!({ "tenant": "T1", "client_id": "acme" })).await.1;
    assert_eq!(counts(&of_t1), [row("acme", "allowed", 3)]);
    assert!(of_t1["rows"][0]["hour"].as_str().unwrap().ends_with(":00:00Z"));
    let later = json!({ "from": "2100-01-01T00:00:00Z" });
    assert_eq!(ask(later).await.1["rows"], json!([]));
    assert_eq!(ask(json!({ "from": "yesterday" })).await.0, 400);
    assert_eq!(ask(json!({ "tenant": "a/b" })).await.0, 400);

    // What was counted last is stored at the end.
    gate.status("/api/T9/report", &token).await;
    let (folder, clock) = (gate.folder, gate.clock);
    gate.running.drain().await;
    let environment =
        Environment { clock: clock as _, check_runtime: tokio::runtime::Handle::current() };
    let running = start(&folder.path().join("tenantgate.yaml"), environment).await.unwrap();
    let query = tenantgate::state::UsageQuery {
        client: "acme".to_owned(),
        reference: String::new(),
        from: 0,
        to: i64::MAX,
        limit: 10,
    };
    let rows = running.engine().state().unwrap().store().usage(query).await.unwrap();
    let refused = rows.iter().find(|row| row.outcome == "tenant_not_granted").unwrap();
    assert_eq!(refused.count, 2);
}

#[tokio::test]
async fn issuances_and_denials_are_told_in_a_stream_of_their_own() {
    let config = format!("{CONFIG}\naudit: {{ file: audit/decisions.jsonl }}\n");
    let gate = Gate::with_config(&config).await;
    gate.provider.grant("acme", &["T1", "CANARY"]);
    let token = gate.mint().await;
    gate.status(T1, &token).await;
    gate.status("/api/T9/report", &token).await;
    gate.request("&tenant=T9").await;
    let file = gate.file("audit/decisions.jsonl");
    let told = async || -> Vec<Value> {
        for _ in 0..100 {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if lines.len() >= 3 {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the lines never came")
    };
    let lines = told().await;
    assert_eq!(lines.len(), 3, "nothing is said of what was allowed");
    let [issued, denied, refused] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&issued["event"], &issued["client_id"]), (&json!("issued"), &json!("acme")));
    assert_eq!(issued["tenant_refs"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&denied["event"], &denied["reason"], &denied["client_id"]),
        (&json!("denied"), &json!("tenant_not_granted"), &json!("acme"))
    );
    assert_eq!((&refused["event"], &refused["cause"]), (&json!("refused"), &json!("tenant")));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("CANARY") && !text.contains(&token) && !text.contains("T9"), "{text}");

    let unwritable = config.replace("audit/decisions.jsonl", "/proc/none/x");
    gate.write("tenantgate.yaml", &unwritable.replace("PROVIDER", "http://127.0.0.1:9"));
    let environment = Environment {
        clock: Arc::clone(&gate.clock) as _,
        check_runtime: tokio::runtime::Handle::current(),
    };
    let Err(error) = start(&gate.file("tenantgate.yaml"), environment).await else {
        panic!("it starts")
    };
    let tenantgate::engine::StartError::Config { problems, .. } = error else { panic!("{error}") };
    assert!(problems[0].to_string().starts_with("audit.file: "), "{problems:?}");
}

async fn ask(gate: &Gate, body: Value) -> (u16, Value) {
    let address = gate.running.addresses.management.as_ref().unwrap();
    let request = gate.http.post(format!("http://{address}/v1/explain"));
    let response = request.bearer_auth(TOKEN).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn the_running_process_explains_a_request_and_a_grant() {
    let gate = managed(true).await;
    gate.provider.grant("acme", &["T1", "CANARY"]);
    let token = gate.mint().await;
    let request = |path: &str| json!({ "method": "GET", "path": path, "token": token });
    for (body, decision, reason) in [
        (request(T1), "allow", Value::Null),
        (request("/api/CANARY/report"), "allow", Value::Null),
        (request("/api/T9/report"), "deny", json!("tenant_not_granted")),
        (request("/nowhere"), "deny", json!("no_route")),
        (json!({ "path": T1 }), "deny", json!("no_credential")),
        (json!({ "client_id": "acme", "tenant": "CANARY" }), "allow", Value::Null),
        (json!({ "client_id": "acme", "tenant": "T9" }), "deny", json!("tenant_not_granted")),
        (json!({ "client_id": "nobody", "tenant": "T1" }), "deny", json!("client_withdrawn")),
    ] {
        let (status, answer) = ask(&gate, body.clone()).await;
        assert_eq!((status, &answer["decision"]), (200, &json!(decision)), "{body} {answer}");
        assert_eq!(answer.get("reason").cloned().unwrap_or_default(), reason, "{body}");
        assert!(!answer.to_string().contains("CANARY"), "{answer}");
        assert!(answer["steps"].as_array().unwrap().len() > 1 || reason == "client_withdrawn");
    }
    let withdrawn = json!({ "client_id": "acme", "tenant": "CANARY" });
    call(&gate, TOKEN, "withdraw", &withdrawn).await;
    for body in [withdrawn, request("/api/CANARY/report")] {
        assert_eq!(ask(&gate, body).await.1["reason"], "grant_withdrawn");
    }
    for bad in [json!({}), json!({ "path": T1, "tenant": "T1" }), json!({ "client_id": "acme" })] {
        assert_eq!(ask(&gate, bad).await.0, 400);
    }
}

#[tokio::test]
async fn what_is_known_of_a_client_s_grants_is_told_by_references() {
    let gate = managed(true).await;
    let address = gate.running.addresses.management.as_ref().unwrap();
    let url = format!("http://{address}/v1/clients/acme/grants");
    let known = async || -> Value {
        let answer = gate.http.get(&url).bearer_auth(TOKEN).send().await.unwrap();
        answer.json().await.unwrap()
    };
    let before = known().await;
    assert_eq!((&before["tenants"], before.get("last_outcome")), (&json!([]), None));
    gate.provider.grant("acme", &["T1", "CANARY"]);
    gate.mint().await;
    let after = known().await;
    assert_eq!((&after["source"], &after["last_outcome"]), (&json!("lookup"), &json!("granted")));
    assert_eq!(after["tenants"].as_array().unwrap().len(), 2);
    call(&gate, TOKEN, "withdraw", &json!({ "client_id": "acme", "tenant": "CANARY" })).await;
    let withdrawn = known().await;
    let tenant = &withdrawn["withdrawals"][0]["tenant"];
    assert!(withdrawn["tenants"].as_array().unwrap().contains(tenant), "{withdrawn}");
    assert!(!withdrawn.to_string().contains("CANARY"));
}
