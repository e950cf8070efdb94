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
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaEncoding, RsaKeyPair,
    };

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const MESSAGE: &[u8] = b"header.payload";

    /// A key of every algorithm with its signature over `MESSAGE`.
    fn signed() -> Vec<(Algorithm, PublicKey, Vec<u8>)> {
        let ec = |algorithm, curve: Curve, signing: &'static EcdsaSigningAlgorithm| {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(curve.size());
            let key = PublicKey::Ec { curve, x: x.into(), y: y.into() };
            let signature = pair.sign(&SystemRandom::new(), MESSAGE).unwrap();
            (algorithm, key, signature.as_ref().to_vec())
        };
        let rsa_pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa = |algorithm, padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; rsa_pair.public_modulus_len()];
            rsa_pair.sign(padding, &SystemRandom::new(), MESSAGE, &mut signature).unwrap();
            (algorithm, rsa_numbers(&rsa_pair), signature)
        };
        let ed = Ed25519KeyPair::generate().unwrap();
        let ed_key = PublicKey::Ed25519(ed.public_key().as_ref().to_vec());
        vec![
            ec(Algorithm::Es256, Curve::P256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            ec(Algorithm::Es384, Curve::P384, &ECDSA_P384_SHA384_FIXED_SIGNING),
            (Algorithm::EdDsa, ed_key, ed.sign(MESSAGE).as_ref().to_vec()),
            rsa(Algorithm::Rs256, &RSA_PKCS1_SHA256),
            rsa(Algorithm::Ps256, &RSA_PSS_SHA256),
        ]
    }

    fn verify(key: &TrustedKey, message: &[u8], signature: &[u8]) -> bool {
        key.verify(message, &URL_SAFE_NO_PAD.encode(signature))
    }

    fn rsa_numbers(pair: &RsaKeyPair) -> PublicKey {
        let numbers = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        PublicKey::Rsa { n: numbers.n, e: numbers.e }
    }

    fn error(algorithm: Algorithm, key: &PublicKey) -> KeyError {
        TrustedKey::new("k", algorithm, key).unwrap_err()
    }

    fn ed25519(kid: &str) -> TrustedKey {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = PublicKey::Ed25519(pair.public_key().as_ref().to_vec());
        TrustedKey::new(kid, Algorithm::EdDsa, &key).unwrap()
    }

    #[test]
    fn a_true_signature_passes_and_every_changed_one_fails() {
        for (algorithm, key, signature) in signed() {
            let key = TrustedKey::new("k", algorithm, &key).unwrap();
            assert!(verify(&key, MESSAGE, &signature), "{algorithm:?}");
            assert!(!verify(&key, b"header.payloaf", &signature), "{algorithm:?}");
            for at in 0..signature.len() {
                let mut changed = signature.clone();
                changed[at] ^= 1;
                assert!(!verify(&key, MESSAGE, &changed), "{algorithm:?} byte {at}");
            }
        }
    }

    #[test]
    fn a_signature_of_any_other_length_fails() {
        for (algorithm, key, signature) in signed() {
            let key = TrustedKey::new("k", algorithm, &key).unwrap();
            for length in 0..signature.len() {
                assert!(!verify(&key, MESSAGE, &signature[..length]), "{algorithm:?} {length}");
            }
            let longer = [&signature[..], &[0]].concat();
            let padded = [&[0], &signature[..]].concat();
            let doubled = [&signature[..], &signature[..]].concat();
            for wrong in [longer, padded, doubled] {
                assert!(!verify(&key, MESSAGE, &wrong), "{algorithm:?} {}", wrong.len());
            }
        }
    }

    #[test]
    fn an_ecdsa_signature_in_der_or_of_zeros_fails() {
        let pair =
            EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let key = PublicKey::Ec { curve: Curve::P256, x: x.into(), y: y.into() };
        let key = TrustedKey::new("k", Algorithm::Es256, &key).unwrap();
        let der = pair.sign(&SystemRandom::new(), MESSAGE).unwrap();
        assert!(!verify(&key, MESSAGE, der.as_ref()));
        assert!(!verify(&key, MESSAGE, &[0; 64]));
    }

    /// Not wanted, but inherent in ECDSA: it keeps the comment at `verify` true.
    #[test]
    fn the_other_half_of_an_ecdsa_signature_is_accepted() {
        const ORDER: [u8; 32] = [
            0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2,
            0xfc, 0x63, 0x25, 0x51,
        ];
        let (algorithm, key, mut signature) = signed().swap_remove(0);
        let key = TrustedKey::new("k", algorithm, &key).unwrap();
        let mut borrow = false;
        for at in (0..32).rev() {
            let (partly, first) = ORDER[at].overflowing_sub(signature[32 + at]);
            let (byte, second) = partly.overflowing_sub(u8::from(borrow));
            signature[32 + at] = byte;
            borrow = first || second;
        }
        assert!(verify(&key, MESSAGE, &signature));
    }

    #[test]
    fn another_key_or_algorithm_does_not_verify() {
        let (all, others) = (signed(), signed());
        for ((algorithm, key, _), (_, _, foreign)) in all.iter().zip(&others) {
            let key = TrustedKey::new("k", *algorithm, key).unwrap();
            assert!(!verify(&key, MESSAGE, foreign));
        }
        let (_, rsa_key, pkcs1_signature) = &all[3];
        let pss = TrustedKey::new("k", Algorithm::Ps256, rsa_key).unwrap();
        assert!(!verify(&pss, MESSAGE, pkcs1_signature));
    }

    #[test]
    fn a_key_fits_only_its_own_algorithm() {
        for (own, key, _) in signed() {
            for algorithm in Algorithm::ALL {
                let is_rsa = |a| matches!(a, Algorithm::Rs256 | Algorithm::Ps256);
                let fits = algorithm == own || is_rsa(algorithm) && is_rsa(own);
                let result = TrustedKey::new("k", algorithm, &key);
                assert_eq!(result.err(), (!fits).then_some(KeyError::AlgorithmMismatch));
            }
        }
    }

    #[test]
    fn a_point_off_the_curve_or_of_another_length_is_refused() {
        let all = signed();
        for (algorithm, key, _) in &all[..2] {
            let PublicKey::Ec { curve, x, y } = key.clone() else { panic!("not EC") };
            let mut off = y.clone();
            off[5] ^= 1;
            let with = |x: &[u8], y: &[u8]| PublicKey::Ec { curve, x: x.into(), y: y.into() };
            assert_eq!(error(*algorithm, &with(&x, &off)), KeyError::Rejected);
            let zeros = vec![0; curve.size()];
            assert_eq!(error(*algorithm, &with(&zeros, &zeros)), KeyError::Rejected);
            let field = vec![0xff; curve.size()];
            assert_eq!(error(*algorithm, &with(&field, &y)), KeyError::Rejected);
            assert_eq!(error(*algorithm, &with(&x[1..], &y)), KeyError::Length);
            assert_eq!(error(*algorithm, &with(&x, &[&y[..], &[0]].concat())), KeyError::Length);
            assert_eq!(error(*algorithm, &with(&[], &[])), KeyError::Length);
        }
        for length in [0, 31, 33, 44, 64] {
            let key = PublicKey::Ed25519(vec![1; length]);
            assert_eq!(error(Algorithm::EdDsa, &key), KeyError::Length);
        }
    }

    #[test]
    fn rsa_numbers_outside_the_bounds_are_refused() {
        let PublicKey::Rsa { n, e } = rsa_numbers(&RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
        else {
            panic!("not RSA")
        };
        let with = |n: &[u8], e: &[u8]| PublicKey::Rsa { n: n.into(), e: e.into() };
        for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
            let mut even = n.clone();
            *even.last_mut().unwrap() &= 0xfe;
            let mut short = n.clone();
            short[0] &= 0x7f;
            let mut long = vec![0xff; 8192 / 8];
            assert!(TrustedKey::new("k", algorithm, &with(&long, &e)).is_ok());
            long.push(0xff);
            for bad in [&[][..], &[0], &even, &short, &n[1..], &long] {
                assert_eq!(error(algorithm, &with(bad, &e)), KeyError::RsaModulus);
            }
            for bad in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[2, 0, 0, 0, 1], &[1; 9]] {
                assert_eq!(error(algorithm, &with(&n, bad)), KeyError::RsaExponent, "{bad:?}");
            }
        }
    }

    #[test]
    fn kid_has_1_to_128_characters() {
        let (algorithm, key, _) = signed().swap_remove(2);
        for good in ["k", &"é".repeat(128)] {
            assert_eq!(TrustedKey::new(good, algorithm, &key).unwrap().kid(), good);
        }
        for bad in ["", &"k".repeat(129)] {
            assert_eq!(TrustedKey::new(bad, algorithm, &key).unwrap_err(), KeyError::Kid);
        }
    }

    #[test]
    fn fingerprints_tell_keys_and_algorithms_apart_but_not_spellings() {
        let PublicKey::Rsa { n, e } = rsa_numbers(&RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
        else {
            panic!("not RSA")
        };
        let of = |kid, algorithm, n: &[u8], e: &[u8]| {
            let key = PublicKey::Rsa { n: n.into(), e: e.into() };
            TrustedKey::new(kid, algorithm, &key).unwrap().fingerprint()
        };
        let one = of("a", Algorithm::Rs256, &n, &e);
        assert_eq!(one, of("b", Algorithm::Rs256, &[&[0], &n[..]].concat(), &[0, 1, 0, 1]));
        assert_ne!(one, of("a", Algorithm::Ps256, &n, &e));
        assert_ne!(one, of("a", Algorithm::Rs256, &n, &[3]));
        assert_ne!(ed25519("a").fingerprint(), ed25519("a").fingerprint());
    }

    #[test]
    fn keys_that_share_a_kid_are_all_dropped_and_the_rest_live() {
        let keys = ["a", "b", "a", "c", "a"].map(ed25519).into();
        let set = KeySet::new(keys, None);
        assert!(set.get("a").is_none());
        assert_eq!(set.get("b").unwrap().kid(), "b");
        assert_eq!(set.get("c").unwrap().kid(), "c");
        assert_eq!((set.len(), set.dropped(), set.iter().count()), (2, 3, 2));
    }

    #[test]
    fn a_set_is_good_until_its_time() {
        let end = Monotonic::from_secs(100);
        let set = KeySet::new(vec![ed25519("a")], Some(end));
        assert!(set.good_at(Monotonic::from_nanos(end.nanos() - 1)));
        assert!(!set.good_at(end));
        assert!(KeySet::new(Vec::new(), None).good_at(end));
    }
}
