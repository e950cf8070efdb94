use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::client::argon2id_cost;
use super::{Client, ClientId, Credential, CredentialDigest};

/// As many parts as make it cheap to copy the one that changes, with a million clients.
const PARTS: usize = 1024;

/// Every registered client. One that differs in some clients shares the rest with the one before,
/// so that a change costs the same however many there are.
#[derive(Clone)]
pub struct ClientBook {
    hasher: RandomState,
    by_id: Parts<Arc<Client>>,
    by_digest: Parts<Held>,
    /// For each cost of imported credentials: how many clients have so many active ones.
    imported: BTreeMap<String, BTreeMap<usize, usize>>,
    decoys: Vec<String>,
}

/// A change of one client.
#[derive(Debug)]
pub enum ClientChange {
    /// It is new, or takes the place of the one with its id.
    Put(Arc<Client>),
    /// The client is gone; nothing happens if it was not there.
    Remove(ClientId),
}

/// A generated credential and whose it is.
#[derive(Clone)]
struct Held {
    digest: [u8; 32],
    client: Arc<Client>,
    position: usize,
}

impl ClientBook {
    /// `None`: not registered, or not a client id.
    pub fn get(&self, id: &str) -> Option<&Arc<Client>> {
        self.by_id.find(self.hash(id), |client| client.id.as_str() == id)
    }

    /// The holder of a generated credential, whatever the states of both: the caller decides
    /// on [`Credential::usable_at`] and [`Client::standing`].
    ///
    /// A hash table needs no constant time here: what an attacker could learn is a prefix of the
    /// digest of a 256-bit secret, which says nothing about the secret.
    pub fn by_credential_digest(&self, digest: &[u8; 32]) -> Option<(&Arc<Client>, &Credential)> {
        let held = self.by_digest.find(hash_of(digest), |held| held.digest == *digest)?;
        Some((&held.client, &held.client.credentials[held.position]))
    }

    /// PHC strings that no secret matches: as many of every cost as the client with the most active
    /// imported credentials of that cost has. A caller that computes these, or a client's own in
    /// their places, does the same work for every client, known or not.
    pub fn decoys(&self) -> &[String] {
        &self.decoys
    }

    /// Clients in the book.
    pub fn len(&self) -> usize {
        self.by_id.len
    }

    /// Whether no client is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All clients, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.by_id.parts.iter().flat_map(|part| part.iter())
    }

    /// The same book but for these clients.
    pub fn with(&self, changes: impl IntoIterator<Item = ClientChange>) -> Self {
        let mut book = self.clone();
        for change in changes {
            match change {
                ClientChange::Put(client) => book.put(client),
                ClientChange::Remove(id) => {
                    book.remove(&id);
                }
            }
        }
        book.decoys = decoys(&book.imported);
        book
    }

    fn put(&mut self, client: Arc<Client>) {
        self.remove(&client.id);
        for (position, credential) in client.credentials.iter().enumerate() {
            let CredentialDigest::Sha256(digest) = credential.digest else { continue };
            // Two clients with one secret: it stays with the one that had it.
            let hash = hash_of(&digest);
            if self.by_digest.find(hash, |held| held.digest == digest).is_none() {
                let held = Held { digest, client: Arc::clone(&client), position };
                self.by_digest.insert(hash, held, |held| hash_of(&held.digest));
            }
        }
        for (cost, count) in imported_of(&client) {
            *self.imported.entry(cost.to_owned()).or_default().entry(count).or_default() += 1;
        }
        let hash = self.hash(client.id.as_str());
        let hasher = &self.hasher;
        self.by_id.insert(hash, client, |client| hasher.hash_one(client.id.as_str()));
    }

    fn remove(&mut self, id: &ClientId) {
        let hash = self.hash(id.as_str());
        let Some(old) = self.by_id.remove(hash, |client| client.id == *id) else { return };
        for credential in &old.credentials {
            if let CredentialDigest::Sha256(digest) = credential.digest {
                let of_old = |held: &Held| held.digest == digest && held.client.id == *id;
                self.by_digest.remove(hash_of(&digest), of_old);
            }
        }
        for (cost, count) in imported_of(&old) {
            if let Some(clients) = self.imported.get_mut(cost)
                && let Some(with_as_many) = clients.get_mut(&count)
            {
                *with_as_many -= 1;
                clients.retain(|_, clients| *clients > 0);
            }
        }
    }

    fn hash(&self, id: &str) -> u64 {
        self.hasher.hash_one(id)
    }
}

/// A digest is as good as random.
fn hash_of(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// How many active imported credentials of each cost a client has.
fn imported_of(client: &Client) -> BTreeMap<&str, usize> {
    let mut own: BTreeMap<&str, usize> = BTreeMap::new();
    for credential in client.credentials.iter().filter(|credential| credential.active) {
        if let CredentialDigest::Argon2id(phc) = &credential.digest {
            *own.entry(argon2id_cost(phc)).or_default() += 1;
        }
    }
    own
}

fn decoys(imported: &BTreeMap<String, BTreeMap<usize, usize>>) -> Vec<String> {
    // 16 bytes of salt and 32 of hash, all zero.
    let decoy = |cost| format!("{cost}${}${}", "A".repeat(22), "A".repeat(43));
    let most = imported.iter().map(|(cost, clients)| {
        let most = clients.last_key_value().map_or(0, |(count, _)| *count);
        std::iter::repeat_n(decoy(cost), most)
    });
    most.flatten().collect()
}

/// A hash table in parts, each of which is copied only when it changes.
#[derive(Clone)]
struct Parts<T> {
    parts: Vec<Arc<HashTable<T>>>,
    len: usize,
}

impl<T: Clone> Parts<T> {
    /// Bits that the tables themselves do not look at.
    fn part(hash: u64) -> usize {
        (hash >> 40) as usize % PARTS
    }

    fn find(&self, hash: u64, same: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts[Self::part(hash)].find(hash, same)
    }

    fn insert(&mut self, hash: u64, value: T, hasher: impl Fn(&T) -> u64) {
        let part = Arc::make_mut(&mut self.parts[Self::part(hash)]);
        part.insert_unique(hash, value, hasher);
        self.len += 1;
    }

    fn remove(&mut self, hash: u64, mut same: impl FnMut(&T) -> bool) -> Option<T> {
        self.find(hash, &mut same)?;
        let part = Arc::make_mut(&mut self.parts[Self::part(hash)]);
        let (value, _) = part.find_entry(hash, same).ok()?.remove();
        self.len -= 1;
        Some(value)
    }
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        // All the same empty one, until something is put there.
        let empty = Arc::new(HashTable::new());
        Self { parts: std::iter::repeat_n(empty, PARTS).collect(), len: 0 }
    }
}

