use super::*;
use crate::domain::{GRANTS_AT, Quota, QuotaUnit, ScopeSet, TenantDigester};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn credentials_are_judged_before_routes() {
    let world = World::typical();
    let none = Sent(vec![]);
    assert_eq!(world.ask("/api/T1/report", &none).0, Some(DenyReason::NoCredential));
    assert_eq!(world.ask("/nowhere", &none).0, Some(DenyReason::NoCredential));
    assert_eq!(world.ask("/nowhere", &bearer(&world.token())).0, Some(DenyReason::NoRoute));
    assert_eq!(world.ask("/api/T1/../T2", &none).0, Some(DenyReason::PathRefused));
    let twice = Sent(vec![("authorization", "a".into()), ("authorization", "b".into())]);
    assert_eq!(world.ask("/api/T1/report", &twice).0, Some(DenyReason::SeveralCredentials));
}

#[test]
fn tenant_scope_and_method_decide() {
    let world = World::typical();
    let token = bearer(&world.token());
    assert_eq!(world.ask("/api/T1/report", &token).0, None);
    assert_eq!(world.ask("/api/T1/report?tenant=T2", &token).0, None);
    assert_eq!(world.ask("/api/T2/report", &token).0, Some(DenyReason::TenantNotGranted));
    assert_eq!(world.ask("/api/t1/report", &token).0, Some(DenyReason::TenantNotGranted));
    assert_eq!(world.ask("/api/T1/admin", &token).0, Some(DenyReason::ScopeMissing));
    assert_eq!(world.ask("/api/T2/admin", &token).0, Some(DenyReason::ScopeMissing));
    let input =
        CheckInput { profile: None, method: "POST", target: b"/api/T1/report", headers: &token };
    let posted = world.authorizer().decide(&input, &mut ());
    assert_eq!(posted.denied(), Some(DenyReason::NoRoute));
}

#[test]
fn a_public_route_passes_anybody_without_an_identity() {
    let world = World::typical();
    for headers in [Sent(vec![]), bearer("nonsense"), bearer(&world.token())] {
        let input =
            CheckInput { profile: None, method: "GET", target: b"/docs/start", headers: &headers };
        let outcome = world.authorizer().decide(&input, &mut ());
        let Verdict::Allowed(permit) = outcome.verdict else { panic!("refused") };
        assert!(permit.caller.is_none());
        assert_eq!(permit.variables, [("page", "start")]);
    }
    let docs = world.ask("/docs/../api/T1/report", &Sent(vec![]));
    assert_eq!(docs.0, Some(DenyReason::PathRefused));
}

#[test]
fn facts_are_remembered_but_verdicts_are_not() {
    let mut world = World::typical();
    let token = bearer(&world.token());
    assert_eq!(world.ask("/api/T1/report", &token).0, None);
    assert_eq!(world.cache.len(), 1);
    assert_eq!(world.ask("/api/T2/report", &token).0, Some(DenyReason::TenantNotGranted));
    assert_eq!(world.cache.len(), 1);

    world.now = NOW.plus(secs(309));
    world.grant(&["T1"], world.now);
    assert_eq!(world.ask("/api/T1/report", &token).0, None);
    world.now = NOW.plus(secs(310));
    assert_eq!(world.ask("/api/T1/report", &token).0, Some(DenyReason::TokenExpired));
}

#[test]
fn remembered_tokens_stay_within_their_bytes() {
    let mut world = World::typical();
    world.cache = Arc::new(FactsCache::new(64 * 1024));
    let mut claims = world.claims();
    for number in 0..1000 {
        claims["jti"] = json!(number.to_string());
        let token = world.own.sign(&world.own.header(), &claims);
        assert_eq!(world.ask_with(&token), None);
        assert!(world.cache.bytes() <= 64 * 1024);
    }
    assert!(world.cache.len() > 50, "hardly anything is remembered");
}

#[test]
fn a_key_that_is_gone_stops_remembered_tokens_too() {
    let mut world = World::typical();
    let token = world.token();
    assert_eq!(world.ask_with(&token), None);
    world.trust(vec![Signer::new("k1", 3).trusted()], vec![]);
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenSignatureInvalid));
    world.trust(vec![], vec![]);
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenKeyUnknown));
}

