use std::sync::Mutex;

use super::*;
use crate::authz::tests::{API_KEY, FOREIGN, NOW, OWN, Sent, World, api, bearer, book, client};
use crate::authz::{Api, Apis};
use crate::domain::{Client, ClientId, ManualClock, Meter, ScopeSet};

impl Gate {
    fn over(world: World, hints: Box<dyn Fn(Hint) + Send + Sync>) -> Self {
        Self {
            timed: true,
            snapshot: Arc::new(ArcSwap::from_pointee(world.snapshot)),
            cache: world.cache,
            probes: world.probes,
            grants: world.cells,
            clock: Arc::new(ManualClock::at(NOW)),
            metrics: Arc::new(Metrics::new()),
            hints,
            decision_ids: AtomicU64::new(0),
            ledger: Default::default(),
        }
    }

    /// The answer as text; only its parts are the contract.
    fn ask(&self, target: &str, headers: &Sent) -> String {
        let target = target.as_bytes();
        let input = CheckInput { profile: None, method: "GET", target, headers };
        self.answer(Some(&Request { input, id: b"", trace: None, metadata: true }), shown)
    }
}

fn gate() -> (Gate, String) {
    let world = World::typical();
    let token = world.token();
    (Gate::over(world, Box::new(|_| {})), token)
}

fn shown(answer: &Answer<'_>) -> String {
    match answer {
        Answer::Allow(allow) => {
            let set: Vec<_> =
                allow.set.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("allow, set {}, remove {}", set.join(" "), allow.remove.join(" "))
        }
        Answer::Deny(deny) => format!("deny {} {}", deny.status, deny.body),
    }
}

#[test]
fn an_answer_needs_no_server() {
    let (gate, token) = gate();
    assert_eq!(
        gate.ask("/api/T1/report", &bearer(&token)),
        "allow, set x-tenantgate-client-id=acme x-tenantgate-scope=reports.read other, \
         remove x-tenantgate-issuer x-tenantgate-var-page authorization"
    );
    assert_eq!(
        gate.ask("/api/T2/report", &bearer(&token)),
        concat!(
            r#"deny 403 {"error":"access_denied","#,
            r#""error_description":"the token does not give access to this resource"}"#,
        )
    );
}

fn world_with(change: impl FnOnce(&mut Api)) -> World {
    let mut world = World::typical();
    let mut api = api("oda");
    change(&mut api);
    world.snapshot.apis = Arc::new(Apis::new(vec![api]));
    world
}

fn of(world: World) -> Gate {
    Gate::over(world, Box::new(|_| {}))
}

fn removed(answer: &Answer<'_>) -> Vec<String> {
    match answer {
        Answer::Allow(allow) => allow.remove.iter().map(|name| (*name).to_owned()).collect(),
        Answer::Deny(_) => panic!("denied"),
    }
}

impl Gate {
    fn removed(&self, target: &str, headers: &Sent) -> Vec<String> {
        let target = target.as_bytes();
        let input = CheckInput { profile: None, method: "GET", target, headers };
        self.answer(Some(&Request { input, id: b"", trace: None, metadata: true }), removed)
    }
}

const OURS: [&str; 4] = [
    "x-tenantgate-client-id",
    "x-tenantgate-scope",
    "x-tenantgate-issuer",
    "x-tenantgate-var-page",
];

