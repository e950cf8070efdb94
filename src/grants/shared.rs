//! Answers that replicas share: the provider is asked once, however many there are.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::entry::{Answered, Entry};
use super::{Core, LookupOutcome, Settings, Tenants};
use crate::domain::{Attributes, ClientId, GrantSet, Monotonic, Quota, TenantCode};
use crate::lookup::{Answer, Grants, Listed};

/// How often a replica that waits for another's answer looks for it.
const LOOK: Duration = Duration::from_millis(80);
/// How often the others' answers are taken.
const TAKE_EVERY: Duration = Duration::from_millis(500);
/// How much longer a turn lasts than a lookup may take.
const MARGIN: Duration = Duration::from_secs(1);
/// In refreshes. A set older than this has been set back once already, while the store was out of
/// reach.
const SET_BACK: f64 = 1.3;

/// A lookup's answer as replicas share it.
pub struct SharedAnswer {
    /// Empty: no tenant has authorised the client.
    pub codes: Vec<TenantCode>,
    /// Further claims for tokens of this client.
    pub attributes: Attributes,
    /// `None`: the provider's answer has none.
    pub quota: Option<Quota>,
    /// When the lookup began, on this process's clock: its age counts from then, not from when it
    /// was taken.
    pub looked_up_at: Monotonic,
}

/// Whose turn it is to ask.
pub enum Turn {
    /// This replica asks the provider, then shares the answer or releases the turn.
    Ours,
    /// A shared answer is new enough.
    Answered(SharedAnswer),
    /// Another replica is asking; its answer is worth waiting for.
    Theirs,
}

/// What is wanted: a lookup that began after a time.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// Names the lookup's config. Answers under another name mean nothing to it.
    pub section: &'a str,
    /// Whose grants are wanted.
    pub client: &'a ClientId,
    /// The lookup has to have begun after this, on this process's clock.
    pub newer_than: Monotonic,
    /// How long a turn lasts.
    pub lease: Duration,
}

/// The store by which replicas share answers. Every call is short, even where the store does not
/// respond.
pub trait SharedAnswers: Send + Sync {
    /// Whether the store is out of reach at the moment.
    fn is_away(&self) -> bool;

    /// `None`: the store cannot say, so each replica asks for itself.
    fn turn<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Option<Turn>>;

    /// Lets the other replicas have an answer; a failure only costs them a lookup.
    fn share<'a>(&'a self, wish: Wish<'a>, set: &'a GrantSet) -> BoxFuture<'a, ()>;

    /// Ends a turn without an answer.
    fn release<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, ()>;

    /// What has been shared since the last time, or a little before.
    fn news<'a>(&'a self, section: &'a str) -> BoxFuture<'a, Vec<(ClientId, SharedAnswer)>>;
}

/// How new an answer has to be.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub newer_than: Monotonic,
    /// For an answer without grants.
    pub none_newer_than: Monotonic,
}

impl Wanted {
    pub fn since(at: Monotonic) -> Self {
        Self { newer_than: at, none_newer_than: at }
    }
}

impl Tenants {
    /// From now on answers are shared by this store, if the config says so.
    pub fn share_by(&self, shared: Arc<dyn SharedAnswers>) {
        // Once, at the start.
        let _ = self.core.shared.set(shared);
    }

    /// Takes the other replicas' answers for the clients that are in use here.
    pub(super) async fn follow_shared(&self) {
        loop {
            sleep(TAKE_EVERY).await;
            let settings = self.core.settings.load_full();
            let (Some(section), Some(shared)) = (&settings.section, self.core.shared.get()) else {
                continue;
            };
            for (client, answer) in shared.news(section).await {
                let entry = self.entries.get(&client).map(|entry| Arc::clone(&entry));
                if let Some(entry) = entry {
                    self.core.take(&client, &entry, &settings, answer);
                }
            }
        }
    }

