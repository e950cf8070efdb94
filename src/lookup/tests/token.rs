//! The lookup's own token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};

use crate::config::{LookupAuth, OAuth2Auth, OAuth2Method};
use crate::domain::{Algorithm, Clock as _};

use super::super::testing::*;
use super::SECOND;

fn bearer(seen: &Seen) -> &str {
    seen.headers["authorization"].strip_prefix("Bearer ").unwrap()
}

/// A provider whose lookups accept `accepted` only.
async fn picky(accepted: &'static str, refusal: u16) -> Provider {
    Provider::with_tokens(move |seen, _| {
        if bearer(seen) == accepted { tenants(&["T1"]) } else { answer(refusal, &[], "") }
    })
    .await
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_lookup_goes_on() {
    for refusal in [401, 403] {
        let provider = picky("token-1", refusal).await;
        let bench = LookupBench::new(oauth2_lookup(&provider));
        assert_eq!(bench.ask("acme").await.as_str(), "granted", "{refusal}");
        assert_eq!((provider.count(TOKEN_PATH), provider.lookups_of("acme")), (2, 2));
        bench.ask("b").await;
        assert_eq!((provider.count(TOKEN_PATH), provider.lookups_of("b")), (2, 1));
    }
}

#[tokio::test]
async fn a_lasting_refusal_is_unavailable_and_costs_one_token_a_second() {
    let provider = picky("no token at all", 403).await;
    let bench = LookupBench::new(oauth2_lookup(&provider));
    assert_eq!(bench.ask("acme").await.as_str(), "unauthorized");
    assert_eq!((provider.count(TOKEN_PATH), provider.lookups_of("acme")), (2, 2));
    bench.clock.advance(Duration::from_millis(999));
    assert_eq!(bench.ask("acme").await.as_str(), "unauthorized");
    assert_eq!((provider.count(TOKEN_PATH), provider.lookups_of("acme")), (2, 3));
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.ask("acme").await.as_str(), "unauthorized");
    assert_eq!((provider.count(TOKEN_PATH), provider.lookups_of("acme")), (3, 5));
}

#[tokio::test]
async fn many_refusals_at_once_replace_the_token_once() {
    let provider = picky("token-1", 401).await;
    let bench = LookupBench::new(oauth2_lookup(&provider));
    let clients: Vec<_> = (0..50).map(|n| format!("c{n}")).collect();
    let all = clients.iter().map(|client| bench.ask(client));
    for outcome in futures::future::join_all(all).await {
        assert_eq!(outcome.as_str(), "granted");
    }
    assert_eq!(provider.count(TOKEN_PATH), 2);
}

#[tokio::test]
async fn a_late_refusal_of_the_old_token_uses_the_one_fetched_since() {
    let provider = Provider::with_tokens(|seen, _| match bearer(seen) {
        "token-0" if seen.target.contains("late") => slow(SECOND / 3, answer(401, &[], "")),
        "token-0" => answer(401, &[], ""),
        _ => tenants(&["T1"]),
    })
    .await;
    let bench = LookupBench::new(oauth2_lookup(&provider));
    let (early, late) = tokio::join!(bench.ask("early"), bench.ask("late"));
    assert_eq!((early.as_str(), late.as_str()), ("granted", "granted"));
    assert_eq!(provider.count(TOKEN_PATH), 2);
}

#[tokio::test]
async fn it_is_renewed_in_the_background_before_it_expires() {
    let provider = Provider::start(|seen, nth| match seen.target.as_str() {
        TOKEN_PATH => token(&format!("token-{nth}"), 100),
        _ => tenants(&["T1"]),
    })
    .await;
    let bench = LookupBench::new(oauth2_lookup(&provider));
    let directory = Arc::clone(&bench.directory);
    directory.renew_token();
    assert_eq!(provider.count(TOKEN_PATH), 0, "nobody has needed one yet");
    bench.ask("a").await;
    // Due 10 to 11 s ahead of the expiry.
    bench.clock.advance(88 * SECOND);
    directory.renew_token();
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(provider.count(TOKEN_PATH), 1);
    bench.clock.advance(2 * SECOND);
    directory.renew_token();
    directory.renew_token();
    until("the renewal", || bench.token_requests("issued") == 2).await;
    assert_eq!(provider.count(TOKEN_PATH), 2);
    bench.clock.advance(20 * SECOND);
    bench.ask("b").await;
    assert_eq!(bearer(&provider.seen(&path_of("b"))[0]), "token-1");
    let expiry = (START.secs() + 90 + 100) as f64;
    assert_eq!(bench.metrics.callout_token_expiry.get(), expiry);
}

