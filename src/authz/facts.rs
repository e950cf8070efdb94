use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use compact_str::CompactString;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::issuer::{IssuerPolicy, KeyUid};
use crate::domain::{
    GrantCell, ScopeSet, Subject, TenantDigester, TenantForm, TenantSet, Timestamp, TokenRef,
};

/// What a verified token says. Only `jwt::verify` makes one. It holds no verdict:
/// expiry, keys, client, route, scope and tenant are decided again on every request.
pub struct Facts {
    /// The rules of the issuer that signed the token.
    pub issuer: Arc<IssuerPolicy>,
    pub(super) key: KeyUid,
    /// The client id, 1 to 256 visible ASCII characters.
    pub client: CompactString,
    /// Issuer and client, for finding what is withdrawn from them.
    pub(super) subject: Subject,
    /// The token's `jti`.
    pub(super) id: Option<TokenRef>,
    /// From `scope` (RFC 9068, section 2.2.3) or another issuer's `scp`; may be empty.
    pub scopes: ScopeSet,
    pub(super) not_before: Timestamp,
    pub(super) issued_at: Timestamp,
    /// The `exp` (RFC 7519, section 4.1.4), without leeway.
    pub expires_at: Timestamp,
    /// When the grants in the token were looked up: the evidence for what it names. Other issuers
    /// do not say, so for their tokens this is `iat`.
    pub(super) grants_at: Timestamp,
    pub(super) tenants: TenantSet,
    /// The client chose the tenants when it asked for the token.
    pub(super) narrowed: bool,
    /// Holds the freshest grants of this client. `None`: they are not looked up.
    pub(super) grants: Option<Arc<GrantCell>>,
}

impl Facts {
    /// Plain codes were digested under the key of that time. Once that key is no longer honoured
    /// they match nothing, and the token has to be read again.
    pub(super) fn comparable(&self, digester: &TenantDigester) -> bool {
        self.issuer.tenant_form == TenantForm::Digest || digester.honours(&self.tenants)
    }

    /// Roughly the bytes of an entry: the struct, the boxed parts and the cache's overhead.
    fn weight(&self) -> u64 {
        let boxed = self.client.len() + self.scopes.as_str().len() + self.tenants.len() * 15;
        (size_of::<Self>() + boxed + 160) as u64
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<TokenDigest, Arc<Facts>> for ByBytes {
    fn weight(&self, _digest: &TokenDigest, facts: &Arc<Facts>) -> u64 {
        facts.weight()
    }
}

/// A keyed digest of a token: the cache never holds a credential.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 16]);

/// Verified tokens, bounded in bytes.
pub struct FactsCache {
    tokens: Cache<TokenDigest, Arc<Facts>, ByBytes>,
    key: LessSafeKey,
}

impl FactsCache {
    /// An empty cache that evicts tokens to stay within `max_bytes`, by estimate.
    pub fn new(max_bytes: u64) -> Self {
        let typical_entry = 512;
        let mut key = [0; 16];
        rand::fill(&mut key).expect("the operating system has random bytes");
        let key = UnboundKey::new(&AES_128_GCM, &key).expect("the length fits the algorithm");
        Self {
            tokens: Cache::with_weighter((max_bytes / typical_entry) as usize, max_bytes, ByBytes),
            key: LessSafeKey::new(key),
        }
    }

    /// AES-GMAC over the token, under a key of this process. It is a universal hash: a party that
    /// sees neither the key nor a digest makes two tokens collide with a chance of one in 2^118 per
    /// try. SHA-256 would do too, but takes four times as long on a token with many tenants.
    pub fn digest(&self, token: &[u8]) -> TokenDigest {
        // One nonce for all, because equal tokens must have equal digests. Anyone who saw digests
        // could compute the hash's key; none ever leaves the cache.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(token), &mut [])
            .expect("a token is shorter than what AES-GCM takes");
        let mut bytes = [0; 16];
        bytes.copy_from_slice(tag.as_ref());
        TokenDigest(bytes)
    }

    /// A hit is not a verdict: key and lifetime must be checked again.
    pub fn get(&self, digest: &TokenDigest) -> Option<Arc<Facts>> {
        self.tokens.get(digest)
    }

    /// May evict other tokens.
    pub fn insert(&self, digest: TokenDigest, facts: Arc<Facts>) {
        self.tokens.insert(digest, facts);
    }

    /// The number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no token is in the cache.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How often a token was found in the cache, and how often not, since the start.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.tokens.hits(), self.tokens.misses())
    }

    /// The estimated size of all entries.
    pub fn bytes(&self) -> u64 {
        self.tokens.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_has_one_digest_which_means_nothing_elsewhere() {
        let (cache, other) = (FactsCache::new(1 << 20), FactsCache::new(1 << 20));
        let token = "a".repeat(16 * 1024);
        let digest = cache.digest(token.as_bytes());
        assert!(digest == cache.digest(token.as_bytes()));
        assert!(digest != other.digest(token.as_bytes()));
        for at in [0, 15, 16, 8_000, token.len() - 1] {
            let mut changed = token.clone().into_bytes();
            changed[at] ^= 1;
            assert!(digest != cache.digest(&changed), "changed at {at}");
            assert!(digest != cache.digest(&token.as_bytes()[..at]), "cut at {at}");
        }
    }
}
