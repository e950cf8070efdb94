//! What has been taken away by a call instead of by a file: the one place that says whether a
//! token, a client or a grant still stands. Checks, mints, introspection and `explain` ask the same
//! function.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};

use zeroize::Zeroizing;

use super::{DIGEST_KEY_LEN, Holder, Timestamp};

/// A power of two. Most of a registry has nothing withdrawn, and one look here says so.
const MARKS: usize = 1 << 16;
const SHARDS: usize = 64;

/// Stands for a tenant in stored rows, answers and logs: a keyed digest of its code, the same for
/// all clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantRef([u8; 16]);

impl TenantRef {
    /// The truncated HMAC.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From what [`TenantRef::bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From lower-case hex. `None`: not the text of a reference.
    pub fn from_text(text: &str) -> Option<Self> {
        bytes(text).map(Self)
    }
}

impl fmt::Display for TenantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for TenantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes [`TenantRef`]s.
pub struct TenantRefs {
    key: hmac::Key,
    /// For the feed, whose other side names tenants too.
    secret: Zeroizing<[u8; DIGEST_KEY_LEN]>,
}

impl TenantRefs {
    /// `key` is the digest key, or the one of `state.key_file`.
    pub fn new(key: &[u8; DIGEST_KEY_LEN]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), secret: Zeroizing::new(*key) }
    }

    /// The key itself.
    pub fn expose_key(&self) -> &[u8; DIGEST_KEY_LEN] {
        &self.secret
    }

    /// The reference of a tenant code; the same for all clients.
    pub fn of(&self, code: &str) -> TenantRef {
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(b"tenantgate tenant reference\0");
        mac.update(code.as_bytes());
        TenantRef(first_half(mac.sign().as_ref()))
    }
}

/// Stands for the `jti` of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenRef([u8; 16]);

impl TokenRef {
    /// The truncated hash.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From what [`TokenRef::bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Of a `jti` (RFC 7519, section 4.1.7).
    pub fn of(jti: &str) -> Self {
        Self(first_half(digest::digest(&digest::SHA256, jti.as_bytes()).as_ref()))
    }

    /// From lower-case hex. `None`: not the text of a reference.
    pub fn from_text(text: &str) -> Option<Self> {
        bytes(text).map(Self)
    }
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn first_half(long: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&long[..16]);
    half
}

fn bytes(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// What is withdrawn from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One tenant, on evidence up to [`Floor::not_before`].
    Grant(TenantRef),
    /// All tokens issued up to [`Floor::not_before`].
    Tokens,
    /// Everything, until it is lifted.
    Client,
    /// One token.
    Token(TokenRef),
}

/// From when on evidence counts again. All times here are the state's, see
/// [`Withdrawals::to_shared`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Evidence from before this counts for nothing; on the clock of the state.
    pub not_before: Timestamp,
    /// Nothing that this concerns can live past here. `None`: it ends only when it is lifted.
    pub expires_at: Option<Timestamp>,
}

impl Floor {
    /// Ties deny.
    fn refuses(&self, evidence: Timestamp) -> bool {
        evidence <= self.not_before
    }
}

/// What somebody rests a claim on. Only what is given is looked at.
#[derive(Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// `None`: no token is involved, as with an API key.
    pub token: Option<TokenEvidence>,
    /// `None`: no tenant is asked about.
    pub grant: Option<GrantEvidence<'a>>,
}

/// What a token says of itself.
#[derive(Clone, Copy)]
pub struct TokenEvidence {
    /// The `iat` claim (RFC 7519, section 4.1.6).
    pub issued_at: Timestamp,
    /// `None`: the token has no `jti`.
    pub id: Option<TokenRef>,
}

/// What speaks for a client's access to one tenant.
#[derive(Clone, Copy)]
pub struct GrantEvidence<'a> {
    /// The code.
    pub tenant: &'a str,
    /// How old the evidence is.
    pub vouched: Vouched,
}

