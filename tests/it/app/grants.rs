use super::*;

#[tokio::test]
async fn nobody_without_a_grant_gets_a_token() {
    let gate = Gate::start().await;
    gate.provider.grant("acme", &[]);
    let (status, body) = gate.request("").await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_target")));
    // 404 says that there is nothing at this URL, not that nobody has authorised the app.
    gate.provider.grants.lock().unwrap().clear();
    gate.clock.advance(Duration::from_secs(61));
    let (status, body) = gate.request("").await;
    assert_eq!((status, &body["error"]), (503, &json!("temporarily_unavailable")));
}

#[tokio::test]
async fn an_outage_stops_mints_with_503_and_leaves_tokens_alone() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    gate.provider.go_down(true);
    assert_eq!(gate.request("").await.0, 200, "still within cache_ttl");
    gate.clock.advance(Duration::from_secs(61));
    for _ in 0..3 {
        let (status, body) = gate.request("").await;
        assert_eq!((status, &body["error"]), (503, &json!("temporarily_unavailable")));
    }
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
}

#[tokio::test]
async fn a_withdrawn_grant_is_refused_after_the_next_refresh() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
    gate.provider.grant("acme", &["T2"]);
    assert_eq!(gate.status("/api/T1/report", &token).await, 200, "not looked up yet");
    gate.clock.advance(Duration::from_secs(70));
    assert_eq!(gate.status("/api/T2/report", &token).await, 200);
    assert!(gate.becomes("/api/T1/report", &token, 403).await);
    assert_eq!(gate.status("/api/T2/report", &token).await, 200);
}

#[tokio::test]
async fn a_withdrawal_acts_also_while_the_clock_is_set_back_or_forward() {
    for hour_back in [true, false] {
        let gate = Gate::start().await;
        let before = gate.mint().await;
        let hour = Duration::from_secs(3600);
        let now = gate.clock.now();
        gate.clock.set(if hour_back { now.minus(hour) } else { now.plus(hour) });
        // From the cache; nobody has looked again.
        let token = gate.mint().await;
        assert_eq!(gate.status("/api/T1/report", &token).await, 200, "{hour_back}");
        // Not valid yet, or expired.
        assert_eq!(gate.status("/api/T1/report", &before).await, 401, "{hour_back}");
        gate.provider.grant("acme", &["T2"]);
        gate.clock.advance(Duration::from_secs(70));
        assert!(gate.becomes("/api/T1/report", &token, 403).await, "{hour_back}");
        assert_eq!(gate.request("&tenant=T1").await.0, 400, "{hour_back}");
    }
}

#[tokio::test]
async fn grants_that_nobody_can_confirm_are_503_after_max_age() {
    let config = CONFIG.replace("  signing_keys", "  token_ttl: 30m\n  signing_keys");
    let gate = Gate::with_config(&config).await;
    let token = gate.mint().await;
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
    gate.provider.go_down(true);
    gate.clock.advance(Duration::from_secs(299));
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
    gate.clock.advance(Duration::from_secs(2));
    let stale = gate.check("/api/T1/report", &token).await;
    assert_eq!(stale.status, 503);
    assert!(stale.headers.contains_key("retry-after"));
    assert_eq!(gate.status("/api/T3/report", &token).await, 403, "not in the token anyway");
    gate.provider.go_down(false);
    // After failures a lookup waits a little before it is tried again, and on a busy machine one
    // may fail once more.
    let mut recovered = false;
    for _ in 0..100 {
        gate.clock.advance(Duration::from_secs(5));
        recovered |= gate.status("/api/T1/report", &token).await == 200;
        if recovered {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(recovered);
}

#[tokio::test]
async fn two_hundred_cold_mints_are_one_lookup() {
    let gate = Gate::start().await;
    let mints = (0..200).map(|_| gate.request(""));
    let answers = futures::future::join_all(mints).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert_eq!(gate.provider.lookups(), 1);
}

#[tokio::test]
async fn a_miss_is_looked_up_where_the_config_says_so() {
    let config = CONFIG.replace("  freshness:", "  on_miss: lookup\n  freshness:");
    let gate = Gate::with_config(&config).await;
    let token = gate.mint().await;
    assert_eq!(gate.provider.lookups(), 1);
    for n in 0..50 {
        assert_eq!(gate.status(&format!("/api/X{n}/report"), &token).await, 403);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lookups = gate.provider.lookups();
    assert!((2..=4).contains(&lookups), "{lookups} lookups for 50 probes");

    let (_, body) = gate.request("&tenant=T1").await;
    let narrowed = body["access_token"].as_str().unwrap().to_owned();
    gate.provider.grant("acme", &["T1", "T2", "T3"]);
    gate.clock.advance(Duration::from_secs(6));
    assert_eq!(gate.status("/api/T3/report", &token).await, 403);
    assert!(gate.becomes("/api/T3/report", &token, 200).await);
    assert_eq!(gate.status("/api/T3/report", &narrowed).await, 403);
}
