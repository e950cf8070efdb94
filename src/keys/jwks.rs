//! JSON Web Keys (RFC 7517, RFC 7518, RFC 8037), ours and other people's.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::authz::IssuerPolicy;
use crate::authz::trust::{Curve, KeyError, KeySet, PublicKey, TrustedKey};
use crate::domain::{Algorithm, Problem};

/// Real sets hold two to ten keys of one to two kilobytes.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;
pub const MAX_JWKS_KEYS: usize = 100;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    #[error("larger than {MAX_JWKS_BYTES} bytes")]
    TooLarge,
    #[error("more than {MAX_JWKS_KEYS} keys")]
    TooManyKeys,
    #[error("not a JWKS document: {0}")]
    Malformed(String),
}

/// Why one entry of a set is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    #[error("not a JWK: {0}")]
    Malformed(String),
    #[error("no kid")]
    NoKid,
    #[error("kty {0:?} is not used for signatures that are accepted here")]
    KeyType(String),
    #[error("private or symmetric key material in a public key")]
    Private,
    #[error("not meant for verifying signatures (use, key_ops)")]
    Purpose,
    #[error("its algorithm is not among the accepted ones")]
    Algorithm,
    #[error("{0} is missing or not base64url")]
    Number(&'static str),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A public key with its name and the one algorithm it is used with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicJwk {
    pub kid: String,
    pub algorithm: Algorithm,
    pub key: PublicKey,
}

/// The members that matter; a member given twice is an error, others are ignored.
#[derive(Deserialize)]
struct RawJwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawSet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// Which keys of a set are of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedKeys {
    /// Keys for other algorithms are not used.
    pub algorithms: Vec<Algorithm>,
    /// Those without `kid` too; they are called by their thumbprint (RFC 7638).
    pub nameless: bool,
}

impl WantedKeys {
    /// Ours have names.
    pub fn named(algorithms: &[Algorithm]) -> Self {
        Self { algorithms: algorithms.to_vec(), nameless: false }
    }

    /// Those that this issuer's tokens may be signed with.
    pub fn of(policy: &IssuerPolicy) -> Self {
        Self { algorithms: policy.algorithms.clone(), nameless: policy.allow_missing_kid }
    }
}

/// A key that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the set.
    pub at: usize,
    pub why: String,
}

/// Says of each key that is not used why; to be called once a change.
pub fn tell_skipped(issuer: &str, skipped: &[SkippedKey], used: usize) {
    for SkippedKey { at, why } in skipped {
        tracing::warn!(issuer, key = at, %why, used, "a key of this issuer is not used");
    }
}

/// The usable keys of a set, and those that are not. One bad entry never spoils the others, because
/// an issuer may publish kinds of keys that are not known here.
pub fn parse_jwks(
    bytes: &[u8],
    wanted: &WantedKeys,
) -> Result<(Vec<TrustedKey>, Vec<SkippedKey>), JwksError> {
    if bytes.len() > MAX_JWKS_BYTES {
        return Err(JwksError::TooLarge);
    }
    let set: RawSet<'_> =
        serde_json::from_slice(bytes).map_err(|error| JwksError::Malformed(error.to_string()))?;
    if set.keys.len() > MAX_JWKS_KEYS {
        return Err(JwksError::TooManyKeys);
    }
    let (mut keys, mut skipped) = (Vec::new(), Vec::new());
    for (at, entry) in set.keys.iter().enumerate() {
        match PublicJwk::parse(entry.get(), wanted).and_then(|key| key.trusted()) {
            Ok(key) => keys.push(key),
            Err(error) => skipped.push(SkippedKey { at, why: error.to_string() }),
        }
    }
    Ok((keys, skipped))
}

/// Another issuer's key set from a file. It never goes out of date by itself.
#[derive(Debug)]
pub struct FileKeys {
    /// The usable keys.
    pub set: KeySet,
    /// The others, and why each is not used.
    pub skipped: Vec<SkippedKey>,
    /// Set where no key is left: that is what the file says, but rarely what is meant.
    pub problem: Option<Problem>,
}

/// `field` names the setting in a problem.
pub fn read_jwks_file(field: &str, path: &Path, wanted: &WantedKeys) -> Result<FileKeys, Problem> {
    let problem = |what: String, cure: &str| Problem {
        field: field.to_owned(),
        message: format!("{}: {what}; {cure}", path.display()),
    };
    let bytes = std::fs::read(path)
        .map_err(|error| problem(error.to_string(), "name a readable JWKS file"))?;
    let (keys, skipped) = parse_jwks(&bytes, wanted)
        .map_err(|error| problem(error.to_string(), "put the issuer's JWKS document there"))?;
    let set = KeySet::new(keys, None);
    let cure = "check kid, alg, use and the issuer's `algorithms`";
    let none = set.is_empty().then(|| problem("no usable key".to_owned(), cure));
    Ok(FileKeys { set, skipped, problem: none })
}