#[test]
fn a_key_set_that_never_loaded_or_is_too_old_cannot_decide() {
    let mut world = World::typical();
    let token = world.foreign_token();
    assert_eq!(world.ask_with(&token), None);
    let aged =
        KeySet::new(vec![world.foreign.trusted()], Some(Moment::of(NOW.plus(secs(60))).monotonic));
    let policy = || Arc::new(foreign_policy());
    world.snapshot.trust = Arc::new(Trust::new([(policy(), Some(Arc::new(aged)))]));
    assert_eq!(world.ask_with(&token), None);
    world.now = NOW.plus(secs(61));
    assert_eq!(world.ask_with(&token), Some(DenyReason::KeysUnavailable));
    world.snapshot.trust = Arc::new(Trust::new([(policy(), None)]));
    assert_eq!(world.ask_with(&token), Some(DenyReason::KeysUnavailable));
}

#[test]
fn a_withdrawn_client_is_stopped_at_once() {
    let mut world = World::typical();
    let token = world.token();
    assert_eq!(world.ask_with(&token), None);
    for change in [(|client| client.approved = false) as fn(&mut Client), |client| {
        client.developer_active = false
    }] {
        let mut withdrawn = client("acme");
        change(&mut withdrawn);
        world.snapshot.clients = book([withdrawn]);
        assert_eq!(world.ask_with(&token), Some(DenyReason::ClientWithdrawn));
    }
    world.snapshot.clients = book([]);
    assert_eq!(world.ask_with(&token), Some(DenyReason::ClientWithdrawn));
    assert_eq!(world.ask_with(&world.foreign_token()), None);
    world.snapshot.clients = None;
    assert_eq!(world.ask_with(&token), None);
}

#[test]
fn tokens_issued_until_they_were_revoked_are_refused_and_ties_deny() {
    let mut world = World::typical();
    let token = world.token();
    for (floor, expected) in [
        (NOW.minus(secs(1)), None),
        (NOW, Some(DenyReason::TokenRevoked)),
        (NOW.plus(secs(60)), Some(DenyReason::TokenRevoked)),
    ] {
        let client = Client { tokens_not_before: Some(floor), ..client("acme") };
        world.snapshot.clients = book([client]);
        assert_eq!(world.ask_with(&token), expected);
        assert_eq!(world.ask_with(&world.foreign_token()), None, "another issuer's client");
    }
}

#[test]
fn fresh_grants_only_subtract() {
    let world = World::typical();
    let token = world.token();
    world.grant(&["T1", "T2"], NOW.plus(secs(1)));
    assert_eq!(world.ask_with(&token), None);
    let not_in_token = world.ask("/api/T2/report", &bearer(&token)).0;
    assert_eq!(not_in_token, Some(DenyReason::TenantNotGranted));
    world.grant(&["T2"], NOW.plus(secs(2)));
    assert_eq!(world.ask_with(&token), Some(DenyReason::TenantNotGranted));
    world.grant(&[], NOW.plus(secs(3)));
    assert_eq!(world.ask_with(&token), Some(DenyReason::TenantNotGranted));
    // Older than the lookup behind the token: says nothing against it.
    world.grant(&[], NOW.minus(secs(1)));
    assert_eq!(world.ask_with(&token), None);
}

#[test]
fn the_lookup_behind_a_token_is_as_old_as_it_says() {
    let world = World::typical();
    let mut claims = world.claims();
    claims[GRANTS_AT] = json!(NOW.secs() - 50);
    let token = world.own.sign(&world.own.header(), &claims);
    world.grant(&[], NOW.minus(secs(50)));
    assert_eq!(world.ask_with(&token), Some(DenyReason::TenantNotGranted));
    // It cannot be younger than the token.
    claims[GRANTS_AT] = json!(NOW.secs() + 50);
    world.grant(&[], NOW);
    let token = world.own.sign(&world.own.header(), &claims);
    assert_eq!(world.ask_with(&token), Some(DenyReason::TenantNotGranted));
}

#[test]
fn what_vouches_is_the_lookup_behind_a_token_and_not_its_iat() {
    let mut world = World::typical();
    let mut claims = world.claims();
    claims["exp"] = json!(NOW.secs() + 1800);
    claims[GRANTS_AT] = json!(NOW.secs() - 60);
    let token = world.own.sign(&world.own.header(), &claims);
    world.now = NOW.plus(MAX_AGE - secs(60));
    assert_eq!(world.ask_with(&token), None);
    world.now = NOW.plus(MAX_AGE - secs(59));
    assert_eq!(world.ask_with(&token), Some(DenyReason::GrantsStale));
}

