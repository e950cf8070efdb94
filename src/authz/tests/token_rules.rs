//! The JWT table of docs/security.md, row by row.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::authz::route::{RouteRule, Router, Template};
use crate::domain::{Algorithm, ScopeSet};

type Change = fn(&mut Value);

fn own_with(world: &World, change: impl Fn(&mut Value)) -> Option<DenyReason> {
    let mut claims = world.claims();
    change(&mut claims);
    world.ask_with(&world.own.sign(&world.own.header(), &claims))
}

fn foreign_with(world: &World, change: impl Fn(&mut Value)) -> Option<DenyReason> {
    let mut claims = world.foreign_claims();
    change(&mut claims);
    world.ask_with(&world.foreign.sign(&world.foreign.header(), &claims))
}

fn header_with(world: &World, change: impl Fn(&mut Value)) -> Option<DenyReason> {
    let mut header = world.own.header();
    change(&mut header);
    world.ask_with(&world.own.sign(&header, &world.claims()))
}

#[test]
fn good_tokens_of_both_issuers_pass() {
    let world = World::typical();
    assert_eq!(world.ask_with(&world.token()), None);
    assert_eq!(world.ask_with(&world.foreign_token()), None);
}

#[test]
fn alg_none_and_symmetric_algorithms_are_refused() {
    let world = World::typical();
    for alg in ["none", "None", "HS256", "HS512", "RS256", "ES384", "es256", ""] {
        let refused = header_with(&world, |header| header["alg"] = json!(alg));
        assert_eq!(refused, Some(DenyReason::TokenAlgorithmRefused), "{alg}");
    }
    let refused = header_with(&world, |header| header["alg"] = json!(["EdDSA"]));
    assert_eq!(refused, Some(DenyReason::TokenAlgorithmRefused));
}

#[test]
fn a_key_is_good_for_its_own_algorithm_only() {
    let mut world = World::typical();
    let algorithms = vec![Algorithm::Es256, Algorithm::EdDsa];
    let policy = IssuerPolicy { algorithms, ..own_policy() };
    let keys = Arc::new(KeySet::new(vec![world.own.trusted()], None));
    world.snapshot.trust = Arc::new(Trust::new([(Arc::new(policy), Some(keys))]));
    assert_eq!(world.ask_with(&world.token()), None);
    let refused = header_with(&world, |header| header["alg"] = json!("ES256"));
    assert_eq!(refused, Some(DenyReason::TokenAlgorithmRefused));
}

#[test]
fn all_scopes_of_a_route_are_required() {
    let mut world = World::typical();
    let mut both = api("oda");
    both.router = Router::new(vec![RouteRule {
        template: Template::parse("/api/{tenant}/report", false).unwrap(),
        methods: vec!["GET".into()],
        head: true,
        allow_encoded_percent: false,
        data: Route {
            name: "both".into(),
            scopes: vec!["reports.read".into(), "admin".into()],
            challenge: "reports.read admin".into(),
            public: false,
        },
    }])
    .unwrap();
    world.snapshot.apis = Arc::new(Apis::new(vec![both]));
    let scopes = ScopeSet::parse("reports.read admin").unwrap();
    world.snapshot.clients = book([Client { scopes, ..client("acme") }]);
    assert_eq!(world.ask_with(&world.token()), Some(DenyReason::ScopeMissing));
    let scoped = own_with(&world, |claims| claims["scope"] = json!("admin reports.read"));
    assert_eq!(scoped, None);
}

#[test]
fn the_public_key_as_hmac_secret_is_refused() {
    let world = World::typical();
    let header = json!({ "alg": "HS256", "typ": "at+jwt", "kid": "k1" });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(world.claims().to_string())
    );
    let point = &world.own.public();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, point);
    let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenAlgorithmRefused));
}

#[test]
fn claims_of_the_wrong_type_or_missing_are_refused() {
    let world = World::typical();
    let wrong = [json!(null), json!(1), json!([]), json!({}), json!(true), json!("")];
    for claim in ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"] {
        for value in &wrong {
            let refused = own_with(&world, |claims| claims[claim] = value.clone());
            assert!(refused.is_some(), "{claim}: {value}");
        }
        let refused = own_with(&world, |claims| {
            claims.as_object_mut().unwrap().remove(claim);
        });
        assert!(refused.is_some(), "{claim} missing");
    }
}