impl PublicJwk {
    pub fn parse(json: &str, wanted: &WantedKeys) -> Result<Self, JwkError> {
        let allowed = &wanted.algorithms;
        let raw: RawJwk =
            serde_json::from_str(json).map_err(|error| JwkError::Malformed(error.to_string()))?;
        if raw.has_private_members() {
            return Err(JwkError::Private);
        }
        if !raw.is_for_verifying() {
            return Err(JwkError::Purpose);
        }
        let key = raw.public_key()?;
        let algorithm = match &raw.alg {
            Some(name) => Algorithm::parse(name).filter(|algorithm| fits(*algorithm, &key)),
            // RSA without `alg` is RS256 where both RS256 and PS256 are accepted: a key is pinned
            // to one of them, and issuers that sign with PS256 say so.
            None => [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa]
                .into_iter()
                .chain([Algorithm::Rs256, Algorithm::Ps256])
                .find(|algorithm| fits(*algorithm, &key) && allowed.contains(algorithm)),
        };
        let algorithm = algorithm.filter(|algorithm| allowed.contains(algorithm));
        Ok(Self {
            kid: match raw.kid {
                Some(kid) => kid,
                None if wanted.nameless => thumbprint(&key),
                None => return Err(JwkError::NoKid),
            },
            algorithm: algorithm.ok_or(JwkError::Algorithm)?,
            key,
        })
    }

    pub fn trusted(&self) -> Result<TrustedKey, JwkError> {
        Ok(TrustedKey::new(&self.kid, self.algorithm, &self.key)?)
    }

    /// The published form. Made from the numbers alone, so it cannot carry anything else.
    pub fn to_json(&self) -> Value {
        let mut json = numbers(&self.key);
        json["kid"] = json!(self.kid);
        json["alg"] = json!(self.algorithm.as_str());
        json["use"] = json!("sig");
        json
    }
}

impl RawJwk {
    fn has_private_members(&self) -> bool {
        [&self.d, &self.p, &self.q, &self.dp, &self.dq, &self.qi, &self.oth, &self.k]
            .into_iter()
            .any(Option::is_some)
    }

    fn is_for_verifying(&self) -> bool {
        self.usage.as_ref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"))
    }

    fn public_key(&self) -> Result<PublicKey, JwkError> {
        let curve = self.crv.as_deref().unwrap_or_default();
        let ec =
            |curve| Ok(PublicKey::Ec { curve, x: number("x", &self.x)?, y: number("y", &self.y)? });
        match (self.kty.as_str(), curve) {
            ("EC", "P-256") => ec(Curve::P256),
            ("EC", "P-384") => ec(Curve::P384),
            ("OKP", "Ed25519") => Ok(PublicKey::Ed25519(number("x", &self.x)?)),
            ("RSA", _) => Ok(PublicKey::Rsa { n: number("n", &self.n)?, e: number("e", &self.e)? }),
            _ => Err(JwkError::KeyType(format!("{} {curve}", self.kty))),
        }
    }
}

fn number(name: &'static str, text: &Option<String>) -> Result<Vec<u8>, JwkError> {
    let bytes = text.as_ref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.ok_or(JwkError::Number(name))
}

fn fits(algorithm: Algorithm, key: &PublicKey) -> bool {
    match algorithm {
        Algorithm::Es256 => matches!(key, PublicKey::Ec { curve: Curve::P256, .. }),
        Algorithm::Es384 => matches!(key, PublicKey::Ec { curve: Curve::P384, .. }),
        Algorithm::EdDsa => matches!(key, PublicKey::Ed25519(_)),
        Algorithm::Rs256 | Algorithm::Ps256 => matches!(key, PublicKey::Rsa { .. }),
    }
}

/// The members that make up a public key, and no others.
fn numbers(key: &PublicKey) -> Value {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match key {
        PublicKey::Ec { curve, x, y } => {
            let crv = match curve {
                Curve::P256 => "P-256",
                Curve::P384 => "P-384",
            };
            json!({"kty": "EC", "crv": crv, "x": text(x), "y": text(y)})
        }
        PublicKey::Ed25519(x) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(x)}),
        PublicKey::Rsa { n, e } => json!({"kty": "RSA", "n": text(n), "e": text(e)}),
    }
}

/// RFC 7638 with SHA-256.
pub fn thumbprint(key: &PublicKey) -> String {
    serde_json::from_value::<Jwk>(numbers(key))
        .map_err(jsonwebtoken::errors::Error::from)
        .and_then(|jwk| jwk.thumbprint(ThumbprintHash::SHA256))
        .unwrap_or_else(|error| unreachable!("every kind of key has a thumbprint: {error}"))
}

#[cfg(test)]
mod tests {
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
        assert!(
            parse(&with("ES256", "key_ops", json!(["verify"])), &super::Algorithm::ALL).is_ok()
        );
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
        for malformed in [
            "",
            "<html>",
            "[]",
            "{}",
            "{\"keys\":{}}",
            "{\"keys\":[],\"keys\":[]}",
            "{\"keys\":[]}x",
        ]
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
        let set =
            json!({"keys": [key("ES256"), without("ES256", "kid"), key("EdDSA"), key("EdDSA")]});
        std::fs::write(&path, set.to_string()).unwrap();
        let FileKeys { set, problem, .. } = read().unwrap();
        assert_eq!((set.len(), set.dropped(), problem), (1, 2, None));
        assert!(set.get("ES256").is_some());
    }
}
