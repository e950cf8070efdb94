//! What the fuzz targets do with their bytes. The replay test runs the same functions over the
//! kept corpora. Each checks more than that nothing panics.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use prost::Message as _;
use regex::Regex;
use serde_json::Value;
use serde_json_path::JsonPath as JsonQuery;
use tenantgate::authz::path::CheckedPath;
use tenantgate::authz::route::{Found, Router};
use tenantgate::authz::trust::KeySet;
use tenantgate::authz::{Api, FactsCache, ProbeWatch, Route};
use tenantgate::config::{AnswerFormat, AnswerReading, CodePattern, CodesOf, CompleteIf, JsonPath};
use tenantgate::domain::{Algorithm, ManualClock, TenantCode, is_tenant_code};
use tenantgate::gate::Gate;
use tenantgate::keys::{WantedKeys, parse_jwks};
use tenantgate::lookup::{Listed, Selector};
use tenantgate::serve::check;
use tenantgate::telemetry::Metrics;
use tenantgate::token::{TokenForm, presented};

use super::world::{AUDIENCE, RouteLine, Sent, World, api, bearer};

type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 7] = [
    ("path", path),
    ("authorization", authorization),
    ("jwt", jwt),
    ("form", form),
    ("jwks", jwks),
    ("lookup_answer", lookup_answer),
    ("check_request", check_request),
];

fn routes() -> Vec<RouteLine> {
    let open = RouteLine { public: true, scopes: vec![], ..RouteLine::new("/docs/{page}") };
    let percent = RouteLine {
        allow_encoded_percent: true,
        ignore_case: true,
        ..RouteLine::new("/api/{tenant}/Raw/**")
    };
    let shadowed = RouteLine { scopes: vec!["admin"], ..RouteLine::new("/api/{tenant}/admin/{x}") };
    vec![RouteLine::new("/api/{tenant}/**"), percent, shadowed, open]
}

fn world() -> World {
    World::new(vec![fuzzed_api()])
}

fn fuzzed_api() -> Api {
    api("oda", &routes()).expect("routes that do not contradict each other")
}

thread_local! {
    static ROUTER: Router<Route> = fuzzed_api().router;
    static WORLD: World = world();
    static SERVICE: (Gate, String) = check_service();
}

/// A path that names a tenant still names it to an upstream that normalises all it can.
pub fn path(target: &[u8]) {
    let Ok(checked) = CheckedPath::parse(target) else { return };
    assert_eq!(target.first(), Some(&b'/'));
    ROUTER.with(|router| {
        let Found::Route(matched) = router.find("GET", checked) else { return };
        let Some(tenant) = matched.tenant else { return };
        assert!(is_tenant_code(tenant));
        let seen = as_lenient_upstream(target);
        assert_eq!(seen.get(1).map(Vec::as_slice), Some(tenant.as_bytes()));
    });
}

/// The segments after decoding twice, with backslashes as slashes, without parameters, empty and
/// dot segments.
fn as_lenient_upstream(target: &[u8]) -> Vec<Vec<u8>> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let decoded = decode(&decode(path));
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            name => kept.push(name.to_vec()),
        }
    }
    kept
}

fn decode(text: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(text).collect()
}

/// `$` in the input stands for a good token, so that the bytes around it are what is tried.
pub fn authorization(value: &[u8]) {
    WORLD.with(|world| {
        let token = world.token();
        let parts: Vec<&[u8]> = value.split(|byte| *byte == b'$').collect();
        let sent = parts.join(token.as_bytes());
        let headers = Sent(vec![("authorization", sent.clone())]);
        if world.decide("GET", b"/api/T1/o", &headers).0.is_none() {
            let scheme = sent.get(..7).map(<[u8]>::to_ascii_lowercase);
            assert_eq!(scheme.as_deref(), Some(&b"bearer "[..]));
            assert_eq!(sent[7..].trim_ascii(), token.as_bytes());
        }
    });
}