#[test]
fn audience_must_name_us() {
    let world = World::typical();
    for (aud, expected) in [
        (json!(AUDIENCE), None),
        (json!(["x", AUDIENCE]), None),
        (json!("https://else.test"), Some(DenyReason::TokenAudienceWrong)),
        (json!(["x"]), Some(DenyReason::TokenAudienceWrong)),
        (json!([]), Some(DenyReason::TokenAudienceWrong)),
        (json!([AUDIENCE, 1]), Some(DenyReason::TokenClaimsInvalid)),
        (json!(format!("{AUDIENCE}/")), Some(DenyReason::TokenAudienceWrong)),
    ] {
        assert_eq!(own_with(&world, |claims| claims["aud"] = aud.clone()), expected, "{aud}");
    }
}

#[test]
fn times_are_held_with_ten_seconds_of_leeway() {
    let world = World::typical();
    let now = NOW.secs() as i64;
    let cases: [(i64, i64, Option<i64>, Option<DenyReason>); 9] = [
        (-100, -9, None, None),
        (-100, -10, None, Some(DenyReason::TokenExpired)),
        (10, 100, None, None),
        (11, 100, None, Some(DenyReason::TokenNotYetValid)),
        (0, 100, Some(10), None),
        (0, 100, Some(11), Some(DenyReason::TokenNotYetValid)),
        (0, 0, None, Some(DenyReason::TokenClaimsInvalid)),
        (-10, 3590, None, None),
        (-10, 3591, None, Some(DenyReason::TokenLifetimeTooLong)),
    ];
    for (iat, exp, nbf, expected) in cases {
        let decided = own_with(&world, |claims| {
            claims["iat"] = json!(now + iat);
            claims["exp"] = json!(now + exp);
            if let Some(nbf) = nbf {
                claims["nbf"] = json!(now + nbf);
            }
        });
        assert_eq!(decided, expected, "iat {iat} exp {exp} nbf {nbf:?}");
    }
    let issued_later = own_with(&world, |claims| {
        claims["iat"] = json!(now + 30);
        claims["nbf"] = json!(now);
    });
    assert_eq!(issued_later, Some(DenyReason::TokenNotYetValid));
    for strange in [json!(-1), json!(1e300), json!("1800000000"), json!(u64::MAX)] {
        for claim in ["exp", "nbf", "iat"] {
            let refused = own_with(&world, |claims| claims[claim] = strange.clone());
            assert_eq!(refused, Some(DenyReason::TokenClaimsInvalid), "{claim} {strange}");
        }
    }
    let fraction = own_with(&world, |claims| claims["exp"] = json!(NOW.secs() as f64 + 100.5));
    assert_eq!(fraction, None);
}

#[test]
fn iat_is_required_of_other_issuers_too_and_jti_only_of_our_own() {
    let world = World::typical();
    let without: [(&str, Change); 1] = [("iat", |claims| {
        claims.as_object_mut().unwrap().remove("iat");
    })];
    for (name, change) in without {
        assert_eq!(foreign_with(&world, change), Some(DenyReason::TokenClaimsInvalid), "{name}");
    }
    assert!(world.foreign_claims().get("jti").is_none());
}

#[test]
fn typ_must_be_an_access_token() {
    let world = World::typical();
    for (typ, expected) in [
        (json!("application/at+jwt"), None),
        (json!("AT+JWT"), None),
        (json!("JWT"), Some(DenyReason::TokenTypeRefused)),
        (json!("id+jwt"), Some(DenyReason::TokenTypeRefused)),
        (json!(""), Some(DenyReason::TokenTypeRefused)),
        (json!(null), Some(DenyReason::TokenTypeRefused)),
    ] {
        assert_eq!(header_with(&world, |header| header["typ"] = typ.clone()), expected, "{typ}");
    }
}

#[test]
fn headers_that_change_the_meaning_or_bring_keys_are_refused() {
    let world = World::typical();
    for name in ["crit", "b64", "zip", "jku", "x5u", "jwk", "x5c", "enc", "cty"] {
        let refused = header_with(&world, |header| header[name] = json!([]));
        assert_eq!(refused, Some(DenyReason::TokenHeaderRefused), "{name}");
    }
}

#[test]
fn kid_is_required_short_and_looked_up_within_its_issuer() {
    let mut world = World::typical();
    for kid in [json!(""), json!(1), json!(null), json!("x".repeat(129))] {
        let refused = header_with(&world, |header| header["kid"] = kid.clone());
        assert_eq!(refused, Some(DenyReason::TokenHeaderRefused), "{kid}");
    }
    let (unknown, hint) = world.ask(
        "/api/T1/report",
        &bearer(
            &Signer::new("k2", 4)
                .sign(&json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "k2" }), &world.claims()),
        ),
    );
    assert_eq!(unknown, Some(DenyReason::TokenKeyUnknown));
    assert_eq!(hint, Some(Hint::UnknownKey { issuer: OWN.into() }));
    // Both issuers have a "k1"; the other's key does not verify our tokens.
    let forged = world.foreign.sign(&world.foreign.header(), &world.claims());
    assert_eq!(world.ask_with(&forged), Some(DenyReason::TokenSignatureInvalid));
    // Two keys of one set under one kid: neither is used.
    world.trust(vec![world.own.trusted(), Signer::new("k1", 4).trusted()], vec![]);
    assert_eq!(world.ask_with(&world.token()), Some(DenyReason::TokenKeyUnknown));
}