/// What says that a client may read a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// The registry lists it. It has no age, so a withdrawal holds until it is lifted.
    Listed,
    /// The newest of: the token's `grants_at` (another issuer's `iat`), or a lookup that has the
    /// tenant.
    At(Timestamp),
}

/// Why something does not stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// The client is blocked.
    Client,
    /// All its tokens up to a time.
    Tokens,
    /// This token.
    Token,
    /// The client's access to this tenant.
    Grant,
}

/// A client as a number, so that a check needs to hash no names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject(u64);

impl Subject {
    /// Nothing is withdrawn from this client yet.
    pub fn of(holder: Holder<'_>) -> Self {
        // Two clients that meet in one number only take a slower way to the same answer.
        let mut hasher = DefaultHasher::new();
        (holder.issuer, holder.client).hash(&mut hasher);
        Self(hasher.finish())
    }

    fn mark(self) -> usize {
        self.0 as usize % MARKS
    }

    fn shard(self) -> usize {
        (self.0 >> 32) as usize % SHARDS
    }
}

/// All that is withdrawn from one client.
#[derive(Clone, Default)]
pub struct ClientWithdrawals {
    client: Option<Floor>,
    tokens: Option<Floor>,
    grants: HashMap<TenantRef, Floor>,
    token_ids: HashMap<TokenRef, Floor>,
}

impl ClientWithdrawals {
    /// Whether what is shown still stands.
    pub fn standing(&self, evidence: Evidence<'_>, refs: &TenantRefs) -> Result<(), Withdrawn> {
        if self.client.is_some() {
            return Err(Withdrawn::Client);
        }
        if let Some(token) = evidence.token {
            if self.tokens.is_some_and(|floor| floor.refuses(token.issued_at)) {
                return Err(Withdrawn::Tokens);
            }
            if token.id.is_some_and(|id| self.token_ids.contains_key(&id)) {
                return Err(Withdrawn::Token);
            }
        }
        if let Some(grant) = evidence.grant
            && !self.grants.is_empty()
            && let Some(floor) = self.grants.get(&refs.of(grant.tenant))
        {
            let stands = match grant.vouched {
                Vouched::Listed => false,
                Vouched::At(time) => !floor.refuses(time),
            };
            if !stands {
                return Err(Withdrawn::Grant);
            }
        }
        Ok(())
    }

    /// Tokens issued up to this time are refused.
    pub fn tokens_not_before(&self) -> Option<Timestamp> {
        self.tokens.map(|floor| floor.not_before)
    }

    /// `None`: the client is not blocked.
    pub fn blocked(&self) -> Option<Floor> {
        self.client
    }

    /// `None`: its tokens are not revoked as a whole.
    pub fn tokens(&self) -> Option<Floor> {
        self.tokens
    }

    /// The tokens that were revoked one by one.
    pub fn token_ids(&self) -> impl Iterator<Item = (TokenRef, Floor)> + '_ {
        self.token_ids.iter().map(|(token, floor)| (*token, *floor))
    }

    /// Whether the client as a whole is blocked.
    pub fn is_blocked(&self) -> bool {
        self.client.is_some()
    }

    /// The withdrawn tenants.
    pub fn grants(&self) -> impl Iterator<Item = (TenantRef, Floor)> + '_ {
        self.grants.iter().map(|(tenant, floor)| (*tenant, *floor))
    }

    fn is_empty(&self) -> bool {
        self.client.is_none()
            && self.tokens.is_none()
            && self.grants.is_empty()
            && self.token_ids.is_empty()
    }

    /// `None` lifts what was withdrawn.
    pub fn set(&mut self, target: Target, floor: Option<Floor>) {
        match (target, floor) {
            (Target::Client, floor) => self.client = floor,
            (Target::Tokens, floor) => self.tokens = floor,
            (Target::Grant(tenant), Some(floor)) => {
                self.grants.insert(tenant, floor);
            }
            (Target::Grant(tenant), None) => {
                self.grants.remove(&tenant);
            }
            (Target::Token(id), Some(floor)) => {
                self.token_ids.insert(id, floor);
            }
            (Target::Token(id), None) => {
                self.token_ids.remove(&id);
            }
        }
    }

    fn expire(&mut self, now: Timestamp) -> bool {
        let lives = |floor: &Floor| floor.expires_at.is_none_or(|end| now < end);
        let before = self.len();
        self.client = self.client.filter(&lives);
        self.tokens = self.tokens.filter(&lives);
        self.grants.retain(|_, floor| lives(floor));
        self.token_ids.retain(|_, floor| lives(floor));
        self.len() != before
    }

    fn len(&self) -> usize {
        usize::from(self.client.is_some())
            + usize::from(self.tokens.is_some())
            + self.grants.len()
            + self.token_ids.len()
    }
}

