use std::sync::LazyLock;

use super::*;

fn all() -> WantedKeys {
    WantedKeys::named(&Algorithm::ALL)
}
use crate::keys::{KeyPair, SigningAlgorithm};

/// A key of each kind, as it is published. Making an RSA key takes a while.
static KEYS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    SigningAlgorithm::ALL
        .iter()
        .map(|signing| {
            let pair = KeyPair::generate(*signing).unwrap();
            let algorithm = Algorithm::from(*signing);
            let kid = algorithm.as_str().to_owned();
            PublicJwk { kid, algorithm, key: pair.public_key() }.to_json()
        })
        .collect()
});

fn key(name: &str) -> Value {
    KEYS.iter().find(|key| key["kid"] == name).unwrap().clone()
}

fn with(name: &str, member: &str, value: Value) -> Value {
    let mut key = key(name);
    key[member] = value;
    key
}

fn without(name: &str, member: &str) -> Value {
    let mut key = key(name);
    key.as_object_mut().unwrap().remove(member).unwrap();
    key
}

fn parse(key: &Value, allowed: &[Algorithm]) -> Result<TrustedKey, JwkError> {
    PublicJwk::parse(&key.to_string(), &WantedKeys::named(allowed))?.trusted()
}

fn parse_error(key: &Value) -> JwkError {
    parse(key, &Algorithm::ALL).unwrap_err()
}

#[test]
fn reads_what_it_writes_and_ignores_what_it_does_not_know() {
    let mut keys = KEYS.clone();
    keys[0]["x5t"] = json!("whatever");
    let set = json!({"keys": keys, "more": 1}).to_string();
    let (keys, skipped) = parse_jwks(set.as_bytes(), &all()).unwrap();
    let names: Vec<_> = keys.iter().map(|key| (key.kid(), key.algorithm().as_str())).collect();
    assert_eq!(names, [("ES256", "ES256"), ("EdDSA", "EdDSA"), ("RS256", "RS256")]);
    assert_eq!(skipped, []);
}

