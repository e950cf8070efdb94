use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{Floor, Holder, Target, TenantRef, Timestamp, TokenRef};

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A withdrawn grant: one client, one tenant.
    Grant,
    /// All tokens of a client up to a time.
    Tokens,
    /// A blocked client.
    Block,
    /// One revoked token.
    Token,
    /// A registered client; the body is its document.
    Client,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Which kind of word it is.
    pub kind: Kind,
    /// The `iss` of the client's tokens.
    pub issuer: String,
    /// The client's id.
    pub client: String,
    /// The tenant's or the token's reference; else empty.
    #[serde(rename = "ref")]
    pub reference: String,
}

impl Key {
    /// What withdraws this from the client.
    pub fn of(holder: Holder<'_>, target: Target) -> Self {
        let (kind, reference) = match target {
            Target::Grant(tenant) => (Kind::Grant, tenant.to_string()),
            Target::Tokens => (Kind::Tokens, String::new()),
            Target::Client => (Kind::Block, String::new()),
            Target::Token(id) => (Kind::Token, id.to_string()),
        };
        let (issuer, client) = (holder.issuer.to_owned(), holder.client.to_owned());
        Self { kind, issuer, client, reference }
    }

    /// A registered client.
    pub fn client(holder: Holder<'_>) -> Self {
        let (issuer, client) = (holder.issuer.to_owned(), holder.client.to_owned());
        Self { kind: Kind::Client, issuer, client, reference: String::new() }
    }

    /// Whose record it is.
    pub fn holder(&self) -> Holder<'_> {
        Holder { issuer: &self.issuer, client: &self.client }
    }

    /// What is withdrawn. `None`: nothing, it is a client; or a reference that nobody here wrote.
    pub fn target(&self) -> Option<Target> {
        match self.kind {
            Kind::Grant => TenantRef::from_text(&self.reference).map(Target::Grant),
            Kind::Tokens => Some(Target::Tokens),
            Kind::Block => Some(Target::Client),
            Kind::Token => TokenRef::from_text(&self.reference).map(Target::Token),
            Kind::Client => None,
        }
    }
}

/// The current word on one key. Times are the database's, in microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is about.
    #[serde(flatten)]
    pub key: Key,
    /// Evidence from before this counts for nothing.
    pub not_before: i64,
    /// `None`: it ends when it is lifted.
    pub expires_at: Option<i64>,
    /// 1: the withdrawal has been lifted, or the client deleted.
    pub lifted: i64,
    /// A client's document; else empty.
    pub body: String,
    /// Its place in the history.
    pub seq: i64,
    /// When it was written.
    pub at: i64,
}

impl Record {
    /// Whether it takes nothing away any more.
    pub fn is_lifted(&self) -> bool {
        self.lifted != 0
    }

    /// What it withdraws.
    pub fn floor(&self) -> Floor {
        Floor { not_before: timestamp(self.not_before), expires_at: self.expires_at.map(timestamp) }
    }
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_nanos(u64::try_from(micros).unwrap_or(0).saturating_mul(1_000))
}

pub(super) fn micros(time: Timestamp) -> i64 {
    i64::try_from(time.nanos() / 1_000).unwrap_or(i64::MAX)
}

pub(super) fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A write, with the line that the record of management actions keeps of it.
#[derive(Clone, Debug)]
pub struct Change {
    /// What is written.
    pub key: Key,
    /// The record's `not_before` is this much after the database's now.
    pub hold: Duration,
    /// The record ends this long after `not_before`. `None`: it ends when it is lifted.
    pub keep: Option<Duration>,
    /// Lifts the withdrawal, or deletes the client.
    pub lift: bool,
    /// A client's document; else empty.
    pub body: String,
    /// What must be there for the write to happen.
    pub expect: Expect,
    /// Who wrote it, and why.
    pub audit: Audit,
}

/// What has to be there for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The write happens whatever is there.
    Anything,
    /// Nothing, or something lifted.
    Absent,
    /// The record with this `seq`.
    Version(i64),
}

impl Expect {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Anything => -1,
            Self::Absent => 0,
            Self::Version(seq) => seq,
        }
    }
}

/// Who did what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// A UUID. The same one again does nothing and gets the same answer.
    pub request_id: String,
    /// The client, or how else the caller was recognised.
    pub actor: String,
    /// Such as `grants:withdraw`.
    pub action: String,
    /// JSON, or empty.
    pub detail: String,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The record as it is now.
    Done(Record),
    /// The request id was used before: what was done then.
    Repeated(AuditEntry),
    /// [`Expect`] was not met.
    Conflict,
}

/// One management action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// A UUID; the same one is written once.
    #[serde(rename = "id")]
    pub request_id: String,
    /// The record's place in the history.
    pub seq: i64,
    /// When, in microseconds.
    pub at: i64,
    /// Who called.
    pub actor: String,
    /// Such as `grants:withdraw`.
    pub action: String,
    /// Of the client.
    pub issuer: String,
    /// Whom it is about.
    pub client: String,
    /// The tenant or token; empty: neither.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Of the record.
    pub not_before: i64,
    /// The reason that was given, and more.
    pub detail: String,
}

/// Empty texts match everything. The newest come first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AuditQuery {
    /// Empty: all.
    pub client: String,
    /// Empty: all.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Microseconds; inclusive.
    pub from: i64,
    /// Exclusive.
    pub to: i64,
    /// Entries at most, the newest first.
    pub limit: i64,
}

/// Calls of one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// The hour's start, in microseconds, like the other times.
    pub hour: i64,
    /// The `iss` of the client's tokens.
    pub issuer: String,
    /// The client's id, or `other`.
    pub client: String,
    /// The tenant's reference; `other` where the keys of the hour are used up.
    #[serde(rename = "ref")]
    pub reference: String,
    /// `allowed`, or the reason of the denial.
    pub outcome: String,
    /// Requests in that hour.
    pub count: i64,
    /// The first of them, in microseconds.
    pub first: i64,
    /// The last of them, in microseconds.
    pub last: i64,
}

/// Empty texts match everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UsageQuery {
    /// Empty: all.
    pub client: String,
    /// Empty: all.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Hours that start at or after this, in microseconds.
    pub from: i64,
    /// Exclusive.
    pub to: i64,
    /// Rows at most.
    pub limit: i64,
}
