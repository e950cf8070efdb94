use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_is_minted_and_opens_its_tenants_only() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    let allowed = gate.check("/api/T1/report?x=%2f", &token).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.headers["x-tenantgate-client-id"], "acme");
    assert_eq!(allowed.headers["x-tenantgate-scope"], "reports.read other");
    assert!(allowed.removed.contains(&"authorization".to_owned()));
    let foreign = gate.check("/api/T3/report", &token).await;
    let unknown = gate.check("/api/nobody-has-this/report", &token).await;
    assert_eq!(foreign.status, 403);
    assert_eq!(foreign, unknown);
    let body: Value = serde_json::from_str(&foreign.body).unwrap();
    assert_eq!(body["error"], "access_denied");
}

#[tokio::test]
async fn variables_reach_the_upstream_and_nothing_forged_does() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    let report = gate.check("/api/T1/report", &token).await;
    for name in ["x-tenantgate-var-kind", "x-tenantgate-var-id", "x-tenantgate-var-page"] {
        assert!(report.removed.contains(&name.to_owned()), "{name}");
    }
    let item = gate.check("/api/T1/device/42", &token).await;
    assert_eq!(item.headers["x-tenantgate-var-kind"], "device");
    assert_eq!(item.headers["x-tenantgate-var-id"], "42");
    assert!(!item.headers.values().any(|value| value == "T1"));
    let public = gate.check_headers("/docs/start", &[]).await;
    assert_eq!(public.status, 200);
    assert!(public.removed.contains(&"x-tenantgate-client-id".to_owned()));
    assert!(public.removed.contains(&"authorization".to_owned()));
}

#[tokio::test]
async fn the_payload_is_that_of_rfc_9068_and_shows_no_code() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    let claims = payload(&token);
    assert_eq!(claims["iss"], "https://issuer.test");
    assert_eq!(claims["aud"], "https://api.test");
    assert_eq!(claims["sub"], "acme");
    assert_eq!(claims["client_id"], "acme");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    assert!(claims["jti"].as_str().unwrap().len() >= 20);
    assert_eq!(claims["tenant_list"].as_array().unwrap().len(), 2);
    // Quoted: a digest may hold these two characters by chance.
    assert!(!claims.to_string().contains("\"T1\""));
    let header = token.split('.').next().unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("at+jwt")));
    assert_ne!(payload(&gate.mint().await)["jti"], claims["jti"]);
}