#[test]
fn sizes_are_bounded_before_decoding() {
    let world = World::typical();
    let long = own_with(&world, |claims| claims["x"] = json!("x".repeat(16 * 1024)));
    assert_eq!(long, Some(DenyReason::TokenTooLarge));
    let header = header_with(&world, |header| header["x"] = json!("x".repeat(4 * 1024)));
    assert_eq!(header, Some(DenyReason::TokenTooLarge));
}

#[test]
fn claims_named_twice_are_refused() {
    let world = World::typical();
    let claims = world.claims().to_string();
    let twice = format!("{},\"sub\":\"acme\"}}", claims.trim_end_matches('}'));
    let token = world.own.sign_text(&world.own.header().to_string(), &twice);
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenMalformed));
    let header = r#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1","kid":"k1"}"#;
    let token = world.own.sign_text(header, &claims);
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenMalformed));
}

#[test]
fn what_is_no_compact_jws_is_refused() {
    let world = World::typical();
    let token = world.token();
    let (head, signature) = token.rsplit_once('.').unwrap();
    for bad in [
        "",
        "a",
        "a.b",
        "..",
        "a.b.c.d.e",
        &format!("{token}."),
        &format!("{token}.x.y"),
        &format!("{head}.{signature}=="),
        &format!("{head}.!"),
        head,
    ] {
        let refused = world.ask_with(bad);
        assert!(refused.is_some(), "{bad}");
    }
    let text = URL_SAFE_NO_PAD.encode("[]");
    let header = URL_SAFE_NO_PAD.encode(world.own.header().to_string());
    let refused = world.ask_with(&format!("{header}.{text}.{signature}"));
    assert_eq!(refused, Some(DenyReason::TokenMalformed));
}

#[test]
fn every_flipped_bit_of_a_token_is_noticed() {
    let world = World::typical();
    let token = world.token();
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(world.ask_with(&changed).is_some(), "changed at {at}");
    }
}

#[test]
fn unknown_issuers_are_refused() {
    let world = World::typical();
    for issuer in ["https://evil.test", "https://issuer.test/", "HTTPS://issuer.test"] {
        let refused = own_with(&world, |claims| claims["iss"] = json!(issuer));
        assert_eq!(refused, Some(DenyReason::TokenIssuerUnknown), "{issuer}");
    }
}

#[test]
fn sub_and_client_id_of_our_own_tokens_agree() {
    let world = World::typical();
    let refused = own_with(&world, |claims| claims["sub"] = json!("other"));
    assert_eq!(refused, Some(DenyReason::TokenClaimsInvalid));
}

#[test]
fn the_client_claim_cannot_smuggle_into_headers() {
    let world = World::typical();
    for client in ["a\r\nx: y", "a b", "\u{e9}", "", &"x".repeat(257)] {
        let refused = foreign_with(&world, |claims| claims["azp"] = json!(client));
        assert_eq!(refused, Some(DenyReason::TokenClaimsInvalid), "{client:?}");
    }
}

#[test]
fn the_tenant_claim_may_be_an_array_or_a_list_in_a_string() {
    let world = World::typical();
    for list in [json!("T0,T1"), json!("T0 T1"), json!("T0, T1"), json!(["T0", "T1"])] {
        assert_eq!(foreign_with(&world, |claims| claims["tenants"] = list.clone()), None, "{list}");
    }
    for none in [json!("T0"), json!([]), json!("t1"), json!("T1x")] {
        let refused = foreign_with(&world, |claims| claims["tenants"] = none.clone());
        assert_eq!(refused, Some(DenyReason::TenantNotGranted), "{none}");
    }
    for wrong in [json!(1), json!({ "T1": true }), json!([1, "T1"])] {
        let refused = foreign_with(&world, |claims| claims["tenants"] = wrong.clone());
        assert_eq!(refused, Some(DenyReason::TokenClaimsInvalid), "{wrong}");
    }
    let plain_in_own = own_with(&world, |claims| claims["tenant_list"] = json!(["T1"]));
    assert_eq!(plain_in_own, Some(DenyReason::TokenClaimsInvalid));
}

