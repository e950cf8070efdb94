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
mod tests;
