use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Attributes, ClientId, GrantSet, ScopeSet, Timestamp};

/// A registered app.
#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    pub approved: bool,
    pub developer_active: bool,
    pub credentials: Vec<Credential>,
    pub scopes: ScopeSet,
    /// Static grants, which replace the lookup for this client. `None`: ask the lookup.
    pub static_grants: Option<Arc<GrantSet>>,
    pub token_ttl: Option<Duration>,
    /// The APIs that this client may call. `None`: all.
    pub apis: Option<Vec<String>>,
    /// Claims that every token of this client carries.
    pub attributes: Attributes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// The app has been revoked, or its developer is inactive.
    Withdrawn,
}

impl Client {
    pub fn standing(&self) -> Standing {
        if self.approved && self.developer_active { Standing::Good } else { Standing::Withdrawn }
    }
}

pub struct Credential {
    pub digest: CredentialDigest,
    pub active: bool,
    pub expires_at: Option<Timestamp>,
}

impl Credential {
    pub fn usable_at(&self, now: Timestamp) -> bool {
        self.active && self.expires_at.is_none_or(|end| now < end)
    }
}

/// What is kept of a credential. Generated secrets have 256 bits, so a plain SHA-256 leaves
/// nothing to guess; imported ones may be weak and get argon2id.
pub enum CredentialDigest {
    Sha256([u8; 32]),
    /// A PHC string.
    Argon2id(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("active", &self.active).finish_non_exhaustive()
    }
}

/// Every registered client. A new one is built for every change of the registry.
#[derive(Debug, Default)]
pub struct ClientBook {
    by_id: HashMap<ClientId, Arc<Client>>,
}

impl ClientBook {
    pub fn get(&self, id: &str) -> Option<&Arc<Client>> {
        self.by_id.get(id)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.by_id.values()
    }
}

impl FromIterator<Client> for ClientBook {
    fn from_iter<I: IntoIterator<Item = Client>>(clients: I) -> Self {
        let by_id = clients.into_iter().map(|client| (client.id.clone(), Arc::new(client)));
        Self { by_id: by_id.collect() }
    }
}
