//! The sidecar's end: tells everything, then what has changed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::v1::from_sidecar::Message;
use super::{FeedError, Wire, check_hello, hello, put, v1};
use crate::authz::{Hint, Snapshot, Trust};
use crate::config::Freshness;
use crate::domain::{
    ClientBook, ClientId, ClientWithdrawals, GrantBook as _, GrantSet, Monotonic, Withdrawals,
    WithdrawnHolder,
};
use crate::engine::Engine;

/// How soon a change is told.
const TICK: Duration = Duration::from_millis(100);
/// Every so many ticks grants are compared, and something is said though nothing has changed.
const HEARTBEAT: u32 = 3;
/// How old the feed may be where no `max_age` says.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(300);
/// For the hello of a module that connects, and for one that does not read.
const PATIENCE: Duration = Duration::from_secs(5);
/// What goes into one frame, roughly.
const FRAME: usize = 256 << 10;

/// Feeds one module until its connection ends; says why it did.
pub async fn publish(engine: &Engine, stream: UnixStream, config: &Path) -> FeedError {
    match run(engine, stream, config).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

enum Never {}

async fn run(engine: &Engine, stream: UnixStream, config: &Path) -> Result<Never, FeedError> {
    let mut wire = Wire::new(stream);
    send(&mut wire, vec![Message::Hello(hello(config))]).await?;
    let first = timeout(PATIENCE, wire.next()).await.map_err(|_| FeedError::Silent)??;
    match first {
        (v1::FromModule { message: Some(v1::from_module::Message::Hello(theirs)) }, _) => {
            check_hello(&theirs, config)?;
        }
        _ => return Err(FeedError::Wrong("no hello at the beginning")),
    }
    let mut published = Published::default();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0;
    loop {
        tokio::select! {
            message = wire.next() => take(engine, message?.0)?,
            _ = tick.tick() => {
                // Before anything is looked at: what is told is at least as young as that.
                let now = engine.clock.moment();
                let news = published.news(engine, now.monotonic, ticks % HEARTBEAT == 0);
                if !news.is_empty() || ticks % HEARTBEAT == 0 {
                    send(&mut wire, news).await?;
                    let sent_at_nanos = now.wall.nanos();
                    send(&mut wire, vec![Message::Commit(v1::Commit { sent_at_nanos })]).await?;
                }
                ticks += 1;
            }
        }
    }
}

async fn send(wire: &mut Wire, messages: Vec<Message>) -> Result<(), FeedError> {
    for message in messages {
        let message = v1::FromSidecar { message: Some(message) };
        timeout(PATIENCE, wire.feed(&message)).await.map_err(|_| FeedError::NotRead)??;
    }
    timeout(PATIENCE, wire.flush()).await.map_err(|_| FeedError::NotRead)?
}

/// What the module would like to have looked up, or has seen in use.
fn take(engine: &Engine, message: v1::FromModule) -> Result<(), FeedError> {
    use v1::from_module::Message as Wish;
    let client = |name: &str| ClientId::parse(name).ok_or(FeedError::Wrong("no client id"));
    match message.message {
        Some(Wish::UnknownKeyOf(issuer)) => (engine.gate.hints)(Hint::UnknownKey { issuer }),
        Some(Wish::UnknownGrantsOf(name)) => (engine.gate.hints)(Hint::Grants(client(&name)?)),
        Some(Wish::MissedGrantOf(name)) => (engine.gate.hints)(Hint::Miss(client(&name)?)),
        Some(Wish::Used(used)) => {
            let now = engine.clock.monotonic();
            for name in &used.clients {
                engine.tenants.cell(&client(name)?).touch(now);
            }
        }
        Some(Wish::Hello(_)) => return Err(FeedError::Wrong("a second hello")),
        None => return Err(FeedError::Wrong("a message of an unknown kind")),
    }
    Ok(())
}

/// What one module has been told.
#[derive(Default)]
struct Published {
    snapshot: Option<Arc<Snapshot>>,
    rules: Option<v1::Rules>,
    trust: Option<Arc<Trust>>,
    clients: Option<Arc<ClientBook>>,
    grants: HashMap<ClientId, Arc<GrantSet>>,
    withdrawals: Option<ToldWithdrawals>,
}

#[derive(Default)]
struct ToldWithdrawals {
    begun: bool,
    version: u64,
    known: bool,
    ahead: i64,
    from: HashMap<WithdrawnHolder, Arc<ClientWithdrawals>>,
}

impl Published {
    /// What has changed since the last time, in the order in which it is to be told. The state of
    /// the withdrawals is read first: what changes meanwhile is told the next time.
    fn news(&mut self, engine: &Engine, now: Monotonic, look_at_grants: bool) -> Vec<Message> {
        let mut news = Vec::new();
        let snapshot = engine.gate.snapshot.load_full();
        let mut look_at_grants = look_at_grants;
        let same = self.snapshot.as_ref().is_some_and(|told| Arc::ptr_eq(told, &snapshot));
        if !same {
            let rules = put::rules(&snapshot, feed_max_age(engine));
            if self.rules.as_ref() != Some(&rules) {
                news.push(Message::Rules(rules.clone()));
                self.rules = Some(rules);
                // Under new keys every client's tenants have other digests.
                look_at_grants = true;
            }
            if self.trust.as_ref().is_none_or(|told| !Arc::ptr_eq(told, &snapshot.trust)) {
                news.push(Message::Keys(put::keys(&snapshot.trust, now)));
                self.trust = Some(Arc::clone(&snapshot.trust));
            }
            self.news_of_clients(&snapshot, &mut news);
        }
        if look_at_grants {
            self.news_of_grants(engine, now, &mut news);
        }
        match &snapshot.withdrawals {
            Some(all) => self.withdrawals.get_or_insert_default().news(all, &mut news),
            None => self.withdrawals = None,
        }
        self.snapshot = Some(snapshot);
        news
    }

    fn news_of_clients(&mut self, snapshot: &Snapshot, news: &mut Vec<Message>) {
        let before = std::mem::replace(&mut self.clients, snapshot.clients.clone());
        let Some(book) = &snapshot.clients else { return };
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, book)) {
            return;
        }
        let before = before.unwrap_or_default();
        let is_told =
            |id: &str, client| before.get(id).is_some_and(|told| Arc::ptr_eq(told, client));
        let new = book.iter().filter(|client| !is_told(client.id.as_str(), client));
        let put = in_frames(new.map(|client| put::client(client)));
        let gone = before.iter().filter(|client| book.get(client.id.as_str()).is_none());
        let gone: Vec<String> = gone.map(|client| client.id.as_str().to_owned()).collect();
        // What takes access away goes first.
        if !gone.is_empty() {
            let removed = in_frames_of(gone, String::len);
            news.extend(
                removed
                    .into_iter()
                    .map(|removed| Message::Clients(v1::Clients { put: Vec::new(), removed })),
            );
        }
        let message = |put| Message::Clients(v1::Clients { put, removed: Vec::new() });
        news.extend(put.into_iter().map(message));
    }

    fn news_of_grants(&mut self, engine: &Engine, now: Monotonic, news: &mut Vec<Message>) {
        let known = engine.tenants.all_known();
        let changed = known.iter().filter_map(|(client, set)| {
            let told = self.grants.get(client);
            if told.is_some_and(|told| Arc::ptr_eq(told, set)) {
                return None;
            }
            let other = told.is_none_or(|told| told.digests != set.digests);
            Some(put::grants(client.as_str(), set, other, now))
        });
        let frames = in_frames(changed);
        news.extend(frames.into_iter().map(|of| Message::Grants(v1::Grants { of })));
        self.grants = known.into_iter().collect();
    }
}

