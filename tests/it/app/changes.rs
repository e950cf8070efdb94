use super::*;

#[tokio::test]
async fn a_withdrawn_client_stops_at_once_also_with_remembered_tokens() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
    gate.write("clients.yaml", &clients_yaml("    status: revoked\n"));
    gate.running.reload().await.unwrap();
    let refused = gate.check("/api/T1/report", &token).await;
    assert_eq!(refused.status, 401);
    assert!(refused.headers["www-authenticate"].contains("invalid_token"));
    let (status, body) = gate.request("").await;
    assert_eq!((status, &body["error"]), (400, &json!("unauthorized_client")));
}

#[tokio::test]
async fn a_changed_file_is_noticed_without_a_signal() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
    gate.write("clients.yaml", &clients_yaml("    developer: { id: d, status: inactive }\n"));
    assert!(gate.becomes("/api/T1/report", &token, 401).await);
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_state_and_is_told() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    gate.write("clients.yaml", "clients:\n  - id: [\n");
    let problems = gate.running.reload().await.unwrap_err();
    assert!(problems[0].field.contains("clients.yaml"), "{problems:?}");
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
    assert_eq!(gate.request("").await.0, 200);
    let (status, text) = gate.admin("/readyz?verbose").await;
    assert_eq!(status, 200);
    assert!(text.contains("reload: failed") && text.contains("clients.yaml"), "{text}");
    let (_, metrics) = gate.admin("/metrics").await;
    assert!(metrics.contains("tenantgate_config_last_reload_successful 0"), "{metrics}");
    gate.write("clients.yaml", &clients_yaml(""));
    gate.running.reload().await.unwrap();
    assert!(gate.admin("/readyz?verbose").await.1.contains("reload: ok"));
}

#[tokio::test]
async fn a_wrong_value_is_told_with_its_file_and_line() {
    let gate = Gate::start().await;
    gate.write("clients.yaml", &clients_yaml("    # Not a state.\n    status: aproved\n"));
    gate.running.reload().await.unwrap_err();
    let (_, text) = gate.admin("/readyz?verbose").await;
    let told = text.lines().find(|line| line.contains("clients[0].status: "));
    assert!(told.is_some_and(|line| line.contains("/clients.yaml:7:5)")), "{text}");
    let config = std::fs::read_to_string(gate.file("tenantgate.yaml")).unwrap();
    gate.write("clients.yaml", &clients_yaml(""));
    gate.write("tenantgate.yaml", &format!("# One line more.\n{config}nonsense: 1\n"));
    gate.running.reload().await.unwrap_err();
    let (_, text) = gate.admin("/readyz?verbose").await;
    let place = format!("/tenantgate.yaml:{}:1)", config.lines().count() + 2);
    let told = text.lines().find(|line| line.contains("nonsense: "));
    assert!(told.is_some_and(|line| line.contains(&place)), "{text}");
}

#[tokio::test]
async fn keys_rotate_with_overlap_and_a_retired_key_ends_its_tokens() {
    let gate = Gate::start().await;
    let old = gate.mint().await;
    let generate = ["keys", "generate", "--alg", "EdDSA", "--activate-after", "0s", "--dir"];
    command(&generate, &gate.file("keys"));
    gate.running.reload().await.unwrap();
    let new = gate.mint().await;
    assert_ne!(kid(&old), kid(&new));
    for token in [&old, &new] {
        assert_eq!(gate.status("/api/T1/report", token).await, 200);
    }
    let keys = gate.http.get(gate.token_url("/oauth2/jwks")).send().await.unwrap();
    let keys: Value = keys.json().await.unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    let old_kid = kid(&old);
    command(&["keys", "retire", "--kid", &old_kid, "--dir"], &gate.file("keys"));
    gate.running.reload().await.unwrap();
    assert_eq!(gate.status("/api/T1/report", &old).await, 401);
    assert_eq!(gate.status("/api/T1/report", &new).await, 200);
}

#[tokio::test]
async fn routes_change_without_a_restart() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    assert_eq!(gate.status("/new/T1/report", &token).await, 403);
    let config = std::fs::read_to_string(gate.file("tenantgate.yaml")).unwrap();
    gate.write("tenantgate.yaml", &config.replace("\"/api/", "\"/new/"));
    gate.running.reload().await.unwrap();
    assert_eq!(gate.status("/new/T1/report", &token).await, 200);
    assert_eq!(gate.status("/api/T1/report", &token).await, 403);
}