/// With a NUL: what precedes it becomes the header, what follows the payload of a token that our
/// own issuer signs. Without: the token as it is.
pub fn jwt(data: &[u8]) {
    WORLD.with(|world| {
        let Ok(text) = str::from_utf8(data) else { return };
        let Some((header, payload)) = text.split_once('\0') else {
            // Space around a token is the header's, not the token's.
            assert!(text.trim_ascii() == world.token() || !passes(world, text, "T1"));
            return;
        };
        let token = world.own.sign_text(header, payload);
        if !passes(world, &token, "T1") {
            return;
        }
        let claims: Value = serde_json::from_str(payload).expect("claims that were accepted");
        let seconds = |claim: &str| claims[claim].as_f64().expect("a date that was accepted");
        let now = world.now.secs() as f64;
        assert!(now < seconds("exp") + 10.0 && seconds("iat") <= now + 10.0);
        assert!(seconds("exp") - seconds("iat") <= 3601.0);
        assert!(claims["sub"] == "acme" && claims["client_id"] == "acme");
        let named = |all: &Vec<Value>| all.iter().any(|audience| audience == AUDIENCE);
        assert!(claims["aud"].as_array().map_or(claims["aud"] == AUDIENCE, named));
        let digest = world.digest("https://issuer.test", "acme", "T1");
        assert!(claims["tenant_list"].to_string().contains(&digest));
        assert!(!passes(world, &token, "t1"));
    });
}

fn passes(world: &World, token: &str, tenant: &str) -> bool {
    world.decide("GET", format!("/api/{tenant}/o").as_bytes(), &bearer(token)).0.is_none()
}

/// Up to the first line end the value of an `Authorization` header, if not empty; then the body.
pub fn form(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (header, body) = data.split_at(end);
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let Ok(mut form) = TokenForm::parse(body, AUDIENCE) else { return };
    assert!(form.tenants.len() <= 1024);
    let headers: &[&[u8]] = if header.is_empty() { &[] } else { &[header] };
    let secret_in_form = form.client_secret.is_some();
    if let Ok(readings) = presented(headers, &mut form) {
        assert_ne!(secret_in_form, !header.is_empty(), "exactly one way to authenticate");
        let printed = format!("{readings:?} {form:?}");
        for secret in readings.iter().map(|reading| reading.secret.expose()) {
            // Shorter ones are found by chance, in names of fields.
            assert!(secret.len() <= 20 || !printed.contains(secret));
        }
    }
}

pub fn jwks(document: &[u8]) {
    let Ok((keys, skipped)) = parse_jwks(document, &WantedKeys::named(&Algorithm::ALL)) else {
        return;
    };
    assert!(keys.len() + skipped.len() <= 100);
    for key in &keys {
        assert!((1..=128).contains(&key.kid().chars().count()));
        assert!(!key.verify(b"message", "") && !key.verify(b"message", &"A".repeat(86)));
    }
    let kids: HashSet<String> = keys.iter().map(|key| key.kid().to_owned()).collect();
    let set = KeySet::new(keys, None);
    assert!(set.len() <= kids.len());
}

/// The body of an answer, read in every dialect.
pub fn lookup_answer(body: &[u8]) {
    for (query, array) in [
        ("$.tenants[*].code", Some("$.tenants")),
        ("$.tenants[?@.active == true].code", Some("$.tenants")),
        ("$[*]", Some("$")),
        ("$.tenant", None),
    ] {
        for of in [CodesOf::Values, CodesOf::Keys, CodesOf::Text] {
            for format in [AnswerFormat::Json, AnswerFormat::JsonLines] {
                for pattern in [None, Some("^t-(.*)$")] {
                    let parse = |text| JsonQuery::parse(text).expect("a good query");
                    let (text, array) = (query.to_owned(), array.map(parse));
                    let reading = AnswerReading {
                        format,
                        select: JsonPath { text, query: parse(query), array },
                        of,
                        code_pattern: pattern.map(|pattern| {
                            CodePattern(Regex::new(pattern).expect("a good pattern"))
                        }),
                        complete_if: Some(CompleteIf::Absent(parse("$.next"))),
                        refuse: vec![parse("$.errors")],
                        claims: BTreeMap::new(),
                        quota: None,
                    };
                    read_answer(body, &reading);
                }
            }
        }
    }
}