#[tokio::test]
async fn it_is_used_as_long_as_it_lives_while_renewals_fail() {
    let provider = Provider::start(|seen, nth| match (seen.target.as_str(), nth) {
        (TOKEN_PATH, 0) => token("token-0", 100),
        (TOKEN_PATH, _) => answer(500, &[], ""),
        _ => tenants(&["T1"]),
    })
    .await;
    let bench = LookupBench::new(oauth2_lookup(&provider));
    let directory = Arc::clone(&bench.directory);
    bench.ask("a").await;
    bench.clock.advance(91 * SECOND);
    for failures in 1..=2 {
        directory.renew_token();
        until("a failed renewal", || bench.token_requests("status") == failures).await;
    }
    directory.renew_token();
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(bench.token_requests("status"), 2, "backs off");
    bench.clock.advance(8 * SECOND);
    assert_eq!(bench.ask("b").await.as_str(), "granted");
    bench.clock.advance(2 * SECOND);
    assert_eq!(bench.ask("c").await.as_str(), "callout_token");
    assert_eq!(provider.lookups_of("c"), 0);
}

#[tokio::test]
async fn a_single_failure_of_the_token_endpoint_does_not_fail_a_lookup() {
    let provider = Provider::start(|seen, nth| match (seen.target.as_str(), nth) {
        (TOKEN_PATH, 0) => answer(503, &[], ""),
        (TOKEN_PATH, _) => token("token", 100),
        _ => tenants(&["T1"]),
    })
    .await;
    let bench = LookupBench::new(oauth2_lookup(&provider));
    assert_eq!(bench.ask("a").await.as_str(), "granted");
}

#[tokio::test]
async fn invalid_client_is_reported_as_what_it_is_and_not_hammered() {
    let down = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let provider = Provider::start(move |seen, _| match seen.target.as_str() {
        TOKEN_PATH if switch.load(Ordering::SeqCst) => {
            answer(401, &[], r#"{"error": "invalid_client"}"#)
        }
        TOKEN_PATH => token("token", 100),
        _ => tenants(&["T1"]),
    })
    .await;
    let bench = LookupBench::new(oauth2_lookup(&provider));
    for n in 0..20 {
        let outcome = bench.ask(&format!("c{n}")).await;
        assert!(format!("{outcome:?}").contains("InvalidClient"), "{outcome:?}");
    }
    assert_eq!(provider.count(TOKEN_PATH), 1);
    assert_eq!(bench.token_requests("invalid_client"), 1);
    down.store(false, Ordering::SeqCst);
    bench.clock.advance(5 * SECOND);
    assert_eq!(bench.ask("a").await.as_str(), "granted");
}

#[tokio::test]
async fn fetching_it_counts_in_the_lookup_s_budget() {
    let provider = Provider::start(|seen, _| match seen.target.as_str() {
        TOKEN_PATH => slow(30 * SECOND, token("token", 100)),
        _ => tenants(&["T1"]),
    })
    .await;
    let mut lookup = oauth2_lookup(&provider);
    lookup.limits.timeout = SECOND / 2;
    let bench = LookupBench::new(lookup);
    let started = tokio::time::Instant::now();
    assert_eq!(bench.ask("a").await.as_str(), "timeout");
    assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
}

fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[tokio::test]
async fn answers_of_token_endpoints() {
    let in_50_s = jwt(&json!({ "exp": START.secs() + 50 }));
    let past = jwt(&json!({ "exp": START.secs() }));
    let huge = "x".repeat(70_000);
    // The answer, and for how many seconds its token serves: 0 if it cannot be used.
    let rows = [
        (json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 20 }), 20),
        (json!({ "access_token": "t", "token_type": "BEARER", "expires_in": "30" }), 30),
        (json!({ "access_token": "t", "token_type": "bearer", "expires_in": 12.9 }), 12),
        (json!({ "access_token": in_50_s, "token_type": "bearer" }), 50),
        (json!({ "access_token": in_50_s, "token_type": "bearer", "expires_in": 7 }), 7),
        (json!({ "access_token": "opaque", "token_type": "bearer" }), 300),
        (json!({ "access_token": "a.b.c", "token_type": "bearer", "expires_in": null }), 300),
        (json!({ "access_token": past, "token_type": "bearer" }), 0),
        (json!({ "access_token": "t", "token_type": "bearer", "expires_in": 0 }), 0),
        (json!({ "access_token": "t", "token_type": "bearer", "expires_in": "soon" }), 0),
        (json!({ "access_token": "t", "token_type": "DPoP", "expires_in": 20 }), 0),
        (json!({ "access_token": "t", "token_type": "BearerToken", "expires_in": "20" }), 20),
        (json!({ "access_token": "t", "expires_in": 20 }), 20),
        (json!({ "access_token": "t", "token_type": null, "expires_in": 20 }), 20),
        (json!({ "access_token": "t", "token_type": ["bearer"], "expires_in": 20 }), 0),
        (json!({ "access_token": "", "token_type": "bearer" }), 0),
        (json!({ "access_token": "a\r\nb", "token_type": "bearer" }), 0),
        (json!({ "access_token": "a b", "token_type": "bearer" }), 0),
        (json!({ "token_type": "bearer" }), 0),
        (json!("token"), 0),
        (json!({ "access_token": huge, "token_type": "bearer" }), 0),
    ];
    for (body, lifetime) in rows {
        let text = body.to_string();
        let provider = Provider::start(move |seen, _| match seen.target.as_str() {
            TOKEN_PATH => answer(200, &[], &text),
            _ => tenants(&["T1"]),
        })
        .await;
        let bench = LookupBench::new(oauth2_lookup(&provider));
        let outcome = bench.ask("a").await;
        if lifetime == 0 {
            assert_eq!(outcome.as_str(), "callout_token", "{body}");
            assert_eq!(bench.token_requests("bad_answer"), 1, "{body}");
            continue;
        }
        assert_eq!(outcome.as_str(), "granted", "{body}");
        bench.clock.advance(Duration::from_secs(lifetime) - SECOND / 10);
        bench.ask("b").await;
        assert_eq!(provider.count(TOKEN_PATH), 1, "{body}");
        bench.clock.advance(SECOND);
        bench.ask("c").await;
        assert_eq!(provider.count(TOKEN_PATH), 2, "{body}");
    }
}