#[tokio::test]
async fn an_api_key_works_where_the_api_offers_it() {
    let config =
        CONFIG.replace("  - name: oda", "  - name: oda\n    api_key: { header: x-api-key }");
    let gate = Gate::with_config(&config).await;
    let key = [("x-api-key", SECRET)];
    let first = gate.check_headers("/api/T1/report", &key).await;
    assert_eq!(first.status, 503, "nothing is known of its grants yet, and a check never waits");
    for _ in 0..100 {
        if gate.check_headers("/api/T1/report", &key).await.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let allowed = gate.check_headers("/api/T1/report", &key).await;
    assert_eq!(allowed.status, 200);
    assert!(allowed.removed.contains(&"x-api-key".to_owned()));
    assert_eq!(gate.check_headers("/api/T3/report", &key).await.status, 403);
    let wrong = gate.check_headers("/api/T1/report", &[("x-api-key", "wrong")]).await;
    assert_eq!(wrong.status, 401);
}

#[tokio::test]
async fn draining_is_told_before_it_happens() {
    let gate = Gate::start().await;
    assert_eq!(gate.admin("/readyz").await.0, 200);
    assert_eq!(gate.admin("/livez").await.0, 200);
    let admin = gate.running.addresses.admin.to_string();
    let draining = tokio::spawn(gate.running.drain());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ready = gate.http.get(format!("http://{admin}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    tokio::time::timeout(Duration::from_secs(20), draining).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_file_that_arrives_after_the_config_that_names_it_is_noticed() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    let config = std::fs::read_to_string(gate.file("tenantgate.yaml")).unwrap();
    std::fs::create_dir(gate.file("new")).unwrap();
    gate.write("tenantgate.yaml", &config.replace("clients.yaml", "new/clients.yaml"));
    let problems = gate.running.reload().await.unwrap_err();
    assert!(problems[0].to_string().starts_with("clients.file: "), "{problems:?}");
    gate.write("new/clients.yaml", &clients_yaml("    status: revoked\n"));
    let mut noticed = false;
    for _ in 0..40 {
        noticed |= gate.becomes("/api/T1/report", &token, 401).await;
        if noticed {
            break;
        }
    }
    assert!(noticed);
    assert!(gate.admin("/readyz?verbose").await.1.contains("reload: ok"));
}

#[tokio::test]
async fn a_lookup_that_a_reload_overtakes_does_not_count() {
    let gate = Gate::start().await;
    *gate.provider.delay.lock().unwrap() = Duration::from_millis(600);
    let next = Provider::default();
    next.grant("acme", &["T2"]);
    let next_url = next.start().await;
    let minting = gate.request("");
    let reloading = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let config = std::fs::read_to_string(gate.file("tenantgate.yaml")).unwrap();
        let old = config.lines().find(|line| line.contains("url: http://127")).unwrap();
        let new = format!("    url: {next_url}/{{client_id}}/authorizedTenants");
        gate.write("tenantgate.yaml", &config.replace(old, &new));
        gate.running.reload().await.unwrap();
    };
    let ((status, body), ()) = tokio::join!(minting, reloading);
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(gate.status("/api/T1/report", token).await, 403);
    assert_eq!(gate.status("/api/T2/report", token).await, 200);
    assert_eq!(next.lookups(), 1);
}

#[tokio::test]
async fn a_process_that_only_verifies_needs_no_registry_and_no_lookup() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    let verify = r#"
listen: { check: "127.0.0.1:0", admin: "127.0.0.1:0" }
issuer:
  url: https://issuer.test
  audience: https://api.test
  signing_keys: public
  tenant_claim: { key_file: digest.key }
apis:
  - name: oda
    routes: [{ path: "/api/{tenant}/report", methods: [GET] }]
"#;
    gate.write("verify.yaml", verify);
    std::fs::create_dir(gate.file("public")).unwrap();
    for entry in std::fs::read_dir(gate.file("keys")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            std::fs::copy(&path, gate.file("public").join(path.file_name().unwrap())).unwrap();
        }
    }
    let environment = Environment {
        clock: Arc::clone(&gate.clock) as _,
        check_runtime: tokio::runtime::Handle::current(),
    };
    let running = start(&gate.file("verify.yaml"), environment).await.unwrap();
    assert!(running.addresses.token.is_none());
    let url = format!("http://{}", running.addresses.check);
    let check = AuthorizationClient::connect(url).await.unwrap();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    for _ in 0..5 {
        assert_eq!(Gate::ask(check.clone(), "/api/T1/report", &headers).await.status, 200);
        assert_eq!(Gate::ask(check.clone(), "/api/T3/report", &headers).await.status, 403);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn readiness_tells_of_the_lookup_its_token_the_keys_and_shadow_mode() {
    let config =
        CONFIG.replace("apis:\n  - name: oda\n", "apis:\n  - name: oda\n    shadow: true\n");
    let gate = Gate::with_config(&config).await;
    let told = async || gate.admin("/readyz?verbose").await.1;
    for line in [
        "lookup: no good answer yet\n",
        "signing key: ",
        "shadow mode: API oda: what would be denied passes\n",
        "connections on check: 0 of ",
    ] {
        assert!(told().await.contains(line), "{line} missing in\n{}", told().await);
    }
    gate.mint().await;
    gate.clock.advance(Duration::from_secs(7));
    assert!(told().await.contains("lookup: ok, last good answer 7 s ago\n"), "{}", told().await);
    gate.provider.go_down(true);
    gate.clock.advance(Duration::from_secs(60));
    assert_eq!(gate.request("").await.0, 503);
    let text = told().await;
    let line = text.lines().find(|line| line.starts_with("lookup: ")).unwrap();
    assert!(line.starts_with("lookup: failures in a row: "), "{line}");
    assert!(
        line.contains("last good answer 67 s ago; the last one: unexpected status 5"),
        "{line}"
    );
    // The gate's clock is ahead of the command's.
    command(&["keys", "generate", "--activate-after", "1000d", "--dir"], &gate.file("keys"));
    gate.running.reload().await.unwrap();
    assert!(told().await.contains("next signing key: "), "{}", told().await);
    assert_eq!(gate.admin("/readyz?verbose").await.0, 200, "a provider that is down is no reason");
}
