//! The module as a whole over a provider that misbehaves.

mod refresh;

use std::time::Duration;

use crate::config::{Freshness, HttpLookup, Lookup};
use crate::domain::{Clock as _, GrantBook as _, Holder, Moment, TenantDigester};

use super::LookupOutcome;
use super::testing::*;

const SECOND: Duration = Duration::from_secs(1);

fn codes(outcome: &LookupOutcome) -> Vec<&str> {
    match outcome {
        LookupOutcome::Granted(set) => set.codes.iter().map(|code| code.expose()).collect(),
        other => panic!("not granted: {other:?}"),
    }
}

#[tokio::test]
async fn each_outcome_is_counted_and_only_an_answer_reaches_the_checks() {
    let provider = Provider::start(|seen, _| match seen.target.as_str() {
        "/granted/authorizedTenants" => tenants(&["T1"]),
        "/denied/authorizedTenants" => tenants(&[]),
        _ => answer(400, &[], ""),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    for outcome in ["granted", "denied", "unexpected_status"] {
        assert_eq!(bench.tenants.grants(&client(outcome)).await.as_str(), outcome);
        assert_eq!(bench.lookups(outcome), 1, "{outcome}");
        let known = bench.tenants.cell(&client(outcome)).current().is_some();
        assert_eq!(known, outcome != "unexpected_status", "{outcome}");
    }
}

#[tokio::test]
async fn two_hundred_mints_on_a_cold_process_make_one_token_request_and_one_lookup_a_client() {
    let provider = Provider::with_tokens(|_, _| slow(SECOND / 5, tenants(&["T1"]))).await;
    let bench = Bench::new(oauth2_lookup(&provider));
    let clients: Vec<_> = (0..200).map(|n| client(&format!("c{}", n % 4))).collect();
    let all = clients.iter().map(|client| bench.tenants.grants(client));
    for outcome in futures::future::join_all(all).await {
        assert_eq!(codes(&outcome), ["T1"]);
    }
    assert_eq!(provider.count(TOKEN_PATH), 1);
    for n in 0..4 {
        assert_eq!(provider.lookups_of(&format!("c{n}")), 1);
    }
}

#[tokio::test]
async fn answers_are_remembered_for_their_time_and_denials_for_less() {
    let provider = Provider::start(|seen, _| match seen.target.contains("none") {
        true => tenants(&[]),
        false => tenants(&["T1"]),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    let ask = async || {
        bench.tenants.grants(&client("acme")).await;
        bench.tenants.grants(&client("none")).await;
        (provider.lookups_of("acme"), provider.lookups_of("none"))
    };
    assert_eq!(ask().await, (1, 1));
    bench.clock.advance(Duration::from_millis(4_999));
    assert_eq!(ask().await, (1, 1));
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(ask().await, (1, 2));
    bench.clock.advance(55 * SECOND);
    assert_eq!(ask().await, (2, 3));
    let cache =
        |counters: &prometheus::IntCounterVec| counters.with_label_values(&["grants"]).get();
    assert_eq!(cache(&bench.metrics.cache_hits), 3);
    assert_eq!(cache(&bench.metrics.cache_misses), 5);
    assert_eq!(bench.metrics.cache_entries.with_label_values(&["grants"]).get(), 2);
}

#[tokio::test]
async fn a_stale_grant_serves_while_it_is_looked_up_but_not_after_a_failure() {
    let provider = Provider::start(|_, nth| match nth {
        0 => tenants(&["T1"]),
        1 => slow(SECOND / 10, answer(400, &[], "")),
        _ => tenants(&[]),
    })
    .await;
    let mut lookup = http_lookup(&provider);
    lookup.limits.stale_while_revalidate = 30 * SECOND;
    let bench = Bench::new(lookup);
    let acme = client("acme");
    bench.tenants.grants(&acme).await;
    bench.clock.advance(61 * SECOND);
    assert_eq!(codes(&bench.tenants.grants(&acme).await), ["T1"], "stale");
    until("the background lookup", || bench.lookups("unexpected_status") == 1).await;
    bench.clock.advance(SECOND);
    assert_eq!(bench.tenants.grants(&acme).await.as_str(), "denied", "the last try failed");
    bench.clock.advance(6 * SECOND);
    assert_eq!(bench.tenants.grants(&acme).await.as_str(), "denied");
    assert_eq!(provider.lookups_of("acme"), 4, "a denial is never served from stale");
}

#[tokio::test]
async fn an_unchanged_answer_keeps_the_set_and_makes_it_young() {
    let provider = Provider::start(|seen, nth| match seen.headers.get("if-none-match") {
        Some(etag) if etag == "\"v1\"" && nth == 1 => answer(304, &[], ""),
        Some(etag) if etag == "\"v1\"" => answer(200, &[], &tenants_body(&["T2"])),
        _ => answer(200, &[("etag", "\"v1\"")], &tenants_body(&["T1"])),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    let acme = client("acme");
    bench.tenants.grants(&acme).await;
    bench.clock.advance(61 * SECOND);
    let outcome = bench.tenants.grants(&acme).await;
    assert_eq!(codes(&outcome), ["T1"]);
    let cell = bench.tenants.cell(&acme);
    assert_eq!(cell.current().as_ref().unwrap().looked_up_at, bench.clock.monotonic());
    bench.clock.advance(61 * SECOND);
    assert_eq!(codes(&bench.tenants.grants(&acme).await), ["T2"], "the validator was kept");
}

#[tokio::test]
async fn a_failed_lookup_leaves_the_last_good_set_to_the_checks() {
    let provider = Provider::start(|_, nth| match nth {
        0 => tenants(&["T1"]),
        _ => answer(400, &[], ""),
    })
    .await;
    let bench = Bench::new(http_lookup(&provider));
    let acme = client("acme");
    bench.tenants.grants(&acme).await;
    bench.clock.advance(61 * SECOND);
    assert_eq!(bench.tenants.grants(&acme).await.as_str(), "unexpected_status");
    let cell = bench.tenants.cell(&acme);
    let set = cell.current();
    let set = set.as_ref().unwrap();
    assert_eq!((set.codes.len(), set.looked_up_at), (1, Moment::of(START).monotonic));
}

#[tokio::test]
async fn sets_hold_the_digests_that_tokens_hold() {
    let provider = Provider::start(|_, _| tenants(&["T1"])).await;
    let bench = Bench::new(http_lookup(&provider));
    let LookupOutcome::Granted(set) = bench.tenants.grants(&client("acme")).await else { panic!() };
    let holder = Holder { issuer: "https://i", client: "acme" };
    let digester = TenantDigester::new(&[1; 32], None);
    assert!(set.digests.contains(&digester.current(holder, "T1")));
    assert!(!set.digests.contains(&digester.current(holder, "T2")));
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_puts_it_under_the_new_digest_key() {
    let provider =
        Provider::with_tokens(|_, _| answer(200, &[("etag", "v")], &tenants_body(&["T1"]))).await;
    let config = Lookup::Http(Box::new(oauth2_lookup(&provider)));
    let freshness = Freshness::Lookup { refresh: REFRESH, max_age: REFRESH };
    let bench = Bench::with(&config, freshness);
    let acme = client("acme");
    bench.tenants.grants(&acme).await;

    let same = bench.tenants.directory_for(&config.clone()).unwrap();
    bench.tenants.reconfigure(settings(same, freshness, 2));
    bench.tenants.grants(&acme).await;
    assert_eq!((provider.lookups_of("acme"), provider.count(TOKEN_PATH)), (1, 1));
    let digest = TenantDigester::new(&[2; 32], None)
        .current(Holder { issuer: "https://i", client: "acme" }, "T1");
    assert!(bench.tenants.cell(&acme).current().as_ref().unwrap().digests.contains(&digest));

    // Another lookup config: its answers are not in the cache, and no validator is sent.
    let other = HttpLookup { max_body: 4096, ..oauth2_lookup(&provider) };
    let other = bench.tenants.directory_for(&Lookup::Http(Box::new(other))).unwrap();
    bench.tenants.reconfigure(settings(other, freshness, 2));
    assert!(bench.tenants.cell(&acme).current().is_some(), "checks go on");
    bench.tenants.grants(&acme).await;
    let lookups = provider.seen(&path_of("acme"));
    assert_eq!(lookups.len(), 2);
    assert_eq!(lookups[1].headers.get("if-none-match"), None);
}

#[tokio::test]
async fn a_static_directory_grants_nothing() {
    let freshness = Freshness::Lookup { refresh: REFRESH, max_age: REFRESH };
    let bench = Bench::with(&Lookup::Static, freshness);
    assert_eq!(bench.tenants.grants(&client("acme")).await.as_str(), "denied");
    let cell = bench.tenants.cell(&client("acme"));
    assert!(cell.current().as_ref().unwrap().digests.is_empty());
}
