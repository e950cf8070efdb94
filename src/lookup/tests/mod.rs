//! The room as a whole against a provider that misbehaves.

mod dialects;
mod grpc;

mod token;

use std::time::Duration;

use crate::config::{BodyTemplate, Lookup};

use super::testing::*;
use super::{Directory, Question, Step};

const SECOND: Duration = Duration::from_secs(1);

/// One way to answer, what becomes of it, and how many requests that takes.
struct Row {
    name: &'static str,
    acts: fn(usize) -> Acts,
    outcome: &'static str,
    requests: usize,
}

fn row(name: &'static str, outcome: &'static str, requests: usize, acts: fn(usize) -> Acts) -> Row {
    Row { name, acts, outcome, requests }
}

fn table() -> Vec<Row> {
    vec![
        row("granted", "granted", 1, |_| tenants(&["T1", "T2"])),
        row("an empty array", "denied", 1, |_| tenants(&[])),
        row("404", "unexpected_status", 1, |_| answer(404, &[], "no such client")),
        row("500 for good", "server_error", 3, |_| answer(500, &[], "")),
        row("503 once", "granted", 2, |nth| match nth {
            0 => answer(503, &[], ""),
            _ => tenants(&["T1"]),
        }),
        row("429, then fine", "granted", 2, |nth| match nth {
            0 => answer(429, &[("retry-after", "0")], ""),
            _ => tenants(&["T1"]),
        }),
        row("429 for longer than the budget", "too_many_requests", 1, |_| {
            answer(429, &[("retry-after", "30")], "")
        }),
        row("204", "unexpected_status", 1, |_| answer(204, &[], "")),
        row("201 with codes", "unexpected_status", 1, |_| answer(201, &[], &tenants_body(&["T1"]))),
        row("400", "unexpected_status", 1, |_| answer(400, &[], "")),
        row("a redirect", "redirect", 1, |_| answer(302, &[("location", "/elsewhere")], "")),
        row("304 that nobody asked for", "redirect", 1, |_| answer(304, &[], "")),
        row("401 for good", "unauthorized", 1, |_| answer(401, &[], "")),
        row("403 for good", "unauthorized", 1, |_| answer(403, &[], "")),
        row("garbage", "not_json", 1, |_| answer(200, &[], "<html>")),
        row("an empty body", "not_json", 1, |_| answer(200, &[], "")),
        row("the array is missing", "wrong_shape", 1, |_| answer(200, &[], "{}")),
        row("null for the array", "wrong_shape", 1, |_| answer(200, &[], r#"{"tenants": null}"#)),
        row("an object for the array", "wrong_shape", 1, |_| {
            answer(200, &[], r#"{"tenants": {}}"#)
        }),
        row("items without a code", "wrong_shape", 1, |_| {
            answer(200, &[], r#"{"tenants": [{"id": "T1"}]}"#)
        }),
        row("codes that are whole numbers", "granted", 1, |_| {
            answer(200, &[], r#"{"tenants": [{"code": 1}, {"code": 18446744073709551615}]}"#)
        }),
        row("a code that is another number", "wrong_shape", 1, |_| {
            answer(200, &[], r#"{"tenants": [{"code": "T1"}, {"code": 2.5}]}"#)
        }),
        row("a code of more digits than are kept", "wrong_shape", 1, |_| {
            answer(200, &[], r#"{"tenants": [{"code": 18446744073709551616}]}"#)
        }),
        row("a byte order mark", "granted", 1, |_| {
            answer(200, &[], &format!("\u{feff}{}", tenants_body(&["T1"])))
        }),
        row("only codes that are none", "wrong_shape", 1, |_| tenants(&["a/b", "..", ""])),
        row("some codes that are none", "granted", 1, |_| tenants(&["a/b", "T1"])),
        row("a large body", "too_large", 1, |_| tenants(&["T1"; 10_000])),
        row("a large body without its length", "too_large", 1, |_| {
            raw(&format!("HTTP/1.1 200 x\r\nconnection: close\r\n\r\n{}", " ".repeat(70_000)))
        }),
        row("too slow", "timeout", 1, |_| slow(30 * SECOND, tenants(&["T1"]))),
        row("a body that never ends", "timeout", 1, |_| {
            let head = "HTTP/1.1 200 x\r\ncontent-length: 20\r\n\r\n{";
            [raw(head), vec![Act::Wait(30 * SECOND)]].concat()
        }),
        row("closed at once", "broken", 3, |_| Vec::new()),
        row("a truncated body", "broken", 3, |_| {
            raw("HTTP/1.1 200 x\r\ncontent-length: 90\r\n\r\n{\"tenants\":[]}")
        }),
        row("no HTTP", "broken", 3, |_| raw("SSH-2.0-x\r\n\r\n")),
    ]
}

#[tokio::test]
async fn every_fault_has_its_outcome() {
    for row in table() {
        let acts = row.acts;
        let provider = Provider::start(move |_, nth| acts(nth)).await;
        let mut lookup = http_lookup(&provider);
        lookup.limits.timeout = Duration::from_millis(900);
        let bench = LookupBench::new(lookup);
        let outcome = bench.ask("acme").await;
        assert_eq!(outcome.as_str(), row.outcome, "{}: {outcome:?}", row.name);
        assert_eq!(provider.lookups_of("acme"), row.requests, "{}", row.name);
        assert_eq!(provider.count("/elsewhere"), 0, "{}", row.name);
    }
}

#[tokio::test]
async fn nobody_listens() {
    let provider = Provider::start(|_, _| tenants(&["T1"])).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lookup = http_lookup(&provider);
    lookup.url.0 = format!("http://{}/{{client_id}}?key=CANARY", listener.local_addr().unwrap());
    drop(listener);
    let bench = LookupBench::new(lookup);
    let outcome = bench.ask("acme").await;
    assert_eq!(outcome.as_str(), "connect");
    assert_eq!(bench.metrics.lookup_retries.get(), 2);
    assert!(!format!("{outcome:?}").contains("CANARY"), "{outcome:?}");
}

#[tokio::test]
async fn dropped_codes_are_counted_and_the_others_stand() {
    let provider = Provider::start(|_, _| tenants(&["a b", "T1", "../T2", "T1", "T3"])).await;
    let bench = LookupBench::new(http_lookup(&provider));
    assert_eq!(bench.ask("acme").await.codes(), ["T1", "T3"]);
    assert_eq!(bench.metrics.dropped_tenant_codes.get(), 2);
}

#[tokio::test]
async fn a_retry_after_within_the_budget_is_waited_for() {
    let provider = Provider::start(|_, nth| match nth {
        0 => answer(429, &[("retry-after", "1")], ""),
        _ => tenants(&["T1"]),
    })
    .await;
    let bench = LookupBench::new(http_lookup(&provider));
    let started = tokio::time::Instant::now();
    assert_eq!(bench.ask("acme").await.codes(), ["T1"]);
    assert!(started.elapsed() >= SECOND, "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_provider_s_retry_after_is_passed_on() {
    let provider = Provider::start(|_, _| answer(503, &[("retry-after", "30")], "")).await;
    let bench = LookupBench::new(http_lookup(&provider));
    let reason = bench.ask("acme").await.0.err().unwrap();
    assert_eq!(reason.retry_after(), Some(30 * SECOND));
}

#[tokio::test]
async fn an_outage_is_not_amplified_by_retries() {
    let provider = Provider::start(|_, _| answer(500, &[], "")).await;
    let bench = LookupBench::new(http_lookup(&provider));
    for n in 0..100 {
        bench.ask(&format!("c{n}")).await;
    }
    let retries = bench.metrics.lookup_retries.get();
    // Without the budget: 200. It holds 5 a second for 10 s, and a fifth of the lookups.
    assert!((40..=80).contains(&retries), "{retries}");
}

#[tokio::test]
async fn waiting_for_a_place_counts_in_the_budget() {
    let provider = Provider::start(|_, _| slow(30 * SECOND, tenants(&["T1"]))).await;
    let mut lookup = http_lookup(&provider);
    lookup.limits.concurrency = 1;
    lookup.limits.timeout = Duration::from_millis(300);
    let bench = LookupBench::new(lookup);
    let started = tokio::time::Instant::now();
    let (first, second) = tokio::join!(bench.ask("a"), bench.ask("b"));
    // A caller that waited has nothing left of its budget, also where the place came free at the
    // last moment.
    assert!(started.elapsed() < 2 * Duration::from_millis(300));
    assert_eq!(first.as_str(), "timeout");
    assert!(["busy", "timeout"].contains(&second.as_str()), "{second:?}");
}

#[tokio::test]
async fn the_request_is_what_the_config_says() {
    let provider = Provider::start(|_, _| tenants(&["T1"])).await;
    let mut lookup = http_lookup(&provider);
    lookup.headers = vec![header("x-region", "eu")];
    let bench = LookupBench::new(lookup.clone());
    bench.ask("a@b:c+d").await;
    let body = r#"{"client_id":"{client_id}"}"#.to_owned();
    lookup.body = Some(BodyTemplate { first: body.clone(), further: body });
    LookupBench::new(lookup).ask("a@b:c+d").await;

    let seen = provider.seen("/a%40b%3Ac%2Bd/authorizedTenants");
    assert_eq!((seen[0].method.as_str(), seen[0].body.as_str()), ("GET", ""));
    assert_eq!(seen[0].headers["x-region"], "eu");
    assert_eq!(seen[0].headers["accept"], "application/json");
    assert!(seen[0].headers["user-agent"].starts_with("tenantgate/"));
    assert!(seen[0].headers["accept-encoding"].contains("gzip"));
    assert_eq!(seen[0].headers.get("authorization"), None);
    assert_eq!(seen[1].method, "POST");
    assert_eq!(seen[1].body, r#"{"client_id":"a@b:c+d"}"#);
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_is_a_problem_of_the_config() {
    let provider = Provider::start(|_, _| Vec::new()).await;
    let mut lookup = http_lookup(&provider);
    lookup.headers = vec![header("X-Key", "two\nlines")];
    let bench = LookupBench::with(&Lookup::Static);
    let config = Lookup::Http(Box::new(lookup));
    let directory = Directory::new(&config, bench.instruments());
    let problem = directory.err().unwrap().to_string();
    assert!(problem.starts_with("tenants.lookup.headers.X-Key: "), "{problem}");
    assert!(!problem.contains("two"), "{problem}");
}

#[tokio::test]
async fn steps_are_shown_without_secrets() {
    let provider = Provider::with_tokens(|_, nth| match nth {
        0 => answer(401, &[], ""),
        1 => answer(500, &[], ""),
        _ => tenants(&["T1"]),
    })
    .await;
    let mut lookup = oauth2_lookup(&provider);
    lookup.url.0.push_str("?key=CANARY");
    let LookupBench { directory, .. } = LookupBench::new(lookup);
    let steps = std::sync::Mutex::new(Vec::new());
    let observe = |step: Step<'_>| {
        steps.lock().unwrap().push(format!("{step:?}"));
    };
    // The provider counts by target, so all tries share one counter.
    assert!(directory.look_up(Question::of(&client("acme")), &observe).await.is_ok());
    let steps = steps.into_inner().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step.split([' ', '{']).next().unwrap()).collect();
    let expected = [
        "Token",
        "Asking",
        "Answered",
        "TokenReplaced",
        "Asking",
        "Answered",
        "Waiting",
        "Token",
        "Asking",
        "Read",
        "Answered",
    ];
    assert_eq!(names, expected);
    assert!(!steps.concat().contains("CANARY") && !steps.concat().contains("token-"));
}