#[tokio::test]
async fn narrowing_is_all_or_nothing() {
    let gate = Gate::start().await;
    let (_, body) = gate.request("&tenant=T2&resource=https://api.test&scope=other").await;
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(body["scope"], "other");
    assert_eq!(gate.status("/api/T2/a/b", token).await, 200);
    assert_eq!(gate.status("/api/T1/a/b", token).await, 403);
    let scopeless = gate.check("/api/T2/report", token).await;
    assert_eq!(scopeless.status, 403);
    let challenge = &scopeless.headers["www-authenticate"];
    assert!(challenge.contains(r#"error="insufficient_scope""#), "{challenge}");
    assert!(challenge.contains(r#"scope="reports.read""#), "{challenge}");
    for (form, error) in [
        ("&tenant=T2&tenant=T3", "invalid_target"),
        ("&resource=urn:tenantgate:tenant:T3", "invalid_target"),
        ("&resource=https://else.test", "invalid_target"),
        ("&scope=admin", "invalid_scope"),
    ] {
        let (status, body) = gate.request(form).await;
        assert_eq!((status, &body["error"]), (400, &json!(error)), "{form}");
    }
}

#[tokio::test]
async fn more_than_300_tenants_must_be_named() {
    let gate = Gate::start().await;
    let codes: Vec<String> = (0..301).map(|n| format!("tenant-{n}")).collect();
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    gate.provider.grant("acme", &codes);
    let (status, body) = gate.request("").await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_target")));
    assert!(body["error_description"].as_str().unwrap().contains("name the ones"));
    let named: String = codes[..300].iter().map(|code| format!("&tenant={code}")).collect();
    let (status, body) = gate.request(&named).await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap();
    assert!(token.len() < 16 * 1024);
    assert_eq!(gate.status("/api/tenant-299/report", token).await, 200);
    assert_eq!(gate.status("/api/tenant-300/report", token).await, 403);
}

#[tokio::test]
async fn the_bound_on_tenants_is_the_config_s_and_told_before_it_is_met() {
    let config = CONFIG.replace("  signing_keys", "  max_tenants: 5\n  signing_keys");
    let gate = Gate::with_config(&config).await;
    let nearly_full = async || {
        let (_, text) = gate.admin("/metrics").await;
        let line =
            text.lines().find(|line| line.starts_with("tenantgate_tokens_nearly_full_total"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    gate.provider.grant("acme", &["T1", "T2", "T3"]);
    assert_eq!(gate.request("").await.0, 200);
    assert_eq!(nearly_full().await, "0");
    gate.provider.grant("acme", &["T1", "T2", "T3", "T4"]);
    gate.clock.advance(Duration::from_secs(61));
    assert_eq!(gate.request("").await.0, 200);
    assert_eq!(gate.request("&tenant=T1").await.0, 200);
    assert_eq!(nearly_full().await, "1", "not where the client has named them");
    gate.provider.grant("acme", &["T1", "T2", "T3", "T4", "T5", "T6"]);
    gate.clock.advance(Duration::from_secs(61));
    let (status, body) = gate.request("").await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_target")));
    assert!(body["error_description"].as_str().unwrap().contains("tenant=CODE"));
    assert_eq!(gate.request("&tenant=T1&tenant=T6").await.0, 200);
}

#[tokio::test]
async fn failed_authentication_tells_nothing_and_names_the_method() {
    let gate = Gate::start().await;
    let expired = "      - { digest: \"sha256:EXPIRED\", expires_at: 2001-01-01T00:00:00Z }\n";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"tgs_old");
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let registry = clients_yaml("")
        .replace("    scopes:", &format!("{}    scopes:", expired.replace("EXPIRED", &hex)));
    gate.write("clients.yaml", &registry);
    gate.running.reload().await.unwrap();
    let mut answers = Vec::new();
    for (id, secret) in [("acme", "wrong"), ("nobody", SECRET), ("acme", "tgs_old"), ("", "")] {
        let response = gate
            .http
            .post(gate.token_url("/oauth2/token"))
            .basic_auth(id, Some(secret))
            .form(&[("grant_type", "client_credentials")])
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut headers: Vec<String> =
            response.headers().iter().map(|(k, v)| format!("{k}: {v:?}")).collect();
        headers.retain(|header| !header.starts_with("date"));
        answers.push((headers, response.text().await.unwrap()));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
}

#[tokio::test]
async fn the_token_endpoint_takes_a_posted_form_only() {
    let gate = Gate::start().await;
    let url = gate.token_url("/oauth2/token");
    let send = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["error"].as_str().unwrap().to_owned())
    };
    assert_eq!(send(gate.http.get(&url)).await.0, 405);
    let json_body = gate.http.post(&url).json(&json!({ "grant_type": "client_credentials" }));
    assert_eq!(send(json_body).await, (400, "invalid_request".into()));
    let in_query = format!("{url}?client_id=acme&client_secret={SECRET}");
    let in_query = gate.http.post(in_query).form(&[("grant_type", "client_credentials")]);
    assert_eq!(send(in_query).await, (400, "invalid_request".into()));
    let huge = gate.http.post(&url).form(&[("x", "x".repeat(100_000))]);
    assert_eq!(send(huge).await, (400, "invalid_request".into()));
}

#[tokio::test]
async fn guessing_is_slowed_but_never_locks_the_right_secret_out() {
    let gate = Gate::start().await;
    let mut statuses = Vec::new();
    for _ in 0..40 {
        let response = gate
            .http
            .post(gate.token_url("/oauth2/token"))
            .basic_auth("acme", Some("guess"))
            .form(&[("grant_type", "client_credentials")])
            .send()
            .await
            .unwrap();
        statuses.push(response.status().as_u16());
        if response.status() == 429 {
            assert!(response.headers().contains_key("retry-after"));
        }
    }
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 10, "{statuses:?}");
    assert_eq!(gate.request("").await.0, 200);
}

#[tokio::test]
async fn metadata_and_keys_are_published() {
    let gate = Gate::start().await;
    let metadata = gate.token_url("/.well-known/oauth-authorization-server");
    let metadata: Value = gate.http.get(metadata).send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["issuer"], "https://issuer.test");
    assert_eq!(metadata["token_endpoint"], "https://issuer.test/oauth2/token");
    assert_eq!(metadata["grant_types_supported"], json!(["client_credentials"]));
    let keys = gate.http.get(gate.token_url("/oauth2/jwks")).send().await.unwrap();
    let keys: Value = keys.json().await.unwrap();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    assert!(keys["keys"][0].get("d").is_none());
}

#[tokio::test]
async fn what_a_client_may_get_wrong_is_told_with_its_cure() {
    let gate = Gate::start().await;
    let url = gate.token_url("/oauth2/token");
    let told = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["error_description"].as_str().unwrap().to_owned())
    };
    let (status, text) = told(gate.http.post(&url)).await;
    assert!(status == 400 && text.contains("grant_type is missing"), "{text}");
    let (status, text) = told(gate.http.post(&url).json(&json!({}))).await;
    assert!(status == 400 && text.contains("send a form"), "{text}");
    let (status, text) = told(gate.http.get(&url)).await;
    assert!(status == 405 && text.contains("POST"), "{text}");
    let (status, text) = told(gate.http.post(format!("{url}/"))).await;
    assert!(status == 404 && text.contains("/oauth2/token"), "{text}");
    for form in ["&tenants=T1", "&tenant[0]=T1", "&tenant%5B%5D=T1", "&resources=x"] {
        let (status, body) = gate.request(form).await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{form}");
    }
    let metrics = reqwest::get(format!("http://{}/metrics", gate.running.addresses.admin));
    let metrics = metrics.await.unwrap().text().await.unwrap();
    let counted = r#"tenantgate_token_requests_total{outcome="invalid_request"} 7"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn basic_credentials_that_were_not_encoded_pass_as_they_were_sent() {
    let gate = Gate::start().await;
    let entry = |id: &str, secret: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let credentials = format!("[{{ digest: \"sha256:{hex}\" }}]");
        format!("  - {{ id: \"{id}\", credentials: {credentials}, tenants: [T1] }}\n")
    };
    let (one, other) = ("p+q%41:r", "s+t%42:u");
    let registry = format!("clients:\n{}{}", entry("a+b", one), entry("a:b", other));
    gate.write("clients.yaml", &registry);
    gate.running.reload().await.unwrap();
    let form = [("grant_type", "client_credentials")];
    for (id, secret) in
        [("a+b", one), ("a:b", other), ("a%2Bb", "p%2Bq%2541%3Ar"), ("a%3Ab", "s%2Bt%2542%3Au")]
    {
        let request = gate.http.post(gate.token_url("/oauth2/token")).form(&form);
        let answer = request.basic_auth(id, Some(secret)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{id}");
    }
    let wrong = gate.http.post(gate.token_url("/oauth2/token")).form(&form);
    let answer = wrong.basic_auth("a+b", Some("p q%41:r")).send().await.unwrap();
    assert_eq!(answer.status(), 401);
}
