//! Public keys that are trusted to sign tokens, each pinned to one algorithm and parsed once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use jsonwebtoken::{DecodingKey, crypto};

use crate::domain::{Algorithm, Monotonic};

/// The longest `kid` of a key, in characters rather than bytes.
pub const MAX_KID_CHARS: usize = 128;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Longer exponents only make verification slow.
const MAX_RSA_EXPONENT: u64 = (1 << 33) - 1;

/// The curves of ECDSA keys (RFC 7518, section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// For ES256.
    P256,
    /// For ES384.
    P384,
}

impl Curve {
    /// The bytes of one coordinate.
    pub const fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A public key as its numbers, big-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// A point of ECDSA. Both coordinates have exactly [`Curve::size`] bytes.
    Ec {
        /// The curve that the point is on.
        curve: Curve,
        /// The first coordinate.
        x: Vec<u8>,
        /// The second coordinate.
        y: Vec<u8>,
    },
    /// The 32 bytes of RFC 8032, section 5.1.5.
    Ed25519(Vec<u8>),
    /// Leading zeros of both numbers are ignored.
    Rsa {
        /// The modulus: odd, 2048 to 8192 bits.
        n: Vec<u8>,
        /// The exponent: odd, at least 3 and below 2^33.
        e: Vec<u8>,
    },
}

/// Why a key is not trusted. The texts name no key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The `kid` is empty or over [`MAX_KID_CHARS`].
    #[error("kid must have 1 to {MAX_KID_CHARS} characters")]
    Kid,
    /// Such as an RSA key for ES256, or P-256 for ES384.
    #[error("the key's type or curve does not fit its algorithm")]
    AlgorithmMismatch,
    /// Not [`Curve::size`] bytes for a coordinate, or not 32 for Ed25519.
    #[error("a coordinate or the key has the wrong length")]
    Length,
    /// Even, or not of 2048 to 8192 bits.
    #[error("the RSA modulus must be odd and have 2048 to 8192 bits")]
    RsaModulus,
    /// Even, below 3, or 2^33 or more.
    #[error("the RSA exponent must be odd, at least 3 and below 2^33")]
    RsaExponent,
    /// The cryptographic library refuses the numbers.
    #[error("these numbers are not a public key, for example a point that is not on the curve")]
    Rejected,
}

impl From<KeyRejected> for KeyError {
    fn from(_: KeyRejected) -> Self {
        Self::Rejected
    }
}

/// A public key that may verify the signatures of one algorithm.
pub struct TrustedKey {
    kid: Box<str>,
    algorithm: Algorithm,
    key: DecodingKey,
    numbers: PublicKey,
    fingerprint: [u8; 32],
}

impl TrustedKey {
    /// Checks the key: only what is good can verify.
    pub fn new(kid: &str, algorithm: Algorithm, key: &PublicKey) -> Result<Self, KeyError> {
        if !(1..=MAX_KID_CHARS).contains(&kid.chars().count()) {
            return Err(KeyError::Kid);
        }
        let (parsed, canonical) = parse(algorithm, key)?;
        Ok(Self {
            kid: kid.into(),
            algorithm,
            key: parsed,
            numbers: key.clone(),
            fingerprint: fingerprint(algorithm, &canonical),
        })
    }

    /// Unique within a [`KeySet`], but not across issuers.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The only `alg` that a token with this key may have.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key as it was given to [`TrustedKey::new`].
    pub fn numbers(&self) -> &PublicKey {
        &self.numbers
    }

    /// Whether `signature` is this key's, as a JWS carries it: in base64url, for ECDSA `r || s` of
    /// exactly twice the coordinate's length. ECDSA signatures are malleable: `r || n - s` is
    /// accepted too, so a signature or a token's bytes identify nothing.
    pub fn verify(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = match self.algorithm {
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        };
        crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }

    /// SHA-256 over the algorithm and the key: the same for the same key under any `kid`.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKey({} {:?})", self.algorithm.as_str(), self.kid)
    }
}

