use std::collections::{BTreeMap, HashMap};
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
    /// What the gateway's rate limiter should let this client ask for.
    pub quota: Option<Quota>,
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

impl CredentialDigest {
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

/// Every registered client. A new one is built for every change of the registry.
#[derive(Default)]
pub struct ClientBook {
    by_id: HashMap<ClientId, Arc<Client>>,
    by_digest: HashMap<[u8; 32], (Arc<Client>, usize)>,
    decoys: Vec<String>,
}

impl ClientBook {
    pub fn get(&self, id: &str) -> Option<&Arc<Client>> {
        self.by_id.get(id)
    }

    /// The holder of a generated credential, whatever the states of both: the caller decides
    /// on [`Credential::usable_at`] and [`Client::standing`].
    ///
    /// A hash map needs no constant time here: what an attacker could learn is a prefix of the
    /// digest of a 256-bit secret, which says nothing about the secret.
    pub fn by_credential_digest(&self, digest: &[u8; 32]) -> Option<(&Arc<Client>, &Credential)> {
        let (client, position) = self.by_digest.get(digest)?;
        Some((client, &client.credentials[*position]))
    }

    /// PHC strings that no secret matches: as many of every cost as the client with the most
    /// active imported credentials of that cost has. Whoever computes these, or a client's own
    /// in their places, does the same work for every client, known or not.
    pub fn decoys(&self) -> &[String] {
        &self.decoys
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

impl fmt::Debug for ClientBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBook").field("clients", &self.len()).finish_non_exhaustive()
    }
}

impl FromIterator<Client> for ClientBook {
    fn from_iter<I: IntoIterator<Item = Client>>(clients: I) -> Self {
        let by_id: HashMap<_, _> =
            clients.into_iter().map(|client| (client.id.clone(), Arc::new(client))).collect();
        let mut by_digest = HashMap::with_capacity(by_id.len());
        for client in by_id.values() {
            for (position, credential) in client.credentials.iter().enumerate() {
                if let CredentialDigest::Sha256(digest) = credential.digest {
                    by_digest.insert(digest, (client.clone(), position));
                }
            }
        }
        let decoys = decoys(by_id.values());
        Self { by_id, by_digest, decoys }
    }
}

fn decoys<'a>(clients: impl Iterator<Item = &'a Arc<Client>>) -> Vec<String> {
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    for client in clients {
        let mut own: BTreeMap<&str, usize> = BTreeMap::new();
        for credential in client.credentials.iter().filter(|credential| credential.active) {
            if let CredentialDigest::Argon2id(phc) = &credential.digest {
                *own.entry(argon2id_cost(phc)).or_default() += 1;
            }
        }
        for (cost, count) in own {
            let most = most.entry(cost).or_default();
            *most = count.max(*most);
        }
    }
    // 16 bytes of salt and 32 of hash, all zero.
    let decoy = |cost| format!("{cost}${}${}", "A".repeat(22), "A".repeat(43));
    most.into_iter().flat_map(|(cost, count)| std::iter::repeat_n(decoy(cost), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1";
    const DEAR: &str = "$argon2id$v=19$m=64,t=2,p=1";

    fn client(id: &str, digests: Vec<(CredentialDigest, bool)>) -> Client {
        let credential = |(digest, active)| Credential { digest, active, expires_at: None };
        Client {
            id: ClientId::parse(id).unwrap(),
            approved: true,
            developer_active: true,
            credentials: digests.into_iter().map(credential).collect(),
            scopes: ScopeSet::default(),
            static_grants: None,
            token_ttl: None,
            apis: None,
            attributes: Attributes::new(),
            quota: None,
        }
    }

    fn argon2id(cost: &str) -> CredentialDigest {
        CredentialDigest::Argon2id(format!("{cost}$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo"))
    }

    #[test]
    fn a_generated_credential_leads_to_its_client() {
        let digest = CredentialDigest::sha256_of;
        let book: ClientBook = [
            client("a", vec![(CredentialDigest::Sha256(digest("one")), true)]),
            client(
                "b",
                vec![(argon2id(CHEAP), true), (CredentialDigest::Sha256(digest("two")), false)],
            ),
        ]
        .into_iter()
        .collect();
        let (found, credential) = book.by_credential_digest(&digest("two")).unwrap();
        assert_eq!(found.id.as_str(), "b");
        assert!(!credential.active);
        assert!(book.by_credential_digest(&digest("three")).is_none());
    }

    #[test]
    fn decoys_are_the_most_active_imported_credentials_of_every_cost() {
        let book: ClientBook = [
            client("a", vec![(argon2id(CHEAP), true), (argon2id(CHEAP), true)]),
            client("b", vec![(argon2id(CHEAP), true), (argon2id(DEAR), true)]),
            client("c", vec![(argon2id(DEAR), false), (argon2id(DEAR), true)]),
        ]
        .into_iter()
        .collect();
        let costs: Vec<_> = book.decoys().iter().map(|decoy| argon2id_cost(decoy)).collect();
        assert_eq!(costs, [DEAR, CHEAP, CHEAP]);
        assert!(ClientBook::default().decoys().is_empty());
    }
}