/// RFC 8037, appendix A.2 and A.3, and RFC 7515, appendix A.3.
#[test]
fn reads_the_keys_of_the_rfcs() {
    let ed = json!({"kty": "OKP", "crv": "Ed25519", "kid": "a",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let ed = PublicJwk::parse(&ed.to_string(), &all()).unwrap();
    assert_eq!(thumbprint(&ed.key), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let ec = json!({"kty": "EC", "crv": "P-256", "kid": "b",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let ec = PublicJwk::parse(&ec.to_string(), &all()).unwrap();
    assert_eq!((ec.algorithm, ec.trusted().is_ok()), (Algorithm::Es256, true));
}

/// RFC 7638, section 3.1.
#[test]
fn thumbprints_are_those_of_rfc_7638() {
    let rsa = json!({"kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29", "n":
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhD\
         R1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6C\
         f0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1\
         n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1\
         jF44-csFCur-kEgU8awapJzKnqDKgw"});
    let rsa = PublicJwk::parse(&rsa.to_string(), &all()).unwrap();
    assert_eq!(thumbprint(&rsa.key), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert!(rsa.trusted().is_ok());
}

#[test]
fn an_entry_that_must_not_be_used_is_refused() {
    use JwkError::*;
    for (key, error) in [
        (without("ES256", "kid"), NoKid),
        (with("ES256", "kid", json!("")), Key(KeyError::Kid)),
        (with("ES256", "kid", json!("k".repeat(129))), Key(KeyError::Kid)),
        (with("ES256", "use", json!("enc")), Purpose),
        (with("ES256", "use", json!("SIG")), Purpose),
        (with("ES256", "key_ops", json!(["sign"])), Purpose),
        (with("ES256", "key_ops", json!([])), Purpose),
        (with("ES256", "alg", json!("ES384")), Algorithm),
        (with("ES256", "alg", json!("none")), Algorithm),
        (with("RS256", "alg", json!("HS256")), Algorithm),
        (with("RS256", "alg", json!("ES256")), Algorithm),
        (with("EdDSA", "alg", json!("RS256")), Algorithm),
        (with("ES256", "d", json!("AA")), Private),
        (with("EdDSA", "d", json!(1)), Private),
        (with("RS256", "qi", json!("AA")), Private),
        (with("RS256", "oth", json!([])), Private),
        (with("RS256", "k", json!("AA")), Private),
        (with("ES256", "x", json!("AA")), Key(KeyError::Length)),
        (with("ES256", "y", key("ES256")["x"].clone()), Key(KeyError::Rejected)),
        (with("ES256", "x", json!("a+/=")), Number("x")),
        (without("ES256", "y"), Number("y")),
        (without("RS256", "e"), Number("e")),
        (with("RS256", "n", json!("u7u7uw")), Key(KeyError::RsaModulus)),
        (with("RS256", "e", json!("AQ")), Key(KeyError::RsaExponent)),
        (with("EdDSA", "x", json!("AAAA")), Key(KeyError::Length)),
        (with("ES256", "crv", json!("P-384")), Algorithm),
        (with("ES256", "crv", json!("P-521")), KeyType("EC P-521".into())),
        (with("EdDSA", "crv", json!("X25519")), KeyType("OKP X25519".into())),
        (with("RS256", "kty", json!("rsa")), KeyType("rsa ".into())),
        (json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"}), Private),
        (json!({"kty": "oct", "kid": "s"}), KeyType("oct ".into())),
    ] {
        assert_eq!(parse_error(&key), error, "{key}");
    }
    for malformed in [
        json!(1),
        json!("ES256"),
        json!([]),
        json!({}),
        with("ES256", "kid", json!(7)),
        with("ES256", "use", json!(["sig"])),
        with("ES256", "x", json!({})),
        with("ES256", "key_ops", json!("verify")),
    ] {
        assert!(matches!(parse_error(&malformed), Malformed(_)), "{malformed}");
    }
    let twice = key("ES256").to_string().replacen('{', "{\"alg\":\"ES256\",", 1);
    assert!(matches!(PublicJwk::parse(&twice, &all()), Err(Malformed(_))));
    assert!(parse(&with("ES256", "key_ops", json!(["verify"])), &super::Algorithm::ALL).is_ok());
}

#[test]
fn a_key_without_alg_is_pinned_to_the_accepted_one_that_fits() {
    let pinned = |name, allowed: &[Algorithm]| {
        parse(&without(name, "alg"), allowed).map(|key| key.algorithm())
    };
    use Algorithm::*;
    assert_eq!(pinned("ES256", &[Rs256, Es256]), Ok(Es256));
    assert_eq!(pinned("ES256", &[Es384, Rs256]), Err(JwkError::Algorithm));
    assert_eq!(pinned("EdDSA", &super::Algorithm::ALL), Ok(EdDsa));
    assert_eq!(pinned("RS256", &[Ps256]), Ok(Ps256));
    assert_eq!(pinned("RS256", &[Ps256, Rs256]), Ok(Rs256));
    let said = with("RS256", "alg", json!("PS256"));
    assert_eq!(parse(&said, &super::Algorithm::ALL).map(|key| key.algorithm()), Ok(Ps256));
    assert_eq!(parse(&said, &[Rs256]).map(|key| key.algorithm()), Err(JwkError::Algorithm));
}

#[test]
fn one_bad_entry_does_not_spoil_the_others() {
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let set = format!("{{\"keys\":[{deep},null,{},{{\"kty\":\"XY\"}}]}}", key("ES256"));
    let (keys, skipped) = parse_jwks(set.as_bytes(), &all()).unwrap();
    assert_eq!((keys.len(), skipped.len()), (1, 3));
}

#[test]
fn what_is_no_set_or_too_much_is_refused() {
    let parse = |text: &str| parse_jwks(text.as_bytes(), &all()).unwrap_err();
    let deep = "[".repeat(100_000);
    for malformed in
        ["", "<html>", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[],\"keys\":[]}", "{\"keys\":[]}x"]
            .into_iter()
            .chain([deep.as_str()])
    {
        assert!(matches!(parse(malformed), JwksError::Malformed(_)), "{malformed:.20}");
    }
    let of = |count: usize| format!("{{\"keys\":[{}]}}", vec!["0"; count].join(","));
    assert_eq!(parse_jwks(of(100).as_bytes(), &all()).unwrap().1.len(), 100);
    assert_eq!(parse(&of(101)), JwksError::TooManyKeys);
    assert_eq!(parse(&of(100_000)), JwksError::TooManyKeys);
    let padded = format!("{}{}", of(1), " ".repeat(MAX_JWKS_BYTES));
    assert_eq!(parse(&padded), JwksError::TooLarge);
    assert!(parse_jwks(b"{\"keys\":[]}", &all()).unwrap().0.is_empty());
}

#[test]
fn a_file_gives_its_keys_or_a_problem_that_names_field_file_and_cure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let read = || read_jwks_file("issuers[0].jwks_file", &path, &all());
    let missing = read().unwrap_err().to_string();
    assert!(missing.starts_with("issuers[0].jwks_file: "), "{missing}");
    assert!(missing.contains("jwks.json: No such file"), "{missing}");
    std::fs::write(&path, "<html>").unwrap();
    assert!(read().unwrap_err().to_string().contains("not a JWKS document"));
    std::fs::write(&path, json!({"keys": [without("ES256", "kid")]}).to_string()).unwrap();
    let FileKeys { set, problem, .. } = read().unwrap();
    assert!(set.is_empty() && problem.unwrap().to_string().contains("no usable key"));
    let set = json!({"keys": [key("ES256"), without("ES256", "kid"), key("EdDSA"), key("EdDSA")]});
    std::fs::write(&path, set.to_string()).unwrap();
    let FileKeys { set, problem, .. } = read().unwrap();
    assert_eq!((set.len(), set.dropped(), problem), (1, 2, None));
    assert!(set.get("ES256").is_some());
}
