//! What an operator sees of each step.

use super::*;

#[derive(Default)]
struct Steps(Vec<(&'static str, String)>);

impl Observer for Steps {
    fn step(&mut self, name: &'static str, outcome: impl FnOnce() -> String) {
        self.0.push((name, outcome()));
    }
}

impl World {
    fn told(&self, method: &str, target: &str, token: &str) -> Steps {
        let headers = bearer(token);
        let input =
            CheckInput { profile: None, method, target: target.as_bytes(), headers: &headers };
        let mut steps = Steps::default();
        self.authorizer().decide(&input, &mut steps);
        steps
    }

    /// The last text of one step.
    fn told_of(&self, step: &str, method: &str, target: &str) -> String {
        let steps = self.told(method, target, &self.token());
        let found = steps.0.into_iter().rev().find(|(name, _)| *name == step);
        found.unwrap_or_else(|| panic!("no step {step}")).1
    }
}

#[test]
fn the_nearest_route_is_named_with_what_differs() {
    let world = World::typical();
    for (method, target, told) in [
        (
            "POST",
            "/api/T1/report",
            "/api/{tenant}/report, which differs in the method: it takes GET",
        ),
        (
            "get",
            "/api/T1/report",
            "/api/{tenant}/report, which differs in the method: it takes GET",
        ),
        (
            "GET",
            "/api/T1/reports",
            "/api/{tenant}/report, which differs in segment 3, `report` there",
        ),
        ("GET", "/v2/T1/report", "/api/{tenant}/report, which differs in segment 1, `api` there"),
        (
            "GET",
            "/api/T1/report/7",
            "/api/{tenant}/report, which differs in the number of segments: it has 3 and the path \
             4",
        ),
        (
            "GET",
            "/docs",
            "/docs/{page}, which differs in the number of segments: it has 2 and the path 1",
        ),
    ] {
        let expected = format!("none matches path and method; the nearest is {told}");
        assert_eq!(world.told_of("route", method, target), expected, "{method} {target}");
    }
    let none = "none matches path and method, and none is near";
    assert_eq!(world.told_of("route", "GET", "/completely/different/T1/place"), none);
}

#[test]
fn what_is_near_a_route_says_to_which() {
    let world = World::typical();
    for (step, target, told) in [
        ("route", "/api/T1/REPORT", "the case of segment 3, `report`"),
        ("route", "/api/T1/report/", "a slash at the end that it does not have"),
        ("path", "/api/.../report", "segment 2, which is not a tenant code"),
    ] {
        let path = world.told_of(step, "GET", target);
        let near = format!("the nearest is /api/{{tenant}}/report, which differs in {told}");
        assert!(path.contains(&near), "{target}: {path}");
    }
}

#[test]
fn a_token_says_who_issued_it_and_how_far_its_times_are_from_now() {
    let world = World::typical();
    let steps = world.told("GET", "/api/T1/report", &world.token());
    let of = |name| &steps.0.iter().find(|(step, _)| *step == name).unwrap().1;
    let token = "says, unverified: alg EdDSA, typ at+jwt, kid k1, iss https://issuer.test, aud \
                 https://api.test, client_id acme";
    assert_eq!(of("token"), token);
    let times = "issued 2027-01-15T08:00:00Z (0s ago), expires 2027-01-15T08:05:00Z (in 5m); it is \
                 2027-01-15T08:00:00Z";
    assert_eq!(of("times"), times);
    for text in steps.0.iter().map(|(_, text)| text) {
        assert!(!text.contains("T1"), "{text}");
    }
    let old = World { now: NOW.plus(Duration::from_secs(302)), ..World::typical() };
    let times = old.told_of("times", "GET", "/api/T1/report");
    assert!(times.contains("expires 2027-01-15T08:05:00Z (2s ago)"), "{times}");
}

#[test]
fn what_anybody_may_have_written_is_shown_harmlessly() {
    let world = World::typical();
    let token = world
        .own
        .sign_text(r#"{"alg":"none\n\u001b[31m"}"#, &json!({"iss": "x".repeat(500)}).to_string());
    let steps = world.told("GET", "/api/T1/report", &token);
    let told = &steps.0.iter().find(|(name, _)| *name == "token").unwrap().1;
    assert!(told.contains(r"alg none\n\u{1b}[31m") && told.len() < 300, "{told}");
    for broken in ["", "a.b.c", "e30", "e30.", "W10.W10.", "…"] {
        world.told("GET", "/api/T1/report", broken);
    }
}

#[test]
fn a_client_s_trouble_is_named() {
    let told = |change: fn(&mut Client), id: &str| {
        let mut world = World::typical();
        let mut registered = client(id);
        change(&mut registered);
        world.snapshot.clients = book([registered]);
        world.told_of("client", "GET", "/api/T1/report")
    };
    let refused = |why: &str| format!("refused: client_withdrawn ({why})");
    assert_eq!(told(|_| {}, "acme"), "in good standing");
    assert_eq!(told(|_| {}, "acmee"), refused("not in the registry; did you mean `acmee`?"));
    assert_eq!(told(|_| {}, "zzz"), refused("not in the registry"));
    assert_eq!(told(|client| client.approved = false, "acme"), refused("the app is revoked"));
    let inactive = |client: &mut Client| client.developer_active = false;
    assert_eq!(told(inactive, "acme"), refused("its developer is inactive"));
    let elsewhere = |client: &mut Client| client.apis = Some(vec!["other".into()]);
    assert_eq!(told(elsewhere, "acme"), "refused: api_not_allowed (its `apis` do not name oda)");
    let revoked = |client: &mut Client| client.tokens_not_before = Some(NOW);
    let until = "its tokens issued until 2027-01-15T08:00:00Z (0s ago) are revoked";
    assert_eq!(told(revoked, "acme"), format!("refused: token_revoked ({until})"));
}

#[test]
fn a_tenant_s_refusal_says_who_does_not_list_it() {
    let mut world = World::typical();
    world.now = NOW.plus(Duration::from_secs(20));
    let told = |world: &World, tenant| {
        let text = world.told_of("tenant", "GET", &format!("/api/{tenant}/report"));
        let (reference, text) = text.split_once(' ').unwrap();
        assert_eq!(reference, world.snapshot.digester.reference(tenant).to_string());
        text.to_owned()
    };
    let refused = "refused: tenant_not_granted; the token";
    let foreign = format!("{refused} does not carry it; tenants in it: 1");
    assert_eq!(told(&world, "T2"), foreign);
    world.grant(&["T2"], NOW.plus(Duration::from_secs(5)));
    let withdrawn = "carries it, but it was withdrawn: the lookup of 2027-01-15T08:00:05Z (15s \
                     ago) does not list it";
    assert_eq!(told(&world, "T1"), format!("{refused} {withdrawn}"));
    let none =
        GrantSet::of(vec![], &world.snapshot.digester, Holder { issuer: OWN, client: "acme" });
    world.snapshot.clients =
        book([Client { static_grants: Some(Arc::new(none)), ..client("acme") }]);
    let unlisted = "carries it, but the registry does not list it for this client";
    assert_eq!(told(&world, "T1"), format!("{refused} {unlisted}"));
}

#[test]
fn stale_grants_say_how_old_they_are() {
    let mut world = World::typical();
    let mut claims = world.claims();
    claims["exp"] = json!(NOW.secs() + 3600);
    let token = world.own.sign(&world.own.header(), &claims);
    world.now = NOW.plus(Duration::from_secs(400));
    let told = |world: &World| {
        let steps = world.told("GET", "/api/T1/report", &token).0;
        steps.into_iter().find(|(name, _)| *name == "tenant").unwrap().1
    };
    let none = "refused: grants_stale; there is no good lookup, and the token is older than 5m";
    assert!(told(&world).ends_with(none), "{}", told(&world));
    world.grant(&["T1"], NOW.plus(Duration::from_secs(40)));
    let old = "refused: grants_stale; the last good lookup was 6m ago, and 5m is the bound";
    assert!(told(&world).ends_with(old), "{}", told(&world));
}
