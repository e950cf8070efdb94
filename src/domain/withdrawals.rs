//! What has been taken away from all clients, for many readers and one writer.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::{ClientWithdrawals, Evidence, Floor, Holder, Target, TenantRefs, Timestamp, Withdrawn};

/// A power of two. Most of a registry has nothing withdrawn, and one look here says so.
const MARKS: usize = 1 << 16;
const SHARDS: usize = 64;

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
    use crate::domain::{GrantEvidence, TokenEvidence, TokenRef, Vouched};

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
}