    /// While the store is out of reach, each replica asks for itself: spread over a whole refresh,
    /// so that not all of them ask at once.
    pub(super) fn sets_back(&self, entry: &Entry, refresh: Duration, max_age: Duration) -> bool {
        let settings = self.core.settings.load();
        let shared = self.core.shared.get().filter(|_| settings.section.is_some());
        let now = self.core.instruments.clock.monotonic();
        let set = entry.cell.current();
        let (Some(true), Some(set)) = (shared.map(|shared| shared.is_away()), set.as_ref()) else {
            return false;
        };
        let age = now.since(set.looked_up_at);
        let longest = refresh.min(max_age.saturating_sub(age).mul_f64(0.5));
        let may_wait = age < refresh.mul_f64(SET_BACK) && !longest.is_zero();
        if may_wait {
            entry.wait_until(now.plus(longest.mul_f64(rand::random::<f64>())));
        }
        may_wait
    }
}

impl Core {
    /// Another replica's answer, if there is one that is new enough, or one is about to come.
    /// `None`: it is our turn to ask, or the store cannot say.
    pub(super) async fn shared_answer(
        &self,
        client: &ClientId,
        entry: &Arc<Entry>,
        settings: &Settings,
        wanted: Wanted,
    ) -> Option<LookupOutcome> {
        let shared = self.shared.get()?;
        let mut wish = settings.wish(client, wanted.newer_than)?;
        let deadline = Instant::now() + wish.lease;
        loop {
            match shared.turn(wish).await? {
                Turn::Ours => return None,
                Turn::Answered(answer) => {
                    let too_old = answer.codes.is_empty()
                        && answer.looked_up_at <= wanted.none_newer_than
                        && wish.newer_than < wanted.none_newer_than;
                    if !too_old {
                        return self.take(client, entry, settings, answer);
                    }
                    wish.newer_than = wanted.none_newer_than;
                }
                Turn::Theirs if Instant::now() < deadline => {
                    sleep(LOOK.mul_f64(0.5 + rand::random::<f64>())).await;
                }
                Turn::Theirs => return None,
            }
        }
    }

    /// Takes an answer like that of a lookup of our own, made at its time.
    fn take(
        &self,
        client: &ClientId,
        entry: &Arc<Entry>,
        settings: &Settings,
        answer: SharedAnswer,
    ) -> Option<LookupOutcome> {
        let previous = entry.previous(settings);
        if let Some(newer) = previous.filter(|set| set.looked_up_at >= answer.looked_up_at) {
            return Some(LookupOutcome::of(newer));
        }
        let SharedAnswer { codes, attributes, quota, looked_up_at } = answer;
        let listed = Listed::shared(codes, attributes, quota);
        let answer = Answer {
            grants: Grants::Listed { listed, etag: None },
            sent_at: looked_up_at,
            status: "shared".to_owned(),
        };
        let answered = Answered { answer, settings, previous: None };
        let kept = entry.succeeded(client, answered, self).ok()?;
        self.instruments.metrics.lookups_shared.inc();
        self.tell_lost(client, entry, &kept, "shared");
        tracing::debug!(%client, tenants = kept.set.codes.len(), "took a shared answer");
        Some(LookupOutcome::of(kept.set))
    }

    /// Shares the result of a lookup with the other replicas, in the background.
    pub(super) fn share(
        &self,
        client: &ClientId,
        settings: &Arc<Settings>,
        outcome: &LookupOutcome,
    ) {
        let Some(shared) = self.shared.get().cloned() else { return };
        if settings.section.is_none() {
            return;
        }
        let set = match outcome {
            LookupOutcome::Granted(set) | LookupOutcome::Denied(set) => Some(Arc::clone(set)),
            LookupOutcome::Unavailable(_) => None,
        };
        let (client, settings) = (client.clone(), Arc::clone(settings));
        tokio::spawn(async move {
            let Some(wish) = settings.wish(&client, Monotonic::default()) else { return };
            match set {
                Some(set) => shared.share(wish, &set).await,
                None => shared.release(wish).await,
            }
        });
    }
}

impl Settings {
    fn wish<'a>(&'a self, client: &'a ClientId, newer_than: Monotonic) -> Option<Wish<'a>> {
        let lease = self.directory.limits()?.timeout + MARGIN;
        Some(Wish { section: self.section.as_deref()?, client, newer_than, lease })
    }
}