/// The key, and bytes that are equal exactly for equal keys of one algorithm. `jsonwebtoken` looks
/// at a key when it verifies with it; here it is looked at before anybody trusts it.
fn parse(algorithm: Algorithm, key: &PublicKey) -> Result<(DecodingKey, Vec<u8>), KeyError> {
    match (algorithm, key) {
        (Algorithm::Es256, PublicKey::Ec { curve: Curve::P256, x, y }) => {
            let point = uncompressed(Curve::P256, x, y)?;
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)?;
            Ok((DecodingKey::from_ec_der(&point), point))
        }
        (Algorithm::Es384, PublicKey::Ec { curve: Curve::P384, x, y }) => {
            let point = uncompressed(Curve::P384, x, y)?;
            ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point)?;
            Ok((DecodingKey::from_ec_der(&point), point))
        }
        (Algorithm::EdDsa, PublicKey::Ed25519(bytes)) => {
            if bytes.len() != 32 {
                return Err(KeyError::Length);
            }
            ParsedPublicKey::new(&ED25519, bytes)?;
            Ok((DecodingKey::from_ed_der(bytes), bytes.clone()))
        }
        (Algorithm::Rs256 | Algorithm::Ps256, PublicKey::Rsa { n, e }) => {
            let (n, e) = rsa(n, e)?;
            let numbers = RsaPublicKeyComponents { n, e };
            numbers.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)?;
            let canonical = [&(n.len() as u64).to_be_bytes(), n, e].concat();
            Ok((DecodingKey::from_rsa_raw_components(n, e), canonical))
        }
        (
            Algorithm::Es256
            | Algorithm::Es384
            | Algorithm::EdDsa
            | Algorithm::Rs256
            | Algorithm::Ps256,
            _,
        ) => Err(KeyError::AlgorithmMismatch),
    }
}

fn uncompressed(curve: Curve, x: &[u8], y: &[u8]) -> Result<Vec<u8>, KeyError> {
    if x.len() != curve.size() || y.len() != curve.size() {
        return Err(KeyError::Length);
    }
    Ok([&[4], x, y].concat())
}

/// Both numbers without leading zeros.
fn rsa<'a>(n: &'a [u8], e: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), KeyError> {
    let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) || n.last().is_none_or(|last| last % 2 == 0) {
        return Err(KeyError::RsaModulus);
    }
    if e.len() > size_of::<u64>() {
        return Err(KeyError::RsaExponent);
    }
    let exponent = e.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    if !(3..=MAX_RSA_EXPONENT).contains(&exponent) || exponent % 2 == 0 {
        return Err(KeyError::RsaExponent);
    }
    Ok((n, e))
}

/// RFC 7518 forbids them, yet libraries that write signed numbers put one in front of the modulus.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn fingerprint(algorithm: Algorithm, canonical: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(algorithm.as_str().as_bytes());
    context.update(&[0]);
    context.update(canonical);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// One issuer's keys by `kid`.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: HashMap<Box<str>, Arc<TrustedKey>>,
    dropped: usize,
    good_until: Option<Monotonic>,
}

impl KeySet {
    /// Keys that share a `kid` are all dropped: choosing one would be a guess. `good_until` is when
    /// the set is no longer trusted unless it is renewed; `None`: it does not expire.
    pub fn new(keys: Vec<TrustedKey>, good_until: Option<Monotonic>) -> Self {
        let given = keys.len();
        let mut by_kid: HashMap<Box<str>, Vec<TrustedKey>> = HashMap::with_capacity(given);
        for key in keys {
            by_kid.entry(key.kid.clone()).or_default().push(key);
        }
        let alone = |sharing: Vec<TrustedKey>| <[TrustedKey; 1]>::try_from(sharing).ok();
        let keys: HashMap<_, _> = by_kid
            .into_iter()
            .filter_map(|(kid, sharing)| alone(sharing).map(|[key]| (kid, Arc::new(key))))
            .collect();
        Self { dropped: given - keys.len(), keys, good_until }
    }

    /// `None`: unknown, or dropped because its `kid` was shared.
    pub fn get(&self, kid: &str) -> Option<&Arc<TrustedKey>> {
        self.keys.get(kid)
    }

    /// How many keys were dropped because they shared their `kid`.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The end given to [`KeySet::new`]; `None`: the set does not expire.
    pub fn good_until(&self) -> Option<Monotonic> {
        self.good_until
    }

    /// False from [`KeySet::good_until`] on.
    pub fn good_at(&self, now: Monotonic) -> bool {
        self.good_until.is_none_or(|until| now < until)
    }

    /// In no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TrustedKey>> {
        self.keys.values()
    }

    /// Without the keys that were dropped.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Also true if every key was dropped.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests;
