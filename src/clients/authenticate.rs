use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::queue::FairQueue;
use super::secret::matches_imported;
use crate::domain::{
    Caller, Client, ClientBook, Credential, CredentialDigest, MAX_ACTIVE_CREDENTIALS, Secret,
    Timestamp, argon2id_cost,
};

/// So many successes with imported secrets are remembered.
const REMEMBERED: usize = 10_000;

/// Proves clients by their secrets. Unknown clients and wrong, revoked and expired credentials
/// cannot be told apart, neither by the answer nor by the work: see [`ClientBook::decoys`].
pub struct Authenticator {
    hasher: Arc<dyn SlowHasher>,
    slots: Arc<FairQueue>,
    /// Keyed digests of an imported credential and the secret that matched it. A changed
    /// credential gives another digest, so that what is remembered dies with it.
    matched: Cache<[u8; 32], ()>,
    key: hmac::Key,
}

pub enum Authentication {
    /// The secret is right. Whether the client is in good standing is another question.
    Verified(Arc<Client>),
    Refused(Refused),
    /// Too many failures before this attempt, which was not looked into; wait so long.
    Throttled(Duration),
    /// Too many imported secrets are being checked; try again later.
    Busy,
}

/// Why nobody was proven. For the log alone: callers cannot tell these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Unknown,
    SecretWrong,
    Expired,
    Revoked,
}

/// An id, and the secret that is to prove it.
pub struct Presented {
    pub id: String,
    pub secret: Secret,
}

impl fmt::Debug for Presented {
    /// Not the id either: it is only a reading, and may hold a part of the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").finish_non_exhaustive()
    }
}

/// What a caller shows. One that can be read in more than one way is good if one of them is right.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub readings: &'a [Presented],
    pub caller: Caller,
    pub now: Timestamp,
}

/// A seam for tests, which count the work.
trait SlowHasher: Send + Sync {
    fn matches(&self, secret: &Secret, phc: &str) -> bool;
}

struct Argon2id;

impl SlowHasher for Argon2id {
    fn matches(&self, secret: &Secret, phc: &str) -> bool {
        matches_imported(secret, phc)
    }
}

impl Authenticator {
    /// `slow_hashes`: how many imported secrets are checked at once.
    pub fn new(slow_hashes: usize) -> Self {
        Self::with_hasher(slow_hashes, Arc::new(Argon2id))
    }

    fn with_hasher(slow_hashes: usize, hasher: Arc<dyn SlowHasher>) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(key.as_mut()).expect("the operating system has random bytes");
        Self {
            hasher,
            slots: FairQueue::new(slow_hashes),
            matched: Cache::new(REMEMBERED),
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
        }
    }

    /// `admit` is asked before an attempt that has failed the quick ways goes on; its error is how
    /// long to wait. A right generated secret, and an imported one that was right before, never
    /// get there.
    pub async fn authenticate(
        &self,
        book: &ClientBook,
        attempt: Attempt<'_>,
        admit: impl FnOnce() -> Result<(), Duration>,
    ) -> Authentication {
        let Attempt { readings, caller, now } = attempt;
        let mut slow = Vec::new();
        for Presented { id, secret } in readings {
            let client = book.get(id);
            let generated = matches_generated(client, secret, now);
            if let Some(client) = client.filter(|_| generated) {
                return Authentication::Verified(client.clone());
            }
            let hashes = slow_hashes(book, client, now);
            let tags: Vec<_> = hashes.iter().map(|phc| self.tag(phc, secret)).collect();
            // Counted, so that all are looked up whichever is there.
            let remembered = tags.iter().filter(|tag| self.matched.get(*tag).is_some()).count() > 0;
            if let Some(client) = client.filter(|_| remembered) {
                return Authentication::Verified(client.clone());
            }
            slow.push(Slow { client: client.cloned(), secret: secret.clone(), hashes, tags });
        }

        if let Err(wait) = admit() {
            return Authentication::Throttled(wait);
        }
        if slow.iter().all(|reading| reading.hashes.is_empty()) {
            return Authentication::Refused(refused(book, attempt));
        }
        let Some(slot) = self.slots.slot(caller.network()).await else {
            return Authentication::Busy;
        };
        let hasher = self.hasher.clone();
        let matched = tokio::task::spawn_blocking(move || {
            // The slot goes along: a caller who hangs up does not stop the computation.
            let _slot = slot;
            slow.into_iter().find_map(|reading| reading.compute(&*hasher))
        });
        match matched.await {
            Ok(Some((client, tag))) => {
                self.matched.insert(tag, ());
                Authentication::Verified(client)
            }
            Ok(None) => Authentication::Refused(refused(book, attempt)),
            // The runtime is shutting down.
            Err(_) => Authentication::Busy,
        }
    }

    fn tag(&self, phc: &str, secret: &Secret) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(&(phc.len() as u64).to_be_bytes());
        mac.update(phc.as_bytes());
        mac.update(secret.expose().as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(mac.sign().as_ref());
        tag
    }
}