#[test]
fn a_digest_of_another_client_does_not_help() {
    let mut world = World::typical();
    world.snapshot.clients = book([client("acme"), client("evil")]);
    let stolen = own_with(&world, |claims| {
        claims["sub"] = json!("evil");
        claims["client_id"] = json!("evil");
    });
    assert_eq!(stolen, Some(DenyReason::TenantNotGranted));
}

#[test]
fn scopes_of_our_own_tokens_come_from_scope_alone() {
    let world = World::typical();
    let smuggled = own_with(&world, |claims| {
        claims.as_object_mut().unwrap().remove("scope");
        claims["scp"] = json!("reports.read");
    });
    assert_eq!(smuggled, Some(DenyReason::ScopeMissing));
    assert_eq!(foreign_with(&world, |_| {}), None, "others may write scp");
}

/// Only the other issuer, with a policy of its own and these keys.
fn foreign_only(world: &mut World, policy: IssuerPolicy, keys: Vec<TrustedKey>) {
    let keys = Some(Arc::new(KeySet::new(keys, None)));
    world.snapshot.trust = Arc::new(Trust::new([(Arc::new(policy), keys)]));
}

#[test]
fn a_missing_kid_is_let_pass_only_where_that_is_allowed_and_one_key_fits() {
    let mut world = World::typical();
    let mut header = world.foreign.header();
    header.as_object_mut().unwrap().remove("kid");
    let token = world.foreign.sign(&header, &world.foreign_claims());
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenHeaderRefused));
    let allowed = || IssuerPolicy { allow_missing_kid: true, ..foreign_policy() };
    let key = world.foreign.trusted();
    foreign_only(&mut world, allowed(), vec![key]);
    assert_eq!(world.ask_with(&token), None);
    header["kid"] = json!("another");
    let named = world.foreign.sign(&header, &world.foreign_claims());
    assert_eq!(world.ask_with(&named), Some(DenyReason::TokenKeyUnknown), "a kid counts");
    header["kid"] = json!(5);
    let odd = world.foreign.sign(&header, &world.foreign_claims());
    assert_eq!(world.ask_with(&odd), Some(DenyReason::TokenHeaderRefused));

    let keys = vec![world.foreign.trusted(), Signer::new("k2", 4).trusted()];
    foreign_only(&mut world, allowed(), keys);
    world.cache = Arc::new(FactsCache::new(1 << 20));
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenKeyUnknown), "two keys fit");
    foreign_only(&mut world, allowed(), Vec::new());
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenKeyUnknown), "none fits");
    let own = world.own.trusted();
    foreign_only(&mut world, allowed(), vec![own]);
    assert_eq!(world.ask_with(&token), Some(DenyReason::TokenSignatureInvalid));
}

#[test]
fn what_another_issuer_s_tenant_claim_is_can_be_said() {
    let mut world = World::typical();
    let key = || world.foreign.trusted();
    let (granted, not) = (None, Some(DenyReason::TenantNotGranted));
    let wrong = Some(DenyReason::TokenClaimsInvalid);
    let cases = [
        (TenantsOf::Values, json!(["T1", 5]), granted),
        (TenantsOf::Values, json!([5]), not),
        (TenantsOf::Values, json!([1.5, "T1"]), wrong),
        (TenantsOf::Values, json!([true, "T1"]), wrong),
        (TenantsOf::Values, json!([["T1"]]), wrong),
        (TenantsOf::Values, json!("T1"), wrong),
        (TenantsOf::Keys, json!({ "T1": { "role": "x" } }), granted),
        (TenantsOf::Keys, json!({ "T2": "T1" }), not),
        (TenantsOf::Keys, json!(["T1"]), wrong),
        (TenantsOf::Text, json!("T0, T1"), granted),
        (TenantsOf::Text, json!(["T1"]), wrong),
    ];
    let keys: Vec<_> = cases.iter().map(|_| key()).collect();
    for ((of, claim, expected), key) in cases.into_iter().zip(keys) {
        let policy = IssuerPolicy { tenants_of: Some(of), ..foreign_policy() };
        foreign_only(&mut world, policy, vec![key]);
        let asked = foreign_with(&world, |claims| claims["tenants"] = claim.clone());
        assert_eq!(asked, expected, "{of:?} {claim}");
    }
    let policy = IssuerPolicy { tenants_of: Some(TenantsOf::Values), ..foreign_policy() };
    let key = world.foreign.trusted();
    foreign_only(&mut world, policy, vec![key]);
    let mut claims = world.foreign_claims();
    claims["tenants"] = json!([1001]);
    let token = world.foreign.sign(&world.foreign.header(), &claims);
    assert_eq!(world.ask("/api/1001/report", &bearer(&token)).0, None);
}