/// An issuer and one of its clients.
pub type WithdrawnHolder = (Box<str>, Box<str>);
type Shard = RwLock<HashMap<WithdrawnHolder, Arc<ClientWithdrawals>>>;

/// Everything that is withdrawn, for all clients. Read by every check, changed one row at a time.
pub struct Withdrawals {
    refs: TenantRefs,
    /// Whether what is here can be relied on: nothing is allowed before.
    known: AtomicBool,
    /// What the state's clock is ahead of this process's, in nanoseconds.
    ahead: AtomicI64,
    /// How many clients have something withdrawn, by a part of their number.
    marks: Box<[AtomicU32]>,
    shards: Box<[Shard]>,
    /// Counts what has changed.
    version: AtomicU64,
}

impl Withdrawals {
    /// Nothing is known yet.
    pub fn new(refs: TenantRefs) -> Self {
        Self {
            refs,
            known: AtomicBool::new(false),
            ahead: AtomicI64::new(0),
            marks: (0..MARKS).map(|_| AtomicU32::new(0)).collect(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            version: AtomicU64::new(0),
        }
    }

    /// What tenants are named by.
    pub fn refs(&self) -> &TenantRefs {
        &self.refs
    }

    /// Whether the state has been read; nothing passes before.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// The state, or a local copy of it, has been read.
    pub fn set_known(&self) {
        self.known.store(true, Ordering::Release);
    }

    /// What is withdrawn from a client; `None` is the common case and costs one look at memory.
    pub fn of(&self, subject: Subject, holder: Holder<'_>) -> Option<Arc<ClientWithdrawals>> {
        if self.marks[subject.mark()].load(Ordering::Acquire) == 0 {
            return None;
        }
        let shard = self.shards[subject.shard()].read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&name(holder)).cloned()
    }

    /// What is withdrawn from a client, for a caller without its number.
    pub fn lookup(&self, holder: Holder<'_>) -> Option<Arc<ClientWithdrawals>> {
        self.of(Subject::of(holder), holder)
    }

    /// Whether what is shown still stands.
    pub fn standing(&self, holder: Holder<'_>, evidence: Evidence<'_>) -> Result<(), Withdrawn> {
        match self.lookup(holder) {
            Some(withdrawn) => withdrawn.standing(evidence, &self.refs),
            None => Ok(()),
        }
    }

    /// Takes a withdrawal, or lifts it (`None`).
    pub fn set(&self, holder: Holder<'_>, target: Target, floor: Option<Floor>) {
        self.change(holder, |withdrawn| withdrawn.set(target, floor));
    }

