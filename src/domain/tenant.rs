use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::{TenantRef, TenantRefs};

/// Bytes of the key that digests are made with.
pub const DIGEST_KEY_LEN: usize = 32;
const KEY_ID_LEN: usize = 3;
const MAC_LEN: usize = 12;
/// Bytes of a digest.
pub const DIGEST_LEN: usize = KEY_ID_LEN + MAC_LEN;
const TEXT_LEN: usize = 20;

/// `[A-Za-z0-9._~-]{1,128}`, not all dots.
pub fn is_tenant_code(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(allowed) && !text.bytes().all(|b| b == b'.')
}

/// How a token names its tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantForm {
    /// By keyed digests, bound to issuer and client: a reader learns no code.
    Digest,
    /// By their codes, which everyone who holds the token can read. What is not a tenant code
    /// grants nothing.
    Plain,
}

/// The secret path segment of a tenant. Cannot be printed.
#[derive(Clone)]
pub struct TenantCode(Zeroizing<Box<str>>);

impl TenantCode {
    /// `None`: not a tenant code by [`is_tenant_code`].
    pub fn parse(text: &str) -> Option<Self> {
        is_tenant_code(text).then(|| Self(Zeroizing::new(text.into())))
    }

    /// The code itself, which is a secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TenantCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[tenant code]")
    }
}

/// What stands for a tenant code in tokens, caches and grant sets: the id of the key and the first
/// 12 bytes of HMAC-SHA-256(key, issuer, client, code). Two clients' digests of one tenant differ,
/// so tokens cannot be compared to learn which tenants their holders share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantDigest([u8; DIGEST_LEN]);

impl TenantDigest {
    /// The form in a token's claim: 20 characters of base64url.
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The truncated HMAC.
    pub const fn bytes(&self) -> &[u8; DIGEST_LEN] {
        &self.0
    }

    /// From what [`TenantDigest::bytes`] gave.
    pub const fn from_bytes(bytes: [u8; DIGEST_LEN]) -> Self {
        Self(bytes)
    }

    /// From base64url without padding, as in tokens. `None`: not the text of a digest.
    pub fn from_text(text: &str) -> Option<Self> {
        if text.len() != TEXT_LEN {
            return None;
        }
        let mut bytes = [0; DIGEST_LEN];
        URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Debug for TenantDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[tenant digest]")
    }
}

/// Whose view of a tenant a digest is.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The `iss` of the client's tokens.
    pub issuer: &'a str,
    /// The client's id at that issuer.
    pub client: &'a str,
}

struct DigestKey {
    id: [u8; KEY_ID_LEN],
    key: hmac::Key,
    /// For the feed, whose other side recognises tenants too.
    secret: Zeroizing<[u8; DIGEST_KEY_LEN]>,
}

/// Makes digests under the current key and, during a rotation, under the previous one.
pub struct TenantDigester {
    keys: Vec<DigestKey>,
    references: TenantRefs,
}

impl TenantDigester {
    /// `previous` is honoured until the tokens with its digests have expired.
    pub fn new(current: &[u8; DIGEST_KEY_LEN], previous: Option<&[u8; DIGEST_KEY_LEN]>) -> Self {
        let keys = std::iter::once(current).chain(previous).map(digest_key).collect();
        Self { keys, references: TenantRefs::new(current) }
    }

    /// Makes references under a key of their own, so that a rotation of the digests' key does not
    /// rename the tenants.
    #[must_use]
    pub fn with_references(self, references: TenantRefs) -> Self {
        Self { references, ..self }
    }

    /// The keys themselves, the current one first.
    pub fn expose_keys(&self) -> impl Iterator<Item = &[u8; DIGEST_KEY_LEN]> {
        self.keys.iter().map(|key| &*key.secret)
    }

    /// The key of the references.
    pub fn expose_reference_key(&self) -> &[u8; DIGEST_KEY_LEN] {
        self.references.expose_key()
    }

    /// The digest that is written into new tokens.
    pub fn current(&self, holder: Holder<'_>, code: &str) -> TenantDigest {
        make(&self.keys[0], holder, code)
    }

    /// The digest under every key that is honoured, current first.
    pub fn all<'a>(
        &'a self,
        holder: Holder<'a>,
        code: &'a str,
    ) -> impl Iterator<Item = TenantDigest> + 'a {
        self.keys.iter().map(move |key| make(key, holder, code))
    }

    /// The digest under the key that was current before, while it is honoured.
    pub fn previous(&self, holder: Holder<'_>, code: &str) -> Option<TenantDigest> {
        self.keys.get(1).map(|key| make(key, holder, code))
    }

    /// Whether a digest was made under the key that is current now.
    pub fn is_current(&self, digest: &TenantDigest) -> bool {
        digest.0.starts_with(&self.keys[0].id)
    }

    /// Whether digests made together, under one key, can still be compared with.
    pub fn honours(&self, set: &TenantSet) -> bool {
        let known =
            |digest: &TenantDigest| self.keys.iter().any(|key| digest.0.starts_with(&key.id));
        set.0.first().is_none_or(known)
    }

    /// What stands for a tenant where its code must not: in logs, metadata and answers.
    pub fn reference(&self, code: &str) -> TenantRef {
        self.references.of(code)
    }
}