#[test]
fn when_another_issuer_signs_is_no_evidence_against_a_lookup() {
    let mut world = World::typical();
    let policy = IssuerPolicy { fresh_grants: true, ..foreign_policy() };
    let keys = Arc::new(KeySet::new(vec![world.foreign.trusted()], None));
    world.snapshot.trust = Arc::new(Trust::new([(Arc::new(policy), Some(keys))]));
    let mut claims = world.foreign_claims();
    claims["azp"] = json!("acme");
    let token = world.foreign.sign(&world.foreign.header(), &claims);
    assert_eq!(world.ask_with(&token), None, "nobody has looked its client up yet");
    world.grant(&[], NOW.minus(secs(50)));
    assert_eq!(world.ask_with(&token), Some(DenyReason::TenantNotGranted));
    world.grant(&["T1"], NOW.minus(MAX_AGE));
    assert_eq!(world.ask_with(&token), None);
    world.grant(&["T1"], NOW.minus(MAX_AGE + secs(1)));
    assert_eq!(world.ask_with(&token), Some(DenyReason::GrantsStale), "nor does it vouch");
}

#[test]
fn a_clock_that_is_set_makes_nothing_younger_or_older() {
    let world = World::typical();
    world.grant(&["T1"], NOW);
    // A token minted after the clock was set, from what had been looked up before.
    for set_to in [NOW.minus(secs(3600)), NOW.plus(secs(3600))] {
        let decide = |later: u64| {
            let wall = set_to.plus(secs(later));
            let monotonic = Moment::of(NOW.plus(secs(later))).monotonic;
            let mut claims = world.claims();
            claims["iat"] = json!(wall.secs());
            claims["exp"] = json!(wall.secs() + 60);
            claims[GRANTS_AT] = json!(wall.secs() - later);
            let headers = bearer(&world.own.sign(&world.own.header(), &claims));
            let authorizer = Authorizer { now: Moment { wall, monotonic }, ..world.authorizer() };
            let target = b"/api/T1/report";
            let input = CheckInput { profile: None, method: "GET", target, headers: &headers };
            authorizer.decide(&input, &mut ()).denied()
        };
        assert_eq!(decide(300), None);
        assert_eq!(decide(301), Some(DenyReason::GrantsStale));
    }
}

#[test]
fn nobody_vouches_for_longer_than_max_age() {
    let mut world = World::typical();
    let mut claims = world.claims();
    claims["exp"] = json!(NOW.secs() + 1800);
    let token = bearer(&world.own.sign(&world.own.header(), &claims));
    let acme = ClientId::parse("acme").unwrap();

    let (allowed, hint) = world.ask("/api/T1/report", &token);
    assert_eq!((allowed, hint), (None, Some(Hint::Grants(acme.clone()))));
    world.now = NOW.plus(MAX_AGE);
    assert_eq!(world.ask("/api/T1/report", &token).0, None);
    world.now = NOW.plus(MAX_AGE + secs(1));
    let (denied, hint) = world.ask("/api/T1/report", &token);
    assert_eq!((denied, hint), (Some(DenyReason::GrantsStale), Some(Hint::Grants(acme))));
    // A good lookup vouches again, for as long.
    world.grant(&["T1"], NOW.plus(MAX_AGE));
    assert_eq!(world.ask("/api/T1/report", &token).0, None);
    world.now = NOW.plus(MAX_AGE * 2 + secs(1));
    assert_eq!(world.ask("/api/T1/report", &token).0, Some(DenyReason::GrantsStale));
    world.snapshot.freshness = FreshnessRule::Token;
    assert_eq!(world.ask("/api/T1/report", &token).0, None);
}

#[test]
fn static_grants_are_the_registry_of_now() {
    let mut world = World::typical();
    let token = world.token();
    let holder = Holder { issuer: OWN, client: "acme" };
    let statically = |code: &str| {
        let mut acme = client("acme");
        let codes = vec![TenantCode::parse(code).unwrap()];
        acme.static_grants = Some(Arc::new(GrantSet::of(codes, &world.snapshot.digester, holder)));
        book([acme])
    };
    let (same, other) = (statically("T1"), statically("T2"));
    world.snapshot.clients = same;
    world.now = NOW.plus(secs(301));
    assert_eq!(world.ask_with(&token), None);
    world.snapshot.clients = other;
    assert_eq!(world.ask_with(&token), Some(DenyReason::TenantNotGranted));
    // What a lookup said before the registry listed the grants widens nothing.
    world.snapshot.lookup_on_miss = true;
    world.grant(&["T2", "T3"], world.now);
    let not_listed = world.ask("/api/T3/report", &bearer(&token)).0;
    assert_eq!(not_listed, Some(DenyReason::TenantNotGranted));
}