/// A reading that has failed the quick ways.
struct Slow {
    client: Option<Arc<Client>>,
    secret: Secret,
    hashes: Vec<String>,
    tags: Vec<[u8; 32]>,
}

impl Slow {
    /// Who is proven, and what to remember of it.
    fn compute(self, hasher: &dyn SlowHasher) -> Option<(Arc<Client>, [u8; 32])> {
        let matched = self.hashes.iter().position(|phc| hasher.matches(&self.secret, phc));
        Some((self.client?, self.tags[matched?]))
    }
}

/// Looks at what is known of the first reading that names a client. Nothing slow is computed for
/// it, so of an imported secret that is no longer usable this says more than it was shown to be
/// right.
fn refused(book: &ClientBook, attempt: Attempt<'_>) -> Refused {
    let known = |presented: &'_ Presented| {
        Some((book.get(&presented.id)?.clone(), presented.secret.clone()))
    };
    let Some((client, secret)) = attempt.readings.iter().find_map(known) else {
        return Refused::Unknown;
    };
    let digest = CredentialDigest::sha256_of(secret.expose());
    let unusable = |credential: &&Credential| !credential.usable_at(attempt.now);
    let has_digest = |credential: &&Credential| match &credential.digest {
        CredentialDigest::Sha256(own) => own.ct_eq(&digest).into(),
        CredentialDigest::Argon2id(_) => false,
    };
    let presented = client.credentials.iter().filter(unusable).find(has_digest);
    let all_unusable = client.credentials.iter().all(|c| !c.usable_at(attempt.now));
    let last = client.credentials.last().filter(|_| all_unusable);
    match presented.or(last) {
        Some(credential) if credential.active => Refused::Expired,
        Some(_) => Refused::Revoked,
        None => Refused::SecretWrong,
    }
}

/// Compares with as many digests for every client, known or not.
fn matches_generated(client: Option<&Arc<Client>>, secret: &Secret, now: Timestamp) -> bool {
    // Nobody knows a secret with this digest.
    const NOBODYS: [u8; 32] = [0; 32];
    let presented = CredentialDigest::sha256_of(secret.expose());
    let own = usable(client, now).filter_map(|digest| match digest {
        CredentialDigest::Sha256(digest) => Some(digest),
        CredentialDigest::Argon2id(_) => None,
    });
    let compared = own.chain(std::iter::repeat(&NOBODYS)).take(MAX_ACTIVE_CREDENTIALS);
    let equal = |so_far: Choice, digest: &[u8; 32]| so_far | presented.ct_eq(digest);
    compared.fold(Choice::from(0), equal).into()
}

/// What a failure has to compute: the client's own imported credentials, then decoys for the
/// ones that it does not have, or that are not usable.
fn slow_hashes(book: &ClientBook, client: Option<&Arc<Client>>, now: Timestamp) -> Vec<String> {
    let own = usable(client, now).filter_map(|digest| match digest {
        CredentialDigest::Sha256(_) => None,
        CredentialDigest::Argon2id(phc) => Some(phc.clone()),
    });
    let mut hashes: Vec<String> = own.collect();
    let mut decoys: Vec<&String> = book.decoys().iter().collect();
    for phc in &hashes {
        let replaced = decoys.iter().position(|decoy| argon2id_cost(decoy) == argon2id_cost(phc));
        replaced.map(|position| decoys.swap_remove(position));
    }
    hashes.extend(decoys.into_iter().cloned());
    hashes
}

fn usable(client: Option<&Arc<Client>>, now: Timestamp) -> impl Iterator<Item = &CredentialDigest> {
    let credentials = client.into_iter().flat_map(|client| &client.credentials);
    credentials.filter(move |credential| credential.usable_at(now)).map(|c| &c.digest)
}

#[cfg(test)]
mod tests;
