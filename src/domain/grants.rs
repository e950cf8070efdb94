use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};

use super::wish::WishFlag;
use super::{
    ClientId, Holder, Monotonic, Quota, TenantCode, TenantDigest, TenantDigester, TenantSet,
};

/// Further claims of a token: the claim's name and its value as JSON text.
pub type Attributes = BTreeMap<String, String>;

/// What one successful lookup said of one client. An empty set is an answer too: no grants.
pub struct GrantSet {
    /// In the order of the answer.
    pub codes: Vec<TenantCode>,
    /// The digest of each code under the key that was current then, for new tokens.
    pub current: Box<[TenantDigest]>,
    /// The digests of all codes under every honoured key, for comparison with tokens.
    pub digests: TenantSet,
    /// Further claims that the answer gives the client's tokens.
    pub attributes: Attributes,
    /// What the provider lets this client ask for, where its answer says so.
    pub quota: Option<Quota>,
    /// When the lookup was sent: the answer is at least as young as that.
    pub looked_up_at: Monotonic,
    /// The validator of the answer, for `If-None-Match`.
    pub etag: Option<String>,
}

impl GrantSet {
    /// A set of these tenants, of no known age.
    pub fn of(codes: Vec<TenantCode>, digester: &TenantDigester, holder: Holder<'_>) -> Self {
        let codes_of = || codes.iter().map(TenantCode::expose);
        let current: Box<[_]> = codes_of().map(|code| digester.current(holder, code)).collect();
        let previous = codes_of().filter_map(|code| digester.previous(holder, code));
        Self {
            digests: current.iter().copied().chain(previous).collect(),
            current,
            codes,
            attributes: Attributes::new(),
            quota: None,
            looked_up_at: Monotonic::default(),
            etag: None,
        }
    }
}

impl fmt::Debug for GrantSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantSet").field("tenants", &self.codes.len()).finish_non_exhaustive()
    }
}

/// Where the checks of one client find its freshest grants, and leave word that it is in use.
/// Read on every request: no lock, no waiting.
#[derive(Default)]
pub struct GrantCell {
    current: ArcSwapOption<GrantSet>,
    last_used: AtomicU64,
    wanted: WishFlag,
}

impl GrantCell {
    /// The freshest set. `None`: nothing is known, or it was forgotten.
    pub fn current(&self) -> Guard<Option<Arc<GrantSet>>> {
        self.current.load()
    }

    /// Puts a newer set in force for the checks that begin after it.
    pub fn replace(&self, set: Arc<GrantSet>) {
        self.current.store(Some(set));
    }

    /// What is here can no longer be compared with anything.
    pub fn forget(&self) {
        self.current.store(None);
    }

    /// A check for this client happened, or a token was minted for it.
    pub fn touch(&self, now: Monotonic) {
        // Second resolution keeps the cache line shared between cores on a busy client.
        let seconds = now.secs();
        if self.last_used.load(Ordering::Relaxed) != seconds {
            self.last_used.store(seconds, Ordering::Relaxed);
        }
    }

    /// The last use, to the second. Zero: never.
    pub fn last_used(&self) -> Monotonic {
        Monotonic::from_secs(self.last_used.load(Ordering::Relaxed))
    }

    /// Asks for a lookup at once. True for the one caller who has to pass the word on; the
    /// others' wish is part of it until [`GrantCell::served`].
    pub fn want(&self) -> bool {
        self.wanted.want()
    }

    /// The wish has been answered, or could not be passed on.
    pub fn served(&self) {
        self.wanted.served();
    }
}

/// Finds the cell of a client, making it when there is none.
pub trait GrantBook: Send + Sync {
    /// The same cell for the same client, for as long as anybody holds it.
    fn cell(&self, client: &ClientId) -> Arc<GrantCell>;
}
