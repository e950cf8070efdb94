//! APIs that answer otherwise than with one array of texts, by the config that wires each.

use super::*;
use crate::lookup::Grants;

/// A config, the answers to its requests in turn, and what becomes of them: codes, or a reason.
struct Dialect {
    keys: &'static str,
    answers: &'static [&'static str],
    outcome: &'static str,
}

const fn dialect(
    keys: &'static str,
    answers: &'static [&'static str],
    outcome: &'static str,
) -> Dialect {
    Dialect { keys, answers, outcome }
}

/// Every target counts for itself, so that answers in turn need a counter of their own.
async fn in_turn(answers: Vec<Acts>) -> Provider {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Provider::start(move |_, _| {
        let nth = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        answers.get(nth).cloned().unwrap_or_else(|| answer(500, &[], ""))
    })
    .await
}

async fn outcome(keys: &str, answers: Vec<Acts>) -> (String, Vec<Seen>, LookupBench) {
    let provider = in_turn(answers).await;
    let bench = LookupBench::with(&configured(keys, &provider.url));
    let asked = bench.ask("acme").await;
    let outcome = match asked.as_str() {
        "granted" => asked.codes().join(","),
        other => other.to_owned(),
    };
    (outcome, provider.all(), bench)
}

#[tokio::test]
async fn codes_are_found_whatever_they_look_like() {
    const URL: &str = "url: 'URL/{client_id}'";
    for (further, body, expected) in [
        ("select: '$[*]'", "[1, \"T2\", 3]", "1,T2,3"),
        ("select: '$[*]'", "[-1]", "wrong_shape"),
        ("select: '$[*]'", "[true]", "wrong_shape"),
        ("select: $.t, of: keys", r#"{"t": {"A": {}, "B": true, "C": 0, "D": ""}}"#, "A,B,C,D"),
        ("select: $.t, of: keys", r#"{"t": {"A": false, "B": null, "C": true}}"#, "C"),
        ("select: $.t, of: keys", r#"{"t": {"A": false}}"#, "denied"),
        ("select: $.t, of: keys", r#"{"t": {}}"#, "denied"),
        ("select: $.t, of: keys", r#"{"t": ["A"]}"#, "wrong_shape"),
        ("select: $.t, of: keys", "{}", "wrong_shape"),
        ("select: '$.g[*].t', of: keys", r#"{"g": [{"t": {"A": 1}}, {"t": {"B": 1}}]}"#, "A,B"),
        ("select: '$.g[*].t', of: keys", r#"{"g": []}"#, "denied"),
        ("select: $.t, of: text", r#"{"t": "A,B, C  D\tE\nF,,"}"#, "A,B,C,D,E,F"),
        ("select: $.t, of: text", r#"{"t": 17}"#, "17"),
        ("select: $.t, of: text", r#"{"t": "  "}"#, "denied"),
        ("select: $.t, of: text", r#"{"t": null}"#, "wrong_shape"),
        ("select: $.t, of: text", "{}", "wrong_shape"),
        (
            "select: '$[*]', code_pattern: '^urn:x:([^:]+)$'",
            r#"["urn:x:A", "urn:y:B", "urn:x:A:b"]"#,
            "A",
        ),
        ("select: '$[*]', code_pattern: '/tenants/([^/]+)'", r#"["https://a/tenants/A/x"]"#, "A"),
        ("select: '$[*]', code_pattern: '^t-(.*)$'", r#"["t-a/b", "t-A", "t-"]"#, "A"),
        ("select: '$[*]', code_pattern: '^x(.)$'", r#"["A"]"#, "wrong_shape"),
        ("select: '$[*]', code_pattern: '^x(.)$'", "[]", "denied"),
        ("select: $.t, of: keys, code_pattern: '^x(.)$'", r#"{"t": {"xA": 1, "B": 1}}"#, "A"),
        ("select: $.t, of: text, code_pattern: '^x(.)$'", r#"{"t": "xA B"}"#, "A"),
        ("select: '$[*].id', format: json_lines", "{\"id\": \"A\"}\n{\"id\": \"B\"}\n", "A,B"),
        ("select: '$[*].id', format: json_lines", "", "denied"),
        ("select: '$[*].id', format: json_lines", "{\"id\": \"A\"}\n{\"id", "not_json"),
    ] {
        let keys = format!("{{ {URL}, {further} }}");
        let (found, ..) = outcome(&keys, vec![answer(200, &[], body)]).await;
        assert_eq!(found, expected, "{further} on {body}");
    }
}

#[tokio::test]
async fn what_the_pattern_does_not_match_is_counted() {
    let keys = "{ url: 'URL/{client_id}', select: '$[*]', code_pattern: '^x(.*)$' }";
    let (found, _, bench) =
        outcome(keys, vec![answer(200, &[], r#"["xA", "yB", "xa/b", "y"]"#)]).await;
    assert_eq!((found.as_str(), bench.metrics.dropped_tenant_codes.get()), ("A", 3));
}

#[tokio::test]
async fn an_answer_is_complete_as_the_config_says() {
    const URL: &str = "url: 'URL/{client_id}', select: '$.t[*]'";
    for (complete_if, rest, expected) in [
        ("{ absent: $.next }", "", "A"),
        ("{ absent: $.next }", r#", "next": null"#, "A"),
        ("{ absent: $.next }", r#", "next": """#, "A"),
        ("{ absent: $.next }", r#", "next": []"#, "A"),
        ("{ absent: $.next }", r#", "next": "/2""#, "incomplete"),
        ("{ absent: $.next }", r#", "next": false"#, "incomplete"),
        ("{ path: $.p.total, equals: 1 }", r#", "p": {"total": 1}"#, "A"),
        ("{ path: $.p.total, equals: 1 }", r#", "p": {"total": 1.0}"#, "A"),
        ("{ path: $.p.total, equals: 1 }", r#", "p": {"total": "1"}"#, "incomplete"),
        ("{ path: $.p.total, equals: 1 }", r#", "p": {"total": 2}"#, "incomplete"),
        ("{ path: $.p.total, equals: 1 }", "", "incomplete"),
        ("{ path: '$.p[*]', equals: 1 }", r#", "p": [1, 1]"#, "incomplete"),
        ("{ path: $.more, equals: false }", r#", "more": false"#, "A"),
        ("{ path: $.more, equals: false }", r#", "more": true"#, "incomplete"),
        ("{ path: $.state, equals: full }", r#", "state": "full""#, "A"),
    ] {
        let keys = format!("{{ {URL}, complete_if: {complete_if} }}");
        let body = format!(r#"{{"t": ["A"]{rest}}}"#);
        let (found, ..) = outcome(&keys, vec![answer(200, &[], &body)]).await;
        assert_eq!(found, expected, "{complete_if} on {body}");
    }
}

const NEXT: &str = "{ url: 'URL/{client_id}?size=2', select: '$.t[*]', pages: { next: $.next } }";
const LINKS: &str =
    "{ url: 'URL/{client_id}', select: '$[*]', pages: { link_header: true, max: 3 } }";
const CURSOR: &str = "{ url: 'URL/{client_id}?size=2', select: '$.t[*]',
    pages: { cursor: { path: $.c, parameter: after } } }";
const COUNT: &str = "{ url: 'URL/{client_id}', select: '$.t[*]',
    pages: { count: { parameter: page, from: 1, path: $.pages } } }";
const GRAPHQL: &str = "{ url: 'URL/graphql', method: POST, select: '$.data.app.tenants[*].code',
    body: '{\"query\": \"query($app: ID!, $after: String) { app(id: $app) { tenants { code } } }\",
      \"variables\": {\"app\": \"{client_id}\", \"after\": \"{cursor}\"}}',
    pages: { cursor: { path: $.data.end } } }";
const AUTHZEN: &str =
    "{ authzen: { url: URL/pdp/, subject_type: client, action: read, resource_type: tenant } }";

#[tokio::test]
async fn pages_are_read_to_the_end_or_not_at_all() {
    for Dialect { keys, answers, outcome: expected } in [
        dialect(NEXT, &[r#"{"t": ["A"]}"#], "A"),
        dialect(
            NEXT,
            &[
                r#"{"t": ["A"], "next": "?page=2"}"#,
                r#"{"t": ["B", "A"], "next": "/x"}"#,
                r#"{"t": ["C"], "next": null}"#,
            ],
            "A,B,C",
        ),
        dialect(NEXT, &[r#"{"t": [], "next": "?page=2"}"#, r#"{"t": [], "next": ""}"#], "denied"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "?p=2"}"#, r#"{"next": null}"#], "wrong_shape"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "?p=2"}"#, r#"{"t": [{}]}"#], "wrong_shape"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "?p=2"}"#, "<html>"], "not_json"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "?p=2"}"#], "server_error"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "acme?size=2"}"#], "incomplete"),
        dialect(
            NEXT,
            &[r#"{"t": ["A"], "next": "?p=2"}"#, r#"{"t": ["A"], "next": "?p=2"}"#],
            "incomplete",
        ),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "http://127.0.0.1:9/x"}"#], "incomplete"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "//elsewhere/x"}"#], "incomplete"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "file:///x"}"#], "incomplete"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": "http://"}"#], "incomplete"),
        dialect(NEXT, &[r#"{"t": ["A"], "next": {"href": "/x"}}"#], "wrong_shape"),
        dialect(
            CURSOR,
            &[r#"{"t": ["A"], "c": "x&y=1"}"#, r#"{"t": ["B"], "c": 7}"#, r#"{"t": ["C"]}"#],
            "A,B,C",
        ),
        dialect(CURSOR, &[r#"{"t": ["A"], "c": "x"}"#, r#"{"t": ["B"], "c": "x"}"#], "incomplete"),
        dialect(CURSOR, &[r#"{"t": ["A"], "c": true}"#], "wrong_shape"),
        dialect(COUNT, &[r#"{"t": ["A"], "pages": 2}"#, r#"{"t": ["B"], "pages": 2}"#], "A,B"),
        dialect(
            COUNT,
            &[r#"{"t": ["A"], "pages": 2}"#, r#"{"t": ["B"], "pages": 3}"#],
            "incomplete",
        ),
        dialect(COUNT, &[r#"{"t": ["A"]}"#], "wrong_shape"),
        dialect(COUNT, &[r#"{"t": [], "pages": 0}"#], "denied"),
        dialect(
            GRAPHQL,
            &[
                r#"{"data": {"app": {"tenants": [{"code": "A"}]}, "end": "\"{client_id}"}}"#,
                r#"{"data": {"app": {"tenants": [{"code": "B"}]}}, "errors": []}"#,
            ],
            "A,B",
        ),
        dialect(
            GRAPHQL,
            &[r#"{"data": {"app": {"tenants": [{"code": "A"}]}}, "errors": [{"message": "x"}]}"#],
            "incomplete",
        ),
        dialect(GRAPHQL, &[r#"{"data": {"app": null}}"#], "wrong_shape"),
        dialect(AUTHZEN, &[r#"{"results": [{"type": "tenant", "id": "A"}]}"#], "A"),
        dialect(AUTHZEN, &[r#"{"results": []}"#], "denied"),
        dialect(AUTHZEN, &["{}"], "wrong_shape"),
        dialect(
            AUTHZEN,
            &[
                concat!(
                    r#"{"page": {"next_token": "a=", "count": 1, "total": 2}, "#,
                    r#""results": [{"type": "tenant", "id": "A"}]}"#,
                ),
                r#"{"page": {"next_token": ""}, "results": [{"type": "tenant", "id": "B"}]}"#,
            ],
            "A,B",
        ),
        dialect(
            AUTHZEN,
            &[r#"{"page": {"count": 1, "total": 2}, "results": [{"type": "tenant", "id": "A"}]}"#],
            "incomplete",
        ),
        dialect(AUTHZEN, &[r#"{"results": [{"type": "user", "id": "A"}]}"#], "incomplete"),
        dialect(AUTHZEN, &[r#"{"results": [{"id": "A"}]}"#], "incomplete"),
    ] {
        let acts = answers.iter().map(|body| answer(200, &[], body)).collect();
        let (found, seen, bench) = outcome(keys, acts).await;
        assert_eq!(found, expected, "{keys} on {answers:?}");
        let retries = bench.metrics.lookup_retries.get();
        assert!(retries > 0 || seen.len() == answers.len(), "{keys} on {answers:?}: {seen:?}");
    }
}

#[tokio::test]
async fn links_in_the_header_are_followed() {
    let page = |codes: &str, link: &str| answer(200, &[("link", link)], codes);
    for (answers, expected) in [
        (vec![page(r#"["A"]"#, "</b>; rel=next"), page(r#"["B"]"#, "</a>; rel=prev")], "A,B"),
        (vec![page(r#"["A"]"#, "<//elsewhere/>; rel=next")], "incomplete"),
        (vec![page(r#"["A"]"#, "</b; rel=next")], "incomplete"),
        (
            ["</2>; rel=next", "</3>; rel=next", "</4>; rel=next"]
                .map(|link| page("[1]", link))
                .to_vec(),
            "incomplete",
        ),
    ] {
        let count = answers.len();
        let (found, seen, _) = outcome(LINKS, answers).await;
        assert_eq!((found.as_str(), seen.len()), (expected, count));
    }
}

#[tokio::test]
async fn each_page_is_asked_for_as_the_first_one_was() {
    let targets =
        |seen: &[Seen]| -> Vec<String> { seen.iter().map(|seen| seen.target.clone()).collect() };
    let acts = |bodies: &[&str]| bodies.iter().map(|body| answer(200, &[], body)).collect();
    let (_, seen, _) =
        outcome(CURSOR, acts(&[r#"{"t": [], "c": "x&y= 1"}"#, r#"{"t": ["B"]}"#])).await;
    assert_eq!(targets(&seen), ["/acme?size=2", "/acme?size=2&after=x%26y%3D+1"]);
    let (_, seen, _) =
        outcome(COUNT, acts(&[r#"{"t": [], "pages": 2}"#, r#"{"t": ["B"], "pages": 2}"#])).await;
    assert_eq!(targets(&seen), ["/acme?page=1", "/acme?page=2"]);

    let more = r#"{"data": {"app": {"tenants": []}, "end": "\"\\{client_id}"}}"#;
    let (_, seen, _) =
        outcome(GRAPHQL, acts(&[more, r#"{"data": {"app": {"tenants": []}}}"#])).await;
    let sent: Vec<serde_json::Value> =
        seen.iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    assert_eq!(sent[0]["variables"], serde_json::json!({"app": "acme", "after": ""}));
    assert_eq!(
        sent[1]["variables"],
        serde_json::json!({"app": "acme", "after": "\"\\{client_id}"})
    );
    assert_eq!(seen[0].headers["content-type"], "application/json");

    let more = r#"{"results": [], "page": {"next_token": "x"}}"#;
    let (_, seen, _) = outcome(AUTHZEN, acts(&[more, r#"{"results": []}"#])).await;
    assert_eq!(targets(&seen), ["/pdp/access/v1/search/resource"; 2]);
    let mut expected = serde_json::json!({
        "subject": {"type": "client", "id": "acme"},
        "action": {"name": "read"},
        "resource": {"type": "tenant"},
    });
    let sent: Vec<serde_json::Value> =
        seen.iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    assert_eq!(sent[0], expected);
    expected["page"] = serde_json::json!({"token": "x"});
    assert_eq!(sent[1], expected);
}

#[tokio::test]
async fn a_header_may_say_whose_grants_are_asked_for() {
    let keys = "{ url: URL/grants, select: '$[*]',
        headers: [{ name: x-app, value: 'app={client_id}' }, { name: x-json, value: '{\"a\":1}' }] \
        }";
    let (found, seen, _) = outcome(keys, vec![answer(200, &[], r#"["A"]"#)]).await;
    assert_eq!(found, "A");
    assert_eq!(seen[0].target, "/grants");
    assert_eq!(
        (&*seen[0].headers["x-app"], &*seen[0].headers["x-json"]),
        ("app=acme", r#"{"a":1}"#)
    );
}

#[tokio::test]
async fn pages_share_one_bound_and_one_time() {
    let keys = "{ url: 'URL/{client_id}', select: '$.t[*]', pages: { next: $.next },
        max_body_bytes: 100, timeout: 400ms }";
    let page = |next: &str, pad: usize| {
        answer(
            200,
            &[],
            &format!(r#"{{"t": ["A"], "next": "{next}", "x": "{}"}}"#, "x".repeat(pad)),
        )
    };
    let (found, ..) = outcome(keys, vec![page("?2", 10), page("", 10)]).await;
    assert_eq!(found, "A");
    let (found, ..) = outcome(keys, vec![page("?2", 40), page("", 40)]).await;
    assert_eq!(found, "too_large");
    let late = slow(Duration::from_millis(300), page("?2", 1));
    let later = slow(Duration::from_millis(300), page("", 1));
    let (found, ..) = outcome(keys, vec![late, later]).await;
    assert_eq!(found, "timeout");
}

#[tokio::test]
async fn a_later_page_that_is_missing_is_not_the_answer_no_grants() {
    let keys = "{ url: 'URL/{client_id}', select: '$.t[*]', pages: { next: $.next },
        no_grants_status: [404] }";
    let more = answer(200, &[], r#"{"t": ["A"], "next": "?2"}"#);
    let (found, ..) = outcome(keys, vec![more, answer(404, &[], "")]).await;
    assert_eq!(found, "unexpected_status");
    let (found, ..) = outcome(keys, vec![answer(404, &[], "")]).await;
    assert_eq!(found, "denied");
}

/// The validator of one page says nothing of the others.
#[tokio::test]
async fn only_an_answer_of_one_page_has_a_validator() {
    let etag = [("etag", "\"v1\"")];
    let kept = async |keys: &str, answers: Vec<Acts>| {
        let provider = in_turn(answers).await;
        let bench = LookupBench::with(&configured(keys, &provider.url));
        match bench.ask("acme").await.0.ok().unwrap().grants {
            Grants::Listed { etag, .. } => etag.is_some(),
            Grants::Unchanged { .. } => panic!("nothing was known"),
        }
    };
    let (one, more) = (r#"{"t": ["A"]}"#, r#"{"t": ["A"], "next": "?2"}"#);
    assert!(kept(NEXT, vec![answer(200, &etag, one)]).await);
    assert!(!kept(NEXT, vec![answer(200, &etag, more), answer(200, &etag, one)]).await);
    // The body stays the same while the link beside it changes.
    assert!(!kept(LINKS, vec![answer(200, &etag, r#"["A"]"#)]).await);
}

#[tokio::test]
async fn packed_answers_are_unpacked_within_the_bound() {
    use base64::Engine as _;
    const SMALL: [(&str, &str); 3] = [
        ("gzip", "H4sIAAAAAAAAA6tWKknNS8wrKVayiq5WSs5PSVWyUgoxVKqNrQUAtg4s6xsAAAA="),
        ("br", "Cw2AeyJ0ZW5hbnRzIjpbeyJjb2RlIjoiVDEifV19Aw=="),
        ("zstd", "KLUv/QRY2QAAeyJ0ZW5hbnRzIjpbeyJjb2RlIjoiVDEifV19XTnTRQ=="),
    ];
    /// An empty list and 200,000 blanks.
    const BOMBS: [(&str, &str); 2] = [
        ("br", "W00Ng995YNts8hriofntIat1uvb6tEjYHJ0E2SoLt1LkwUAg+QQD8R4kAw=="),
        ("zstd", "KLUv/QRYtAAAcHsidGVuYW50cyI6W10gAQDv/zlQAlUAABAgfQEASQ05EALtDyxW"),
    ];
    let packed = |encoding: &str, base64: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
        let length = bytes.len();
        let head = format!(
            "HTTP/1.1 200 x\r\ncontent-encoding: {encoding}\r\ncontent-length: \
             {length}\r\nconnection: close\r\n\r\n"
        );
        vec![Act::Send(head.into_bytes()), Act::Send(bytes)]
    };
    let ask = async |acts: Acts| {
        let provider = in_turn(vec![acts]).await;
        let bench = LookupBench::new(http_lookup(&provider));
        bench.ask("acme").await.as_str()
    };
    for (encoding, base64) in SMALL {
        assert_eq!(ask(packed(encoding, base64)).await, "granted", "{encoding}");
    }
    for (encoding, base64) in BOMBS {
        assert_eq!(ask(packed(encoding, base64)).await, "too_large", "{encoding}");
    }
    assert_eq!(ask(packed("gzip", SMALL[1].1)).await, "not_unpacked");
}