    fn change(&self, holder: Holder<'_>, change: impl FnOnce(&mut ClientWithdrawals)) {
        let subject = Subject::of(holder);
        let mark = &self.marks[subject.mark()];
        let mut shard =
            self.shards[subject.shard()].write().unwrap_or_else(PoisonError::into_inner);
        let before = shard.get(&name(holder));
        let mut after = before.map_or_else(ClientWithdrawals::default, |own| (**own).clone());
        let was_there = before.is_some();
        change(&mut after);
        match (was_there, after.is_empty()) {
            (_, false) => {
                shard.insert(name(holder), Arc::new(after));
                mark.fetch_add(u32::from(!was_there), Ordering::AcqRel);
            }
            (true, true) => {
                shard.remove(&name(holder));
                mark.fetch_sub(1, Ordering::AcqRel);
            }
            (false, true) => {}
        }
        drop(shard);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes all that is withdrawn from one client, in the place of what was.
    pub fn replace(&self, holder: Holder<'_>, all: ClientWithdrawals) {
        self.change(holder, |withdrawn| *withdrawn = all);
    }

    /// Another number after every change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Everything, by issuer and client.
    pub fn all(&self) -> Vec<(WithdrawnHolder, Arc<ClientWithdrawals>)> {
        let of = |shard: &Shard| -> Vec<_> {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.iter().map(|(name, own)| (name.clone(), Arc::clone(own))).collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// Forgets what concerns nothing that can live at `now` (the state's time).
    pub fn expire(&self, now: Timestamp) {
        let mut over = HashSet::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let ends = shard.iter().filter(|(_, own)| (***own).clone().expire(now));
            over.extend(ends.map(|(name, _)| name.clone()));
        }
        for (issuer, client) in over {
            let holder = Holder { issuer: &issuer, client: &client };
            self.change(holder, |withdrawn| {
                withdrawn.expire(now);
            });
        }
    }

    /// How many withdrawals are in force.
    pub fn len(&self) -> usize {
        let of = |shard: &Shard| -> usize {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.values().map(|own| own.len()).sum()
        };
        self.shards.iter().map(of).sum()
    }

    /// Whether nothing is withdrawn.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A time of this process in the state's clock, which all replicas share.
    pub fn to_shared(&self, local: Timestamp) -> Timestamp {
        let ahead = self.ahead.load(Ordering::Relaxed);
        Timestamp::from_nanos(local.nanos().saturating_add_signed(ahead))
    }

    /// A time in the state's clock as one of this process.
    pub fn to_local(&self, shared: Timestamp) -> Timestamp {
        let ahead = self.ahead.load(Ordering::Relaxed);
        Timestamp::from_nanos(shared.nanos().saturating_add_signed(-ahead))
    }

    /// Takes a measurement: `local` on this process's clock was `shared` on the state's.
    pub fn set_clock(&self, local: Timestamp, shared: Timestamp) {
        let ahead = i128::from(shared.nanos()) - i128::from(local.nanos());
        let ahead = ahead.clamp(i128::from(-i64::MAX), i128::from(i64::MAX));
        self.ahead.store(ahead as i64, Ordering::Relaxed);
    }

    /// What the state's clock is ahead of this process's, in nanoseconds.
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Takes what somebody else on this machine has measured.
    pub fn set_ahead(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// How far the state's clock is from this process's.
    pub fn clock_difference(&self) -> Duration {
        Duration::from_nanos(self.ahead.load(Ordering::Relaxed).unsigned_abs())
    }
}

impl fmt::Debug for Withdrawals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawals").field("known", &self.is_known()).finish_non_exhaustive()
    }
}

fn name(holder: Holder<'_>) -> WithdrawnHolder {
    (holder.issuer.into(), holder.client.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: Holder<'_> = Holder { issuer: "https://i", client: "acme" };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn floor(not_before: u64, expires_at: Option<u64>) -> Option<Floor> {
        Some(Floor { not_before: at(not_before), expires_at: expires_at.map(at) })
    }

    fn withdrawals() -> Withdrawals {
        Withdrawals::new(TenantRefs::new(&[7; 32]))
    }

    fn grant(tenant: &str, vouched: Vouched) -> Evidence<'_> {
        Evidence { grant: Some(GrantEvidence { tenant, vouched }), ..Evidence::default() }
    }

