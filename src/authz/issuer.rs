use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use super::trust::{KeySet, TrustedKey};
use crate::domain::{Algorithm, Monotonic, TenantForm};

/// What a token of one issuer must look like.
#[derive(Debug, PartialEq)]
pub struct IssuerPolicy {
    /// The `iss` of its tokens (RFC 7519, section 4.1.1), compared byte for byte.
    pub issuer: String,
    /// Tokens that this project mints.
    pub own: bool,
    /// What the `aud` of its tokens must include.
    pub audience: String,
    /// The `alg` values that are accepted; each key is pinned to one of them.
    pub algorithms: Vec<Algorithm>,
    /// Accepted `typ` values, in lower case, without `application/`.
    pub types: Vec<String>,
    /// The longest `exp - iat`.
    pub max_lifetime: Duration,
    /// How far clocks may differ, for `iat`, `nbf` and `exp`.
    pub leeway: Duration,
    /// JSON Pointer to the tenants.
    pub tenant_claim: String,
    /// JSON Pointer to the client id.
    pub client_claim: String,
    /// What the tenant claim holds.
    pub tenant_form: TenantForm,
    /// `None`: an array of strings, or one string.
    pub tenants_of: Option<TenantsOf>,
    /// A token without `kid` is verified by the one key that fits its algorithm.
    pub allow_missing_kid: bool,
    /// Whether the lookup knows this issuer's clients.
    pub fresh_grants: bool,
    /// Where the keys come from: a change means other keys, even with the same `kid`.
    pub keys_from: String,
}

/// What the tenant claim of another issuer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantsOf {
    /// An array of strings or whole numbers.
    Values,
    /// An object's keys.
    Keys,
    /// One string, separated by commas or spaces.
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

/// Identifies a key together with the policy it was used under. A verified token is remembered as
/// long as exactly this combination is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyUid([u8; 16]);

impl KeyUid {
    fn new(policy: &IssuerPolicy, key: &TrustedKey) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        policy.feed(&mut |part| {
            // With its length, so that no two lists of parts give the same bytes.
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
    /// By `kid`: computed once, because computing one costs as much as reading a token.
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
    /// Each issuer's policy with its keys. `None`: they have never loaded.
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

    /// The issuer with exactly this `iss`; `None`: it is not trusted.
    pub fn issuer(&self, name: &str) -> Option<&Issuer> {
        self.issuers.get(name)
    }

    /// In no particular order.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.issuers.values()
    }

    /// The same trust with fresh keys for one policy. One that has changed since keeps its keys.
    pub fn with_keys(&self, policy: &IssuerPolicy, keys: &Arc<KeySet>) -> Self {
        Self::new(self.issuers.values().map(|issuer| {
            let fresh = *issuer.policy == *policy;
            let keys = if fresh { Some(Arc::clone(keys)) } else { issuer.keys.clone() };
            (Arc::clone(&issuer.policy), keys)
        }))
    }

    /// The keys that an equal policy has now; a reload starts from them, so that an issuer that is
    /// down at that moment keeps its keys.
    pub fn keys_of(&self, policy: &IssuerPolicy) -> Option<Arc<KeySet>> {
        let issuer = self.issuers.get(&policy.issuer)?;
        (*issuer.policy == *policy).then(|| issuer.keys.clone()).flatten()
    }

    /// Whether a key that verified a token earlier is still trusted.
    pub fn standing(&self, uid: KeyUid, now: Monotonic) -> KeyStanding {
        match self.live.binary_search_by_key(&uid, |(uid, _)| *uid) {
            Ok(at) if self.live[at].1.good_at(now) => KeyStanding::Trusted,
            Ok(_) => KeyStanding::TooOld,
            Err(_) => KeyStanding::Withdrawn,
        }
    }
}