fn with(further: &[&'static str]) -> Vec<&'static str> {
    [&OURS, further].concat()
}

#[test]
fn credentials_stay_here_also_on_public_routes() {
    let nobody = Sent(Vec::new());
    let ours = &OURS[..3];
    let on_docs = |change: fn(&mut Api)| of(world_with(change)).removed("/docs/start", &nobody);
    assert_eq!(on_docs(|_| {}), [ours, &["authorization"]].concat());
    assert_eq!(on_docs(|api| api.forward_authorization = true), ours);
    let key: fn(&mut Api) = |api| api.api_key_header = Some("x-api-key".into());
    assert_eq!(on_docs(key), [ours, &["authorization", "x-api-key"]].concat());
    // A token may be the API's business; a key that mints tokens is not.
    let both: fn(&mut Api) = |api| {
        api.api_key_header = Some("x-api-key".into());
        api.forward_authorization = true;
    };
    assert_eq!(on_docs(both), [ours, &["x-api-key"]].concat());
    let world = world_with(both);
    world.grant(&["T1"], NOW);
    let key = Sent(vec![("x-api-key", API_KEY.into())]);
    let removed = of(world).removed("/api/T1/report", &key);
    assert_eq!(removed, ["x-tenantgate-issuer", "x-tenantgate-var-page", "x-api-key"]);
}

#[test]
fn what_shadow_mode_lets_pass_goes_on_as_it_came_but_for_our_names_and_secrets() {
    let shadow: fn(&mut Api) = |api| {
        api.shadow = true;
        api.api_key_header = Some("x-api-key".into());
    };
    let ask = |target: &str, headers: &Sent| of(world_with(shadow)).removed(target, headers);
    let key = |key: &str| Sent(vec![("x-api-key", key.into())]);
    assert_eq!(ask("/api/T1/report", &bearer("what the API behind knows")), OURS);
    assert_eq!(ask("/api/T1/report", &key("what the API behind knows")), OURS);
    // Never forwarded, not even where the path is refused before credentials are read.
    assert_eq!(ask("/api/T1/report", &key(API_KEY)), with(&["x-api-key"]));
    assert_eq!(ask("/api/../T1", &key(API_KEY)), with(&["x-api-key"]));
    // Allowed: as where the rules are enforced.
    let world = world_with(shadow);
    let token = bearer(&world.token());
    let removed = of(world).removed("/api/T1/report", &token);
    let expected = ["x-tenantgate-issuer", "x-tenantgate-var-page", "authorization", "x-api-key"];
    assert_eq!(removed, expected);
}

#[test]
fn two_issuers_clients_of_one_name_are_told_apart() {
    let world = World::typical();
    let mut claims = world.foreign_claims();
    claims["azp"] = serde_json::json!("acme");
    let own = bearer(&world.token());
    let foreign = bearer(&world.foreign.sign(&world.foreign.header(), &claims));
    let gate = of(world);
    let issuers = |headers: &Sent| {
        let target = b"/api/T1/report";
        let input = CheckInput { profile: None, method: "GET", target, headers };
        gate.answer(Some(&Request { input, id: b"", trace: None, metadata: true }), |answer| {
            let Answer::Allow(allow) = answer else { panic!("denied") };
            let header = allow.set.iter().find(|(name, _)| *name == "x-tenantgate-issuer");
            let metadata = allow.metadata.iter().find(|(name, _)| *name == "issuer").unwrap();
            (header.map(|(_, issuer)| (*issuer).to_owned()), metadata.1.to_string())
        })
    };
    assert_eq!(issuers(&own), (None, OWN.to_owned()));
    assert_eq!(issuers(&foreign), (Some(FOREIGN.to_owned()), FOREIGN.to_owned()));
}

#[test]
fn only_the_scopes_that_still_count_reach_the_upstream() {
    let mut world = World::typical();
    let token = bearer(&world.token());
    let scopes = ScopeSet::parse("reports.read").unwrap();
    world.snapshot.clients = book([Client { scopes, ..client("acme") }]);
    let answer = of(world).ask("/api/T1/report", &token);
    assert!(answer.contains("x-tenantgate-scope=reports.read,"), "{answer}");
}

#[test]
fn every_reason_is_told_with_a_status_of_its_own_and_json() {
    for reason in DenyReason::ALL {
        let Answer::Deny(told) = deny::answer(reason, "realm", None) else { panic!("{reason:?}") };
        assert!(matches!(told.status, 400 | 401 | 403 | 429 | 503), "{reason:?}");
        let has = |wanted: &str| told.headers.iter().any(|(name, _)| *name == wanted);
        assert_eq!(has("retry-after"), matches!(told.status, 429 | 503), "{reason:?}");
        assert!(has("www-authenticate") || told.status != 401, "{reason:?}");
        let body: serde_json::Value = serde_json::from_str(&told.body).unwrap();
        assert!(body["error"].is_string() && body["error_description"].is_string(), "{reason:?}");
        assert!(!told.body.contains(reason.as_str()) || reason == DenyReason::UnknownApi);
    }
}

#[test]
fn wishes_are_passed_on_and_questions_leave_none() {
    let world = World::typical();
    let token = world.token();
    let wishes = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&wishes);
    let gate = Gate::over(world, Box::new(move |hint| heard.lock().unwrap().push(hint)));
    let headers = bearer(&token);
    let input =
        CheckInput { profile: None, method: "GET", target: b"/api/T1/report", headers: &headers };
    let snapshot = gate.snapshot.load_full();
    assert!(gate.explain(&snapshot, &input, &mut ()).hint().is_some());
    assert!(wishes.lock().unwrap().is_empty());
    gate.answer(Some(&Request { input, id: b"", trace: None, metadata: true }), |_| ());
    let acme = ClientId::parse("acme").unwrap();
    assert_eq!(*wishes.lock().unwrap(), [Hint::Grants(acme)]);
}

#[test]
fn what_is_no_request_and_what_panics_are_told_so() {
    assert!(gate().0.answer(None, shown).starts_with("deny 400 "));

    struct Panicking;
    impl Meter for Panicking {
        fn allowed(&self) {}
        fn denied(&self, _: DenyReason) {
            panic!("a bug");
        }
        fn shadowed(&self, _: DenyReason) {}
    }
    let mut world = World::typical();
    let api = Api { meter: Box::new(Panicking), ..api("oda") };
    world.snapshot.apis = Arc::new(Apis::new(vec![api]));
    let gate = Gate::over(world, Box::new(|_| {}));
    let nobody = Sent(Vec::new());
    assert!(gate.ask("/api/T1/report", &nobody).starts_with("deny 503 "));
}

/// The page says what callers get for each reason.
#[test]
fn the_operations_page_has_the_status_of_each_reason() {
    let page = include_str!("../../docs/operations.md");
    for reason in DenyReason::ALL {
        let Answer::Deny(deny) = deny::answer(reason, "", None) else { panic!("allowed") };
        let row = format!("\n| `{}` | {} | ", reason.as_str(), deny.status);
        assert!(page.contains(&row), "docs/operations.md has no row that begins {row}");
    }
}
