use std::sync::Arc;

use aws_lc_rs::digest;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::issuer::{IssuerPolicy, KeyUid, TenantForm};
use crate::domain::{GrantCell, ScopeSet, TenantDigester, TenantSet, Timestamp};

/// What a verified token says. Only `jwt::verify` makes one. It holds no verdict:
/// expiry, keys, client, route, scope and tenant are decided again on every request.
pub struct Facts {
    pub issuer: Arc<IssuerPolicy>,
    pub(super) key: KeyUid,
    pub client: Box<str>,
    pub scopes: ScopeSet,
    pub(super) not_before: Timestamp,
    pub(super) issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// When the grants in the token were looked up.
    pub(super) grants_at: Timestamp,
    pub(super) tenants: TenantSet,
    /// The client named the tenants itself.
    pub(super) narrowed: bool,
    /// Where the freshest grants of this client stand. `None`: nobody looks them up.
    pub(super) grants: Option<Arc<GrantCell>>,
}

impl Facts {
    /// Plain codes were put under the digest key of that time. Once it is no longer honoured they
    /// compare with nothing, and the token has to be read again.
    pub(super) fn comparable(&self, digester: &TenantDigester) -> bool {
        self.issuer.tenant_form == TenantForm::Digest || digester.honours(&self.tenants)
    }

    /// Roughly what an entry takes: the struct, the boxed parts and the cache's own share.
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

/// SHA-256 of a token: the cache never holds a credential.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// Verified tokens, bounded in bytes.
pub struct FactsCache(Cache<TokenDigest, Arc<Facts>, ByBytes>);

impl FactsCache {
    pub fn new(max_bytes: u64) -> Self {
        let typical_entry = 512;
        Self(Cache::with_weighter((max_bytes / typical_entry) as usize, max_bytes, ByBytes))
    }

    pub fn get(&self, digest: &TokenDigest) -> Option<Arc<Facts>> {
        self.0.get(digest)
    }

    pub fn insert(&self, digest: TokenDigest, facts: Arc<Facts>) {
        self.0.insert(digest, facts);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often a token was found here, and how often not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.0.hits(), self.0.misses())
    }

    pub fn bytes(&self) -> u64 {
        self.0.weight()
    }
}
