//! The module's end: connects, takes what is told, tells what it would like to know; again and
//! again.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::stage::Stage;
use super::{Fed, FeedError, Wire, check_hello, hello, v1};
use crate::authz::Hint;
use crate::domain::{Backoff, ClientId, GrantBook as _};

const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
/// For the hello of the other side.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often use is told, and what has been asked for may be asked for again.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often clients that are gone are looked for.
const TIDY_EVERY: u32 = 300;

/// Follows the feed at `socket` for as long as it is polled. `config` is the file that the sidecar
/// should run with.
pub async fn follow(fed: &Fed, socket: &Path, config: &Path) {
    let mut follower = Follower {
        fed,
        ever_began: false,
        began: false,
        told_stale: false,
        asked: Vec::new(),
        keys_asked: Vec::new(),
    };
    let mut logged = String::new();
    let mut failures = 0;
    loop {
        follower.began = false;
        let Err(error) = follower.run(socket, config).await;
        follower.let_ask_again();
        let began = follower.began;
        failures = if began { 1 } else { failures + 1 };
        let text = error.to_string();
        // The same trouble over and over is logged once.
        if began || text != logged {
            let socket = socket.display();
            tracing::error!(%socket, %error, "no feed from the sidecar: what it has sent stays in \
                                              force for its time");
            logged = text;
        }
        follower.watch_age();
        sleep(BACKOFF.after(failures)).await;
    }
}

struct Follower<'a> {
    fed: &'a Fed,
    ever_began: bool,
    /// The whole has been told on this connection; changes follow.
    began: bool,
    told_stale: bool,
    /// The clients that something was asked for.
    asked: Vec<ClientId>,
    /// The issuers of which a key was asked for.
    keys_asked: Vec<String>,
}

enum Never {}

impl Follower<'_> {
    async fn run(&mut self, socket: &Path, config: &Path) -> Result<Never, FeedError> {
        let mut wire = Wire::new(UnixStream::connect(socket).await?);
        send(&mut wire, v1::from_module::Message::Hello(hello(config))).await?;
        let first = timeout(PATIENCE, wire.next()).await.map_err(|_| FeedError::Silent)??;
        match first {
            (v1::FromSidecar { message: Some(v1::from_sidecar::Message::Hello(theirs)) }, _) => {
                check_hello(&theirs, config)?;
            }
            _ => return Err(FeedError::Wrong("no hello at the beginning")),
        }
        let mut hints = self.fed.hints.lock().await;
        let mut tick = interval(TELL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stage = Stage::default();
        let mut ticks = 0;
        loop {
            tokio::select! {
                message = wire.next() => {
                    let (message, length) = message?;
                    if let Some(commit) = stage.take(message, length)? {
                        self.fed.commit(std::mem::take(&mut stage), commit, !self.began)?;
                        self.confirmed();
                    }
                }
                Some(hint) = hints.recv() => {
                    if let Some(wish) = self.wish(hint) {
                        send(&mut wire, wish).await?;
                    }
                }
                _ = tick.tick() => {
                    self.tell_use(&mut wire).await?;
                    self.watch_age();
                    ticks += 1;
                    if ticks % TIDY_EVERY == 0 {
                        self.fed.cells.tidy(self.fed.now());
                    }
                }
            }
        }
    }

    fn confirmed(&mut self) {
        if !self.began {
            (self.began, self.ever_began) = (true, true);
            tracing::info!("the sidecar's feed is in force");
        }
    }

    /// `None`: it has been asked for a moment ago. A client that sends tokens with its own keys
    /// must not make us write for each.
    fn wish(&mut self, hint: Hint) -> Option<v1::from_module::Message> {
        use v1::from_module::Message;
        let name = |client: &ClientId| client.as_str().to_owned();
        let wish = match hint {
            Hint::UnknownKey { issuer } => {
                if self.keys_asked.contains(&issuer) {
                    return None;
                }
                self.keys_asked.push(issuer.clone());
                Message::UnknownKeyOf(issuer)
            }
            Hint::Grants(client) => {
                let message = Message::UnknownGrantsOf(name(&client));
                self.asked.push(client);
                message
            }
            Hint::Miss(client) => {
                let message = Message::MissedGrantOf(name(&client));
                self.asked.push(client);
                message
            }
        };
        Some(wish)
    }

    /// Tells who had requests since the last time, and lets what was asked for be asked for again.
    async fn tell_use(&mut self, wire: &mut Wire) -> Result<(), FeedError> {
        self.let_ask_again();
        // Uses are noted to the second.
        let since = self.fed.now().minus(TELL_EVERY + Duration::from_secs(1));
        let used = self.fed.cells.used_since(since);
        for part in used.chunks(CLIENTS_IN_A_FRAME) {
            let clients = part.iter().map(|client| client.as_str().to_owned()).collect();
            send(wire, v1::from_module::Message::Used(v1::Used { clients })).await?;
        }
        Ok(())
    }

    fn let_ask_again(&mut self) {
        for client in self.asked.drain(..) {
            self.fed.cells.cell(&client).served();
        }
        self.keys_asked.clear();
    }

    /// Says once that requests are refused because nothing was heard.
    fn watch_age(&mut self) {
        let stale = self.ever_began && !self.fed.is_fresh();
        if stale && !self.told_stale {
            tracing::error!("the sidecar has said nothing for too long: requests are answered 503");
        } else if !stale && self.told_stale {
            tracing::info!("the sidecar is heard again");
        }
        self.told_stale = stale;
    }
}

/// A name has at most 128 characters.
const CLIENTS_IN_A_FRAME: usize = 10_000;

async fn send(wire: &mut Wire, message: v1::from_module::Message) -> Result<(), FeedError> {
    wire.feed(&v1::FromModule { message: Some(message) }).await?;
    timeout(PATIENCE, wire.flush()).await.map_err(|_| FeedError::NotRead)?
}