async fn requested_with(change: impl FnOnce(&mut OAuth2Auth)) -> (Seen, BTreeMap<String, String>) {
    let provider = Provider::with_tokens(|_, _| tenants(&["T1"])).await;
    let mut auth = oauth2(&provider);
    change(&mut auth);
    let mut lookup = oauth2_lookup(&provider);
    lookup.auth = LookupAuth::OAuth2(Box::new(auth));
    let bench = LookupBench::new(lookup);
    bench.ask("acme").await;
    let seen = provider.seen(TOKEN_PATH)[0].clone();
    let form = form_urlencoded::parse(seen.body.as_bytes()).into_owned().collect();
    (seen, form)
}

fn form(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn client_secret_basic_is_form_encoded_first() {
    let (seen, sent) = requested_with(|auth| {
        auth.client_id = "a:b c".to_owned();
        auth.scope = Some("read write".to_owned());
        auth.audience = Some("https://api".to_owned());
    })
    .await;
    let pair = STANDARD.encode("a%3Ab+c:s%3Acret");
    assert_eq!(seen.headers["authorization"], format!("Basic {pair}"));
    let expected = form(&[
        ("grant_type", "client_credentials"),
        ("scope", "read write"),
        ("audience", "https://api"),
    ]);
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn client_secret_post_stands_in_the_form() {
    let (seen, sent) = requested_with(|auth| {
        auth.method = OAuth2Method::ClientSecretPost(secret("s&cret"));
    })
    .await;
    assert_eq!(seen.headers.get("authorization"), None);
    let expected = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", "tenantgate"),
        ("client_secret", "s&cret"),
    ]);
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn private_key_jwt_signs_an_assertion_for_the_token_endpoint() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der = pair.to_pkcs8v1().unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    let mut token_url = String::new();
    let (_, sent) = requested_with(|auth| {
        token_url = auth.token_url.to_string();
        auth.method = OAuth2Method::PrivateKeyJwt {
            key_pem: secret(&pem),
            algorithm: Algorithm::Es256,
            kid: Some("k1".to_owned()),
        };
    })
    .await;
    assert_eq!(
        sent["client_assertion_type"],
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    assert_eq!(sent["client_id"], "tenantgate");
    // The public key without the byte that says "uncompressed point".
    let point = &pair.public_key().as_ref()[1..];
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let key =
        DecodingKey::from_ec_components(&encode(&point[..32]), &encode(&point[32..])).unwrap();
    let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.validate_exp = false;
    validation.set_audience(&[&token_url]);
    validation.set_issuer(&["tenantgate"]);
    let token =
        jsonwebtoken::decode::<Value>(&sent["client_assertion"], &key, &validation).unwrap();
    assert_eq!(token.header.kid.as_deref(), Some("k1"));
    assert_eq!(token.claims["sub"], "tenantgate");
    assert_eq!(token.claims["iat"], START.secs());
    assert_eq!(token.claims["exp"], START.secs() + 60);
    assert_eq!(token.claims["jti"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn fixed_credentials_are_sent_as_they_are() {
    for (auth, expected) in [
        (LookupAuth::Bearer(secret("abc")), "Bearer abc".to_owned()),
        (
            LookupAuth::Basic { username: "u".to_owned(), password: secret("p:w") },
            format!("Basic {}", STANDARD.encode("u:p:w")),
        ),
    ] {
        let provider = Provider::start(|_, _| tenants(&["T1"])).await;
        let mut lookup = http_lookup(&provider);
        lookup.auth = auth;
        let bench = LookupBench::new(lookup);
        bench.ask("acme").await;
        assert_eq!(provider.seen(&path_of("acme"))[0].headers["authorization"], expected);
        assert_eq!(bench.clock.now(), START);
    }
}