impl ToldWithdrawals {
    fn news(&mut self, all: &Withdrawals, news: &mut Vec<Message>) {
        // Before the rows: what changes while they are read is told the next time.
        let (version, known, ahead) = (all.version(), all.is_known(), all.ahead());
        let first = !std::mem::replace(&mut self.begun, true);
        if !first && (version, known, ahead) == (self.version, self.known, self.ahead) {
            return;
        }
        let mut changed = Vec::new();
        if first || version != self.version {
            let now: HashMap<_, _> = all.all().into_iter().collect();
            let is_told = |holder, own| {
                self.from.get(holder).is_some_and(|told: &Arc<_>| Arc::ptr_eq(told, own))
            };
            let new = now.iter().filter(|(holder, own)| !is_told(holder, own));
            changed.extend(new.map(|(holder, own)| put::withdrawn(holder, own)));
            let lifted = self.from.keys().filter(|holder| !now.contains_key(*holder));
            let nothing = ClientWithdrawals::default();
            changed.extend(lifted.map(|holder| put::withdrawn(holder, &nothing)));
            self.from = now;
        }
        (self.version, self.known, self.ahead) = (version, known, ahead);
        let mut frames = in_frames(changed.into_iter());
        if frames.is_empty() {
            frames.push(Vec::new());
        }
        news.extend(
            frames.into_iter().map(|from| {
                Message::Withdrawals(v1::Withdrawals { known, ahead_nanos: ahead, from })
            }),
        );
    }
}

fn feed_max_age(engine: &Engine) -> Duration {
    match engine.config_now().tenants.freshness {
        Freshness::Lookup { max_age, .. } => max_age,
        Freshness::Token => DEFAULT_MAX_AGE,
    }
}

fn in_frames<M: prost::Message>(all: impl Iterator<Item = M>) -> Vec<Vec<M>> {
    in_frames_of(all, M::encoded_len)
}

fn in_frames_of<M>(all: impl IntoIterator<Item = M>, length: impl Fn(&M) -> usize) -> Vec<Vec<M>> {
    let mut frames = Vec::new();
    let (mut frame, mut bytes) = (Vec::new(), 0);
    for one in all {
        bytes += length(&one);
        frame.push(one);
        if bytes >= FRAME {
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
    }
    if !frame.is_empty() {
        frames.push(frame);
    }
    frames
}