impl Default for ClientBook {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            by_id: Parts::default(),
            by_digest: Parts::default(),
            imported: BTreeMap::new(),
            decoys: Vec::new(),
        }
    }
}

impl fmt::Debug for ClientBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBook").field("clients", &self.len()).finish_non_exhaustive()
    }
}

impl FromIterator<Client> for ClientBook {
    fn from_iter<I: IntoIterator<Item = Client>>(clients: I) -> Self {
        let mut book = Self::default();
        for client in clients {
            book.put(Arc::new(client));
        }
        book.decoys = decoys(&book.imported);
        book
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1";
    const DEAR: &str = "$argon2id$v=19$m=64,t=2,p=1";

    fn client(id: &str, digests: Vec<(CredentialDigest, bool)>) -> Client {
        let credential = |(digest, active)| Credential { digest, active, expires_at: None };
        Client {
            approved: true,
            credentials: digests.into_iter().map(credential).collect(),
            ..Client::new(ClientId::parse(id).unwrap())
        }
    }

    fn argon2id(cost: &str) -> CredentialDigest {
        CredentialDigest::Argon2id(format!("{cost}$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo"))
    }

    fn sha256(secret: &str) -> (CredentialDigest, bool) {
        (CredentialDigest::Sha256(CredentialDigest::sha256_of(secret)), true)
    }

    fn put(client: Client) -> ClientChange {
        ClientChange::Put(Arc::new(client))
    }

    fn holder<'a>(book: &'a ClientBook, secret: &str) -> Option<&'a str> {
        let found = book.by_credential_digest(&CredentialDigest::sha256_of(secret));
        found.map(|(client, _)| client.id.as_str())
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
        let costs = |book: &ClientBook| -> Vec<String> {
            book.decoys().iter().map(|decoy| argon2id_cost(decoy).to_owned()).collect()
        };
        assert_eq!(costs(&book), [DEAR, CHEAP, CHEAP]);
        let id = |id| ClientId::parse(id).unwrap();
        let book = book.with([ClientChange::Remove(id("a")), put(client("c", Vec::new()))]);
        assert_eq!(costs(&book), [DEAR, CHEAP]);
        let book = book.with([ClientChange::Remove(id("b")), ClientChange::Remove(id("b"))]);
        assert!(costs(&book).is_empty() && ClientBook::default().decoys().is_empty());
    }

    #[test]
    fn a_change_is_in_the_new_book_and_not_in_the_old_one() {
        let old: ClientBook = [client("a", vec![sha256("one")]), client("b", vec![sha256("two")])]
            .into_iter()
            .collect();
        let revoked = Client { approved: false, ..client("a", vec![sha256("three")]) };
        let id = ClientId::parse("b").unwrap();
        let new = old.with([put(revoked), ClientChange::Remove(id), put(client("c", vec![]))]);
        assert!(!new.get("a").unwrap().approved && new.get("b").is_none());
        assert_eq!((new.len(), new.iter().count()), (2, 2));
        let secrets = ["one", "two", "three"];
        assert_eq!(secrets.map(|secret| holder(&new, secret)), [None, None, Some("a")]);
        assert_eq!(secrets.map(|secret| holder(&old, secret)), [Some("a"), Some("b"), None]);
        assert!(old.get("a").unwrap().approved && old.len() == 2);
    }

    #[test]
    fn a_secret_that_another_client_has_already_does_not_change_hands() {
        let old: ClientBook = [client("a", vec![sha256("one")])].into_iter().collect();
        let new = old.with([put(client("b", vec![sha256("one")]))]);
        assert_eq!(holder(&new, "one"), Some("a"));
        let new = new.with([ClientChange::Remove(ClientId::parse("b").unwrap())]);
        assert_eq!(holder(&new, "one"), Some("a"));
    }

    #[test]
    fn a_change_costs_a_part_of_a_large_book_and_not_all_of_it() {
        let secret = |n: usize| format!("secret {n}");
        let old: ClientBook =
            (0..20_000).map(|n| client(&format!("c{n}"), vec![sha256(&secret(n))])).collect();
        let new = old.with([put(client("c7", vec![sha256("new")]))]);
        assert_eq!((new.len(), holder(&new, "new")), (20_000, Some("c7")));
        let copied = |old: &[Arc<HashTable<Arc<Client>>>], new: &[Arc<HashTable<Arc<Client>>>]| {
            old.iter().zip(new).filter(|(old, new)| !Arc::ptr_eq(old, new)).count()
        };
        assert_eq!(copied(&old.by_id.parts, &new.by_id.parts), 1);
        assert!((0..20_000).all(|n| new.get(&format!("c{n}")).is_some()));
    }
}