    fn token(issued_at: u64, jti: &str) -> Evidence<'static> {
        let id = Some(TokenRef::of(jti));
        let token = Some(TokenEvidence { issued_at: at(issued_at), id });
        Evidence { token, ..Evidence::default() }
    }

    #[test]
    fn a_grant_counts_only_on_evidence_younger_than_its_floor() {
        let all = withdrawals();
        all.set(ACME, Target::Grant(all.refs().of("T1")), floor(100, None));
        let standing = |tenant, vouched| all.standing(ACME, grant(tenant, vouched));
        for (vouched, outcome) in [
            (Vouched::At(at(99)), Err(Withdrawn::Grant)),
            (Vouched::At(at(100)), Err(Withdrawn::Grant)),
            (Vouched::At(at(101)), Ok(())),
            (Vouched::Listed, Err(Withdrawn::Grant)),
        ] {
            assert_eq!(standing("T1", vouched), outcome, "{vouched:?}");
        }
        assert_eq!(standing("T2", Vouched::At(at(1))), Ok(()));
        all.set(ACME, Target::Grant(all.refs().of("T1")), None);
        assert_eq!(standing("T1", Vouched::At(at(1))), Ok(()));
        assert!(all.is_empty());
    }

    #[test]
    fn tokens_fall_by_their_time_or_by_their_id() {
        let all = withdrawals();
        all.set(ACME, Target::Tokens, floor(100, None));
        all.set(ACME, Target::Token(TokenRef::of("one")), floor(0, None));
        for (evidence, outcome) in [
            (token(100, "two"), Err(Withdrawn::Tokens)),
            (token(101, "one"), Err(Withdrawn::Token)),
            (token(101, "two"), Ok(())),
            (grant("T1", Vouched::At(at(1))), Ok(())),
        ] {
            assert_eq!(all.standing(ACME, evidence), outcome);
        }
    }

    #[test]
    fn a_block_takes_everything_of_its_client_and_nothing_of_another() {
        let all = withdrawals();
        all.set(ACME, Target::Client, floor(100, None));
        assert_eq!(all.standing(ACME, Evidence::default()), Err(Withdrawn::Client));
        for other in [
            Holder { client: "other", ..ACME },
            Holder { issuer: "https://j", ..ACME },
            Holder { issuer: "https://ia", client: "cme" },
        ] {
            assert_eq!(all.standing(other, Evidence::default()), Ok(()), "{other:?}");
        }
    }

    #[test]
    fn what_concerns_nothing_any_more_is_forgotten() {
        let all = withdrawals();
        all.set(ACME, Target::Tokens, floor(100, Some(200)));
        all.set(ACME, Target::Token(TokenRef::of("one")), floor(0, Some(150)));
        all.set(Holder { client: "b", ..ACME }, Target::Client, floor(0, None));
        all.expire(at(149));
        assert_eq!(all.len(), 3);
        all.expire(at(150));
        assert_eq!((all.len(), all.standing(ACME, token(100, "x"))), (2, Err(Withdrawn::Tokens)));
        all.expire(at(200));
        assert_eq!((all.len(), all.standing(ACME, token(100, "x"))), (1, Ok(())));
    }

    #[test]
    fn times_convert_both_ways() {
        let all = withdrawals();
        all.set_clock(at(1_000), at(990));
        assert_eq!((all.to_shared(at(50)), all.to_local(at(40))), (at(40), at(50)));
        assert_eq!(all.clock_difference(), Duration::from_secs(10));
    }

    #[test]
    fn references_round_trip_and_depend_on_the_key() {
        let reference = TenantRefs::new(&[7; 32]).of("CANARY");
        assert_eq!(TenantRef::from_text(&reference.to_string()), Some(reference));
        assert_ne!(TenantRefs::new(&[8; 32]).of("CANARY"), reference);
        for bad in ["", "zz", &"0".repeat(31), &"0".repeat(34)] {
            assert_eq!(TenantRef::from_text(bad), None);
        }
        assert_eq!(TokenRef::from_text(&TokenRef::of("a").to_string()), Some(TokenRef::of("a")));
    }
}