#[test]
fn plain_codes_outlive_the_digest_key_they_were_remembered_under() {
    let mut world = World::typical();
    let token = world.foreign_token();
    assert_eq!(world.ask_with(&token), None);
    for keys in [([8; 32], Some([7; 32])), ([8; 32], None), ([9; 32], None)] {
        world.snapshot.digester = Arc::new(TenantDigester::new(&keys.0, keys.1.as_ref()));
        assert_eq!(world.ask_with(&token), None, "{keys:?}");
    }
}

#[test]
fn who_cannot_be_looked_up_does_not_pass_without_a_lookup() {
    let mut world = World::typical();
    let policy = IssuerPolicy { fresh_grants: true, ..foreign_policy() };
    let keys = Arc::new(KeySet::new(vec![world.foreign.trusted()], None));
    world.snapshot.trust = Arc::new(Trust::new([(Arc::new(policy), Some(keys))]));
    let mut claims = world.foreign_claims();
    assert_eq!(world.ask_with(&world.foreign_token()), None);
    claims["azp"] = json!("auth0|7");
    let token = world.foreign.sign(&world.foreign.header(), &claims);
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenClaimsInvalid));
}

#[test]
fn a_miss_is_looked_up_only_where_the_config_says_so() {
    let mut world = World::typical();
    let token = bearer(&world.token());
    assert_eq!(world.ask("/api/T2/report", &token).1, None);
    world.snapshot.lookup_on_miss = true;
    let hint = world.ask("/api/T2/report", &token).1;
    assert_eq!(hint, Some(Hint::Miss(ClientId::parse("acme").unwrap())));
    let foreign = bearer(&world.foreign_token());
    assert_eq!(world.ask("/api/T2/report", &foreign).1, None);
}

#[test]
fn several_apis_are_told_apart_by_name_only() {
    let mut world = World::typical();
    world.snapshot.apis = Arc::new(Apis::new(vec![api("one"), api("two")]));
    let token = bearer(&world.token());
    for (profile, expected) in [
        (Some("one"), None),
        (Some("two"), None),
        (Some("three"), Some(DenyReason::UnknownApi)),
        (Some(""), Some(DenyReason::UnknownApi)),
        (None, Some(DenyReason::UnknownApi)),
    ] {
        let input =
            CheckInput { profile, method: "GET", target: b"/api/T1/report", headers: &token };
        assert_eq!(world.authorizer().decide(&input, &mut ()).denied(), expected);
    }
}

#[test]
fn scopes_of_a_live_token_count_as_far_as_the_registry_still_has_them() {
    let mut world = World::typical();
    let mut claims = world.claims();
    claims["scope"] = json!("reports.read admin");
    let token = bearer(&world.own.sign(&world.own.header(), &claims));
    let with = |scopes: &str| book([Client { scopes: scope_set(scopes), ..client("acme") }]);
    for (registered, report, admin) in [
        ("admin reports.read more", None, None),
        ("reports.read", None, Some(DenyReason::ScopeMissing)),
        ("", Some(DenyReason::ScopeMissing), Some(DenyReason::ScopeMissing)),
    ] {
        world.snapshot.clients = with(registered);
        assert_eq!(world.ask("/api/T1/report", &token).0, report, "{registered}");
        assert_eq!(world.ask("/api/T1/admin", &token).0, admin, "{registered}");
    }
    // A process without a registry has only the token to go by.
    world.snapshot.clients = None;
    assert_eq!(world.ask("/api/T1/admin", &token).0, None);
}

fn scope_set(text: &str) -> ScopeSet {
    ScopeSet::parse(text).unwrap()
}

#[test]
fn the_registry_says_nothing_of_another_issuers_client_of_the_same_name() {
    let mut world = World::typical();
    let mut claims = world.foreign_claims();
    claims["azp"] = json!("acme");
    let token = bearer(&world.foreign.sign(&world.foreign.header(), &claims));
    let holder = Holder { issuer: OWN, client: "acme" };
    let nothing = GrantSet::of(Vec::new(), &world.snapshot.digester, holder);
    world.snapshot.clients = book([Client {
        approved: false,
        apis: Some(Vec::new()),
        scopes: ScopeSet::default(),
        static_grants: Some(Arc::new(nothing)),
        ..client("acme")
    }]);
    assert_eq!(world.ask("/api/T1/report", &token).0, None);
}

