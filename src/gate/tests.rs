use std::sync::Mutex;

use super::*;
use crate::authz::tests::{NOW, OwnHeaders, World, api, bearer};
use crate::authz::{Api, Apis};
use crate::domain::{ClientId, ManualClock, Meter};

impl Gate {
    fn over(world: World, hints: Box<dyn Fn(Hint) + Send + Sync>) -> Self {
        Self {
            snapshot: Arc::new(ArcSwap::from_pointee(world.snapshot)),
            cache: Arc::new(world.cache),
            probes: world.probes,
            grants: Arc::new(world.cells),
            clock: Arc::new(ManualClock::at(NOW)),
            metrics: Arc::new(Metrics::new()),
            hints,
            decision_ids: AtomicU64::new(0),
        }
    }

    /// The answer as text; only its parts are the contract.
    fn ask(&self, target: &str, headers: &OwnHeaders) -> String {
        let target = target.as_bytes();
        let input = CheckInput { profile: None, method: "GET", target, headers };
        self.answer(Some(&Request { input, id: b"" }), shown)
    }
}

fn gate() -> (Gate, String) {
    let world = World::new();
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
        r#"deny 403 {"error":"access_denied","error_description":"the token does not give access to this resource"}"#
    );
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
    let world = World::new();
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
    gate.answer(Some(&Request { input, id: b"" }), |_| ());
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
    let mut world = World::new();
    let api = Api { meter: Box::new(Panicking), ..api("oda") };
    world.snapshot.apis = Arc::new(Apis::new(vec![api]));
    let gate = Gate::over(world, Box::new(|_| {}));
    let nobody = OwnHeaders(Vec::new());
    assert!(gate.ask("/api/T1/report", &nobody).starts_with("deny 503 "));
}
