use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use super::{Attributes, ClientId, GrantSet, Quota, ScopeSet, Timestamp};

/// A client may have this many active credentials: the old and the new one of a rotation.
pub const MAX_ACTIVE_CREDENTIALS: usize = 2;

/// A registered app.
#[derive(Debug)]
pub struct Client {
    /// The `client_id` of RFC 6749, section 2.2.
    pub id: ClientId,
    /// False: withdrawn by the provider; its tokens and keys are refused.
    pub approved: bool,
    /// False: its developer is inactive, which stops all of the developer's apps.
    pub developer_active: bool,
    /// At most [`MAX_ACTIVE_CREDENTIALS`] of them active.
    pub credentials: Vec<Credential>,
    /// The scopes that its tokens may have; empty: none.
    pub scopes: ScopeSet,
    /// Static grants, which replace the lookup for this client. `None`: ask the lookup.
    pub static_grants: Option<Arc<GrantSet>>,
    /// How long its tokens live. `None`: as long as the issuer says.
    pub token_ttl: Option<Duration>,
    /// Our own tokens issued until then are refused.
    pub tokens_not_before: Option<Timestamp>,
    /// The APIs that this client may call. `None`: all.
    pub apis: Option<Vec<String>>,
    /// Claims that every token of this client carries.
    pub attributes: Attributes,
    /// What the gateway's rate limiter should let this client ask for.
    pub quota: Option<Quota>,
}

/// Whether a client may do anything at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Approved, and so is its developer.
    Good,
    /// The app has been revoked, or its developer is inactive.
    Withdrawn,
}

impl Client {
    /// One that may do nothing: not approved, and without credentials and scopes.
    pub fn new(id: ClientId) -> Self {
        Self {
            id,
            approved: false,
            developer_active: true,
            credentials: Vec::new(),
            scopes: ScopeSet::default(),
            static_grants: None,
            token_ttl: None,
            tokens_not_before: None,
            apis: None,
            attributes: Attributes::new(),
            quota: None,
        }
    }

    /// The first reason that stops it, if there is one.
    pub fn standing(&self) -> Standing {
        if self.approved && self.developer_active { Standing::Good } else { Standing::Withdrawn }
    }
}

/// A secret of a client, of which only a digest is kept.
pub struct Credential {
    /// What a presented secret is compared with.
    pub digest: CredentialDigest,
    /// False: revoked.
    pub active: bool,
    /// Not usable from then on. `None`: until it is revoked.
    pub expires_at: Option<Timestamp>,
}

impl Credential {
    /// Active and not expired.
    pub fn usable_at(&self, now: Timestamp) -> bool {
        self.active && self.expires_at.is_none_or(|end| now < end)
    }
}

/// What is kept of a credential. Generated secrets have 256 bits, so a plain SHA-256 leaves
/// nothing to guess; imported ones may be weak and get argon2id.
pub enum CredentialDigest {
    /// Of a secret of 256 random bits, which needs no slow hash.
    Sha256([u8; 32]),
    /// A PHC string.
    Argon2id(String),
}

impl CredentialDigest {
    /// The digest of a generated secret.
    pub fn sha256_of(secret: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
        bytes
    }
}

/// The part of a PHC string that says how much work it is: all but salt and hash.
pub fn argon2id_cost(phc: &str) -> &str {
    phc.rsplitn(3, '$').nth(2).unwrap_or(phc)
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("active", &self.active).finish_non_exhaustive()
    }
}