#[test]
fn what_a_lookup_tells_of_another_issuers_client_does_not_depend_on_our_registry() {
    let mut world = World::typical();
    let policy = IssuerPolicy { fresh_grants: true, ..foreign_policy() };
    let keys = Arc::new(KeySet::new(vec![world.foreign.trusted()], None));
    world.snapshot.trust = Arc::new(Trust::new([(Arc::new(policy), Some(keys))]));
    let holder = Holder { issuer: OWN, client: "partner" };
    let nothing = GrantSet::of(Vec::new(), &world.snapshot.digester, holder);
    let partner = Client { static_grants: Some(Arc::new(nothing)), ..client("partner") };
    world.snapshot.clients = book([partner]);
    let headers = bearer(&world.foreign_token());
    let target = b"/api/T1/report";
    let input = CheckInput { profile: None, method: "GET", target, headers: &headers };
    let outcome = world.authorizer().decide(&input, &mut ());
    assert_eq!(outcome.looked_up_client(&world.snapshot), ClientId::parse("partner"));
}

#[test]
fn a_quota_is_the_registrys_or_else_the_last_lookups() {
    let mut world = World::typical();
    let quota = |requests_per_unit| Quota { requests_per_unit, unit: QuotaUnit::Hour };
    let holder = Holder { issuer: OWN, client: "acme" };
    let codes = vec![TenantCode::parse("T1").unwrap()];
    world.cells.cell(&ClientId::parse("acme").unwrap()).replace(Arc::new(GrantSet {
        looked_up_at: Moment::of(NOW).monotonic,
        quota: Some(quota(7)),
        ..GrantSet::of(codes, &world.snapshot.digester, holder)
    }));
    let token = bearer(&world.token());
    let of = |world: &World| {
        let target = b"/api/T1/report";
        let input = CheckInput { profile: None, method: "GET", target, headers: &token };
        let outcome = world.authorizer().decide(&input, &mut ());
        let Verdict::Allowed(permit) = outcome.verdict else { panic!("refused") };
        permit.caller.unwrap().quota
    };
    assert_eq!(of(&world), Some(quota(7)));
    world.snapshot.clients = book([Client { quota: Some(quota(500)), ..client("acme") }]);
    assert_eq!(of(&world), Some(quota(500)));
}

#[test]
fn one_api_is_for_requests_that_name_it_or_none() {
    // It may be what a reload left of several.
    let world = World::typical();
    let token = bearer(&world.token());
    for (profile, expected) in [
        (None, None),
        (Some("oda"), None),
        (Some("gone"), Some(DenyReason::UnknownApi)),
        (Some(""), Some(DenyReason::UnknownApi)),
    ] {
        let input =
            CheckInput { profile, method: "GET", target: b"/api/T1/report", headers: &token };
        let outcome = world.authorizer().decide(&input, &mut ());
        assert_eq!(outcome.denied(), expected, "{profile:?}");
    }
}

#[test]
fn a_client_may_be_kept_to_some_apis() {
    let mut world = World::typical();
    let mut kept = client("acme");
    kept.apis = Some(vec!["else".into()]);
    world.snapshot.clients = book([kept]);
    assert_eq!(world.ask_with(&world.token()), Some(DenyReason::ApiNotAllowed));
}

#[test]
fn an_api_key_is_a_credential_only_where_the_api_says_so() {
    let mut world = World::typical();
    let key = |value: &str| Sent(vec![("x-api-key", value.into())]);
    assert_eq!(world.ask("/api/T1/report", &key(API_KEY)).0, Some(DenyReason::NoCredential));

    let mut open = api("oda");
    open.api_key_header = Some("x-api-key".into());
    world.snapshot.apis = Arc::new(Apis::new(vec![open]));
    assert_eq!(world.ask("/api/T1/report", &key("wrong")).0, Some(DenyReason::ApiKeyInvalid));
    let both = Sent(vec![
        ("x-api-key", API_KEY.into()),
        ("authorization", format!("Bearer {}", world.token()).into()),
    ]);
    assert_eq!(world.ask("/api/T1/report", &both).0, Some(DenyReason::SeveralCredentials));

    let (denied, hint) = world.ask("/api/T1/report", &key(API_KEY));
    assert_eq!(denied, Some(DenyReason::GrantsStale));
    assert_eq!(hint, Some(Hint::Grants(ClientId::parse("acme").unwrap())));
    world.grant(&["T1"], NOW);
    assert_eq!(world.ask("/api/T1/report", &key(API_KEY)).0, None);
    let foreign = world.ask("/api/T2/report", &key(API_KEY)).0;
    assert_eq!(foreign, Some(DenyReason::TenantNotGranted));
    assert_eq!(world.ask("/api/T1/admin", &key(API_KEY)).0, Some(DenyReason::ScopeMissing));
    world.now = NOW.plus(MAX_AGE + secs(1));
    assert_eq!(world.ask("/api/T1/report", &key(API_KEY)).0, Some(DenyReason::GrantsStale));
    world.now = NOW.plus(secs(3600));
    assert_eq!(world.ask("/api/T1/report", &key(API_KEY)).0, Some(DenyReason::ApiKeyInvalid));
}