fn digest_key(bytes: &[u8; DIGEST_KEY_LEN]) -> DigestKey {
    let mut fingerprint = digest::Context::new(&digest::SHA256);
    fingerprint.update(b"tenantgate digest key id\0");
    fingerprint.update(bytes);
    let fingerprint = fingerprint.finish();
    let mut id = [0; KEY_ID_LEN];
    id.copy_from_slice(&fingerprint.as_ref()[..KEY_ID_LEN]);
    DigestKey { id, key: hmac::Key::new(hmac::HMAC_SHA256, bytes), secret: Zeroizing::new(*bytes) }
}

fn make(key: &DigestKey, holder: Holder<'_>, code: &str) -> TenantDigest {
    let mut mac = hmac::Context::with_key(&key.key);
    // Lengths first, so that no two different triples give the same input.
    for part in [holder.issuer, holder.client, code] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    let tag = mac.sign();
    let mut bytes = [0; DIGEST_LEN];
    bytes[..KEY_ID_LEN].copy_from_slice(&key.id);
    bytes[KEY_ID_LEN..].copy_from_slice(&tag.as_ref()[..MAC_LEN]);
    TenantDigest(bytes)
}

/// A sorted set of digests.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TenantSet(SmallVec<[TenantDigest; INLINE_TENANTS]>);

/// Most tokens carry few tenants. Without a pointer to follow, a check of one among a million
/// cached tokens waits for memory once less.
const INLINE_TENANTS: usize = 4;

impl TenantSet {
    /// Whether one of them is this digest.
    pub fn contains(&self, digest: &TenantDigest) -> bool {
        self.0.binary_search(digest).is_ok()
    }

    /// The digests, in the order in which they are compared.
    pub fn iter(&self) -> impl Iterator<Item = &TenantDigest> {
        self.0.iter()
    }

    /// Digests under every honoured key: up to two for each tenant.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no tenant is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<TenantDigest> for TenantSet {
    fn from_iter<I: IntoIterator<Item = TenantDigest>>(digests: I) -> Self {
        let mut digests: SmallVec<_> = digests.into_iter().collect();
        digests.sort_unstable();
        digests.dedup();
        digests.shrink_to_fit();
        Self(digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: Holder<'_> = Holder { issuer: "https://i", client: "acme" };

    #[test]
    fn tenant_codes() {
        for code in ["a", "T1", "a.b_c~d-E9", "..a", "-", &"x".repeat(128)] {
            assert!(is_tenant_code(code), "{code}");
        }
        for other in ["", ".", "..", "...", "a b", "a/b", "%41", "a%", "é", "a,b", "a:b", "a@b"] {
            assert!(!is_tenant_code(other), "{other}");
        }
        assert!(!is_tenant_code(&"x".repeat(129)));
    }

    #[test]
    fn digests_differ_by_issuer_client_code_and_key() {
        let digester = TenantDigester::new(&[1; 32], None);
        let other_key = TenantDigester::new(&[2; 32], None);
        let base = digester.current(HOLDER, "T1");
        assert_eq!(base, digester.current(HOLDER, "T1"));
        assert_ne!(base, digester.current(HOLDER, "T2"));
        assert_ne!(base, digester.current(Holder { client: "b", ..HOLDER }, "T1"));
        assert_ne!(base, digester.current(Holder { issuer: "https://j", ..HOLDER }, "T1"));
        assert_ne!(base, other_key.current(HOLDER, "T1"));
        let shifted = Holder { issuer: "https://ia", client: "cme" };
        assert_ne!(base, digester.current(shifted, "T1"));
    }

    #[test]
    fn text_form_is_20_characters_and_round_trips() {
        let digest = TenantDigester::new(&[1; 32], None).current(HOLDER, "T1");
        assert_eq!(digest.to_text().len(), TEXT_LEN);
        assert_eq!(TenantDigest::from_text(&digest.to_text()), Some(digest));
        for bad in ["", "abc", "????????????????????", &"a".repeat(21)] {
            assert_eq!(TenantDigest::from_text(bad), None);
        }
    }

    #[test]
    fn the_previous_key_is_honoured_during_a_rotation() {
        let old = TenantDigester::new(&[1; 32], None).current(HOLDER, "T1");
        let rotated = TenantDigester::new(&[2; 32], Some(&[1; 32]));
        assert!(rotated.all(HOLDER, "T1").any(|digest| digest == old));
        assert_ne!(rotated.current(HOLDER, "T1"), old);
    }

    #[test]
    fn nothing_prints_a_code() {
        let code = TenantCode::parse("CANARY-1").unwrap();
        let digester = TenantDigester::new(&[1; 32], None);
        let printed = format!("{code:?} {:?}", digester.current(HOLDER, code.expose()));
        assert!(!printed.contains("CANARY"));
        assert!(!digester.reference(code.expose()).to_string().contains("CANARY"));
    }

    #[test]
    fn a_reference_is_the_same_for_all_and_outlives_the_digests_key_where_it_has_its_own() {
        let reference = |digester: TenantDigester| digester.reference("T1").to_string();
        let plain = || TenantDigester::new(&[1; 32], None);
        let text = reference(plain());
        assert!(text.len() == 32 && text.bytes().all(|b| b"0123456789abcdef".contains(&b)));
        assert_eq!(text, reference(plain()));
        assert_ne!(text, plain().reference("T2").to_string());
        assert_ne!(text, reference(TenantDigester::new(&[2; 32], None)));
        let own = |digester: TenantDigester| {
            reference(digester.with_references(TenantRefs::new(&[9; 32])))
        };
        assert_eq!(own(plain()), own(TenantDigester::new(&[2; 32], Some(&[1; 32]))));
        assert_ne!(own(plain()), text);
    }
}
