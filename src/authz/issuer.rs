use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use super::trust::{KeySet, TrustedKey};
use crate::domain::{Algorithm, Monotonic};

/// What a token of one issuer must look like.
#[derive(Debug, PartialEq)]
pub struct IssuerPolicy {
    pub issuer: String,
    /// Tokens that this project mints.
    pub own: bool,
    pub audience: String,
    pub algorithms: Vec<Algorithm>,
    /// Accepted `typ` values, in lower case, without `application/`.
    pub types: Vec<String>,
    pub max_lifetime: Duration,
    pub leeway: Duration,
    /// JSON Pointer to the tenants.
    pub tenant_claim: String,
    /// JSON Pointer to the client id.
    pub client_claim: String,
    pub tenant_form: TenantForm,
    /// `None`: an array of texts, or one text.
    pub tenants_of: Option<TenantsOf>,
    /// A token without `kid` is verified by the one key that fits its algorithm.
    pub allow_missing_kid: bool,
    /// Whether the lookup knows this issuer's clients.
    pub fresh_grants: bool,
    /// Where the keys come from: those of another source are others'.
    pub keys_from: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantForm {
    Digest,
    Plain,
}

/// What the tenant claim of another issuer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantsOf {
    /// An array of texts or whole numbers.
    Values,
    /// An object's keys.
    Keys,
    /// One text, separated by commas or blanks.
    Text,
}

impl IssuerPolicy {
    /// Every field, in pieces.
    fn feed(&self, take: &mut impl FnMut(&[u8])) {
        // A new field has to be part of a key's identity too.
        let Self {
            issuer,
            own,
            audience,
            algorithms,
            types,
            max_lifetime,
            leeway,
            tenant_claim,
            client_claim,
            tenant_form,
            tenants_of,
            allow_missing_kid,
            fresh_grants,
            keys_from,
        } = self;
        for text in [issuer, audience, tenant_claim, client_claim, keys_from] {
            take(text.as_bytes());
        }
        let digest_form = *tenant_form == TenantForm::Digest;
        take(&[*own, *fresh_grants, digest_form, *allow_missing_kid].map(u8::from));
        take(&[tenants_of.map_or(0, |of| of as u8 + 1)]);
        for duration in [max_lifetime, leeway] {
            take(&duration.as_nanos().to_be_bytes());
        }
        take(&(algorithms.len() as u64).to_be_bytes());
        algorithms.iter().for_each(|algorithm| take(algorithm.as_str().as_bytes()));
        types.iter().for_each(|typ| take(typ.as_bytes()));
    }
}

/// Identifies a key together with the policy it was used under. A fact that was verified with one
/// stands as long as this very combination is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyUid([u8; 16]);

impl KeyUid {
    fn new(policy: &IssuerPolicy, key: &TrustedKey) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        policy.feed(&mut |part| {
            // With its length, so that no two lists of parts are the same bytes.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        });
        context.update(key.kid().as_bytes());
        context.update(&key.fingerprint());
        let mut uid = [0; 16];
        uid.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(uid)
    }
}

pub struct Issuer {
    pub policy: Arc<IssuerPolicy>,
    /// `None`: never loaded.
    keys: Option<Arc<KeySet>>,
    /// By `kid`: made once, because making one costs as much as reading a token.
    uids: HashMap<String, KeyUid>,
}

impl Issuer {
    /// The keys, unless they never loaded or the last good set has grown too old.
    pub fn keys(&self, now: Monotonic) -> Option<&KeySet> {
        self.keys.as_deref().filter(|keys| keys.good_at(now))
    }

    /// The keys, whether or not they have grown too old. `None`: never loaded.
    pub fn loaded(&self) -> Option<&Arc<KeySet>> {
        self.keys.as_ref()
    }

    pub fn uid(&self, key: &TrustedKey) -> Option<KeyUid> {
        self.uids.get(key.kid()).copied()
    }
}

/// All issuers whose tokens are accepted.
#[derive(Default)]
pub struct Trust {
    issuers: HashMap<String, Issuer>,
    /// Sorted, for a quick answer to "is the key behind this fact still trusted?".
    live: Vec<(KeyUid, Arc<KeySet>)>,
}

/// Whether the key behind a remembered fact is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    Trusted,
    Withdrawn,
    /// Its set has not been refreshed for too long.
    TooOld,
}

impl Trust {
    pub fn new(parts: impl IntoIterator<Item = (Arc<IssuerPolicy>, Option<Arc<KeySet>>)>) -> Self {
        let mut issuers = HashMap::new();
        let mut live = Vec::new();
        for (policy, keys) in parts {
            let mut uids = HashMap::new();
            if let Some(keys) = &keys {
                for key in keys.iter() {
                    let uid = KeyUid::new(&policy, key);
                    uids.insert(key.kid().to_owned(), uid);
                    live.push((uid, Arc::clone(keys)));
                }
            }
            issuers.insert(policy.issuer.clone(), Issuer { policy, keys, uids });
        }
        live.sort_unstable_by_key(|(uid, _)| *uid);
        Self { issuers, live }
    }

    pub fn issuer(&self, name: &str) -> Option<&Issuer> {
        self.issuers.get(name)
    }

    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.issuers.values()
    }

    /// The same trust with fresh keys for one policy; one that has been changed since gets none.
    pub fn with_keys(&self, policy: &IssuerPolicy, keys: &Arc<KeySet>) -> Self {
        Self::new(self.issuers.values().map(|issuer| {
            let fresh = *issuer.policy == *policy;
            let keys = if fresh { Some(Arc::clone(keys)) } else { issuer.keys.clone() };
            (Arc::clone(&issuer.policy), keys)
        }))
    }

    /// The keys that an equal policy has now; a reload starts from them, so that an issuer which
    /// is down at that moment loses nothing.
    pub fn keys_of(&self, policy: &IssuerPolicy) -> Option<Arc<KeySet>> {
        let issuer = self.issuers.get(&policy.issuer)?;
        (*issuer.policy == *policy).then(|| issuer.keys.clone()).flatten()
    }

    pub fn standing(&self, uid: KeyUid, now: Monotonic) -> KeyStanding {
        match self.live.binary_search_by_key(&uid, |(uid, _)| *uid) {
            Ok(at) if self.live[at].1.good_at(now) => KeyStanding::Trusted,
            Ok(_) => KeyStanding::TooOld,
            Err(_) => KeyStanding::Withdrawn,
        }
    }
}