#[test]
fn shadow_mode_lets_pass_and_says_what_would_have_been() {
    let mut world = World::typical();
    let mut shadow = api("oda");
    shadow.shadow = true;
    world.snapshot.apis = Arc::new(Apis::new(vec![shadow]));
    let token = bearer(&world.token());
    for (target, expected) in [
        ("/api/T1/report", None),
        ("/api/T2/report", Some(DenyReason::TenantNotGranted)),
        ("/api/T1/../T2", Some(DenyReason::PathRefused)),
    ] {
        let input =
            CheckInput { profile: None, method: "GET", target: target.as_bytes(), headers: &token };
        let outcome = world.authorizer().decide(&input, &mut ());
        assert_eq!(outcome.denied(), None, "{target}");
        let refusal = outcome.refusal().map(|denied| denied.reason);
        assert_eq!(refusal, expected, "{target}");
    }
}

#[test]
fn probing_is_noticed_and_throttled_where_the_config_says_so() {
    let mut world = World::typical();
    let token = bearer(&world.token());
    for code in ["A", "B", "C", "D", "E"] {
        let refused = world.ask(&format!("/api/{code}/report"), &token).0;
        assert_eq!(refused, Some(DenyReason::TenantNotGranted), "{code}");
    }
    world.probes = ProbeWatch::default();
    world.snapshot.probing.throttle = true;
    for (code, expected) in [
        ("A", DenyReason::TenantNotGranted),
        ("A", DenyReason::TenantNotGranted),
        ("B", DenyReason::TenantNotGranted),
        ("C", DenyReason::TenantNotGranted),
        ("D", DenyReason::ProbingThrottled),
        ("A", DenyReason::ProbingThrottled),
    ] {
        let refused = world.ask(&format!("/api/{code}/report"), &token).0;
        assert_eq!(refused, Some(expected), "{code}");
    }
    assert_eq!(world.ask("/api/T1/report", &token).0, None);
    world.now = NOW.plus(secs(60));
    let later = world.ask("/api/D/report", &token).0;
    assert_eq!(later, Some(DenyReason::TenantNotGranted));
}

#[test]
fn a_tenant_granted_since_passes_on_a_fresh_lookup_where_the_config_says_so() {
    let mut world = World::typical();
    let token = bearer(&world.token());
    let mut claims = world.claims();
    claims["narrowed"] = json!(true);
    let narrowed = bearer(&world.own.sign(&world.own.header(), &claims));
    let t2 = |world: &World, token: &Sent| world.ask("/api/T2/report", token).0;
    let denied = Some(DenyReason::TenantNotGranted);
    world.grant(&["T1", "T2"], NOW.plus(secs(1)));
    assert_eq!(t2(&world, &token), denied);

    world.snapshot.lookup_on_miss = true;
    assert_eq!(t2(&world, &token), None);
    assert_eq!(t2(&world, &narrowed), denied);
    assert_eq!(t2(&world, &bearer(&world.foreign_token())), denied);
    world.grant(&["T1", "T2"], NOW.minus(secs(1)));
    assert_eq!(t2(&world, &token), denied, "older than the lookup behind the token");
    world.grant(&["T1"], NOW.plus(secs(2)));
    assert_eq!(t2(&world, &token), denied);

    claims["narrowed"] = json!("no");
    let strange = world.ask_with(&world.own.sign(&world.own.header(), &claims));
    assert_eq!(strange, Some(DenyReason::TokenClaimsInvalid));
    world.grant(&["T1", "T2"], NOW);
    world.now = NOW.plus(MAX_AGE + secs(1));
    assert!(t2(&world, &token).is_some());
}
