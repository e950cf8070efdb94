//! What every change has in common: the state, the record of who did it, and how long it counts.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::Management;
use super::arrival::Actor;
use super::documents::{About, Done};
use super::failure::Failure;
use crate::config::{Config, Freshness, Lookup};
use crate::domain::{Client, ClientId, Holder, Target};
use crate::state::{Audit, AuditEntry, Change, Expect, Key, Record, State, Written};

/// How much longer than the longest token a row is kept.
const MARGIN: Duration = Duration::from_secs(3600);
const MAX_REASON: usize = 1024;

/// One action, as the record of management actions names it.
#[derive(Clone)]
pub struct Action {
    pub name: &'static str,
    actor: String,
    pub request_id: Uuid,
    /// The caller has named the request, and may make it again.
    pub is_named: bool,
    reason: Option<String>,
}

impl Action {
    /// A bad request id or reason is the caller's mistake.
    pub fn of(name: &'static str, actor: Actor, about: About) -> Result<Self, Failure> {
        let About { request_id, reason } = about;
        if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
            return Err(Failure::invalid("reason", "is longer than 1024 bytes"));
        }
        let is_named = request_id.is_some();
        let request_id = match request_id {
            Some(text) => Uuid::parse_str(&text).map_err(|_| {
                Failure::invalid("request_id", "is not a UUID; make a new one a change")
            })?,
            None => Uuid::now_v7(),
        };
        Ok(Self { name, actor: actor.0, request_id, is_named, reason })
    }

    /// The first of two writes; made again, it is the same one.
    pub fn first_part(&self) -> Self {
        Self { request_id: Uuid::new_v5(&self.request_id, b"first part"), ..self.clone() }
    }

    fn audit(self) -> Audit {
        let detail = self.reason.map(|reason| json!({ "reason": reason }).to_string());
        Audit {
            request_id: self.request_id.to_string(),
            actor: self.actor,
            action: self.name.to_owned(),
            detail: detail.unwrap_or_default(),
        }
    }
}

/// A request id is of one change only.
pub fn same_request(before: &AuditEntry, name: &str, key: &Key) -> Result<(), Failure> {
    let same = before.action == name
        && before.issuer == key.issuer
        && before.client == key.client
        && before.reference == key.reference;
    match same {
        true => Ok(()),
        false => {
            let text = "this request_id was used for another change; make a new one";
            Err(Failure::Conflict(text.to_owned()))
        }
    }
}

/// What is written, beside who does it.
pub struct Row {
    pub key: Key,
    pub hold: Duration,
    pub keep: Option<Duration>,
    pub lift: bool,
    pub body: String,
    pub expect: Expect,
}

impl Row {
    pub fn of(key: Key) -> Self {
        let (hold, body) = (Duration::ZERO, String::new());
        Self { key, hold, keep: None, lift: false, body, expect: Expect::Anything }
    }
}

impl Management {
    pub fn state(&self) -> Result<&Arc<State>, Failure> {
        self.engine.state().ok_or_else(Failure::no_state)
    }

    pub fn own_issuer(&self) -> Arc<str> {
        Arc::clone(&self.engine.gate.snapshot.load().own_issuer)
    }

    /// The registered client of a name.
    pub fn client(&self, id: &str) -> Result<Arc<Client>, Failure> {
        let book = self.engine.clients();
        let client = book.as_ref().and_then(|book| book.get(id).cloned());
        client.ok_or_else(Failure::no_client)
    }

    pub fn key(&self, client: &ClientId, target: Target) -> Key {
        let issuer = self.own_issuer();
        Key::of(Holder { issuer: &issuer, client: client.as_str() }, target)
    }

    /// How long a token of ours or another issuer's can live, or what a lookup said can count.
    pub fn longest(&self) -> Duration {
        let config = self.engine.config_now();
        let tokens = config.issuer.as_ref().map(|issuer| issuer.max_token_ttl + issuer.leeway);
        let others = config.issuers.iter().map(|issuer| issuer.max_lifetime + issuer.leeway);
        let longest = others.chain(tokens).max().unwrap_or_default();
        longest.max(lookup_counts(&config)) + MARGIN
    }

    /// Stored, and in force in this process, before it answers; a `request_id` given again is
    /// answered as it was.
    pub async fn withdraw(&self, action: Action, row: Row) -> Result<Done, Failure> {
        let (name, key) = (action.name, row.key.clone());
        match self.write_once(action, row).await? {
            Ok(record) => Ok(Done::new(record.seq, record.not_before)),
            Err(before) => {
                same_request(&before, name, &key)?;
                // Another process may have done it a moment ago.
                self.state()?.follow().await?;
                Ok(Done::new(before.seq, before.not_before))
            }
        }
    }

    async fn write_once(
        &self,
        action: Action,
        row: Row,
    ) -> Result<Result<Record, AuditEntry>, Failure> {
        let state = self.state()?;
        let audit = action.audit();
        let (name, actor) = (audit.action.clone(), audit.actor.clone());
        let Row { key, hold, keep, lift, body, expect } = row;
        let client = key.client.clone();
        let change = Change { key, hold, keep, lift, body, expect, audit };
        match state.write(change).await? {
            Written::Done(record) => {
                tracing::info!(action = name, actor, client, seq = record.seq, "managed");
                Ok(Ok(record))
            }
            Written::Repeated(entry) => Ok(Err(entry)),
            Written::Conflict => {
                Err(Failure::Conflict("exists already, or has just been changed".to_owned()))
            }
        }
    }
}

/// How old the answer of a lookup may be that still says that somebody has a grant.
fn lookup_counts(config: &Config) -> Duration {
    let limits = match &config.tenants.lookup {
        Lookup::Static => None,
        Lookup::Http(lookup) => Some(&lookup.limits),
        Lookup::Grpc(lookup) => Some(&lookup.limits),
    };
    let cached = limits.map(|limits| limits.cache_ttl + limits.stale_while_revalidate);
    let fresh = match config.tenants.freshness {
        Freshness::Token => Duration::ZERO,
        Freshness::Lookup { max_age, .. } => max_age,
    };
    cached.unwrap_or_default().max(fresh)
}