/// What was read are codes, each once; and "none" has an array, an object or a text to show for
/// it.
fn read_answer(body: &[u8], reading: &AnswerReading) {
    let (selector, mut found) = (Selector::new(reading), Listed::default());
    let Ok(body) = selector.parse(body) else { return };
    if selector.read(&body, &mut found).is_err() || selector.finish(&body, &mut found).is_err() {
        return;
    }
    let distinct: HashSet<&str> = found.codes.iter().map(TenantCode::expose).collect();
    assert_eq!(distinct.len(), found.codes.len());
    assert!(distinct.iter().all(|code| is_tenant_code(code)));
    let present = |text: &str| {
        let query = JsonQuery::parse(text).expect("a good query");
        query.query(&body).all().into_iter().any(|value| !value.is_null())
    };
    assert!(!present("$.next[?@ != '']") && !present("$.errors[*]"));
    if found.understood().is_ok() && found.codes.is_empty() {
        let array = reading.select.array.as_ref();
        let arrays = array.map(|array| array.query(&body).all()).unwrap_or_default();
        let empty = !arrays.is_empty() && arrays.into_iter().all(Value::is_array);
        let selected = reading.select.query.query(&body).all();
        assert!(empty || selected.into_iter().any(|value| value.is_string() || value.is_object()));
    }
}

/// A panic is answered too, and then found by these words.
const PANICKED: &str = "the request cannot be decided right now";

fn check_service() -> (Gate, String) {
    let world = world();
    let token = world.token();
    let service = Gate {
        timed: true,
        snapshot: Arc::new(ArcSwap::from_pointee(world.snapshot)),
        cache: Arc::new(FactsCache::new(1 << 20)),
        probes: ProbeWatch::default(),
        grants: world.cells,
        clock: Arc::new(ManualClock::at(world.now)),
        metrics: Arc::new(Metrics::new()),
        hints: Box::new(|_| ()),
        decision_ids: AtomicU64::new(0),
        ledger: Default::default(),
    };
    (service, token)
}

/// The message as Envoy sends it. The corpus holds some with the token that is always the same.
pub fn check_request(message: &[u8]) {
    SERVICE.with(|(service, token)| {
        let reply = check(service, message.to_vec());
        let reply = CheckResponse::decode(&reply[..]).expect("a CheckResponse");
        match reply.http_response.expect("an explicit answer") {
            HttpResponse::OkResponse(_) => assert_may_pass(message, token),
            HttpResponse::DeniedResponse(denied) => {
                let status = denied.status.expect("an explicit status").code;
                assert!([400, 401, 403, 503].contains(&status), "{status}");
                let body: Value = serde_json::from_str(&denied.body).expect("JSON");
                assert_ne!(body["error_description"], PANICKED);
            }
            other => panic!("neither allowed nor denied: {other:?}"),
        }
    });
}

/// What the generated types, which read the message in their own way, say about a request that
/// passed: it is public, or it shows the token and names its tenant.
fn assert_may_pass(message: &[u8], token: &str) {
    // They refuse text that is not UTF-8, wherever it stands.
    let Ok(request) = CheckRequest::decode(message) else { return };
    let http = request.attributes.and_then(|attributes| attributes.request?.http).expect("HTTP");
    let path = http.path.as_bytes();
    if path.starts_with(b"/docs/") {
        return;
    }
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    let shown = raw.map(|header| {
        if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
    });
    let shown = shown.chain(http.headers.values().map(|value| value.as_bytes()));
    let needle = token.as_bytes();
    let named = shown.into_iter().any(|value| value.windows(needle.len()).any(|w| w == needle));
    assert!(named, "allowed without the token");
    assert_eq!(as_lenient_upstream(path).get(1).map(Vec::as_slice), Some(&b"T1"[..]));
}
