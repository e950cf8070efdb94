use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::record::{
    AuditEntry, AuditQuery, Change, Record, UsageQuery, UsageRow, Written, micros_of,
};
use super::schema::Schema;

/// Where the state is kept. Every call is bounded in time.
pub trait Store: Send + Sync {
    /// Brings the schema up to what this build wants. Several may call it at once.
    fn migrate(&self) -> StoreFuture<'_, Schema>;

    /// What schema is there.
    fn schema(&self) -> StoreFuture<'_, Schema>;

    /// All or nothing: the record, the feed and the line of the audit.
    fn write(&self, change: Change) -> StoreFuture<'_, Written>;

    /// What was done under a request id.
    fn request(&self, id: String) -> StoreFuture<'_, Option<AuditEntry>>;

    /// What has changed since `cursor`; its first event is the cursor's own if the history is the
    /// same.
    fn poll(&self, cursor: &Cursor) -> StoreFuture<'_, Polled>;

    /// Everything that counts, as of one moment.
    fn load(&self) -> StoreFuture<'_, Loaded>;

    /// Removes what nobody needs any more.
    fn tidy(&self, retention: Retention) -> StoreFuture<'_, ()>;

    /// The newest entries that match.
    fn audit(&self, query: AuditQuery) -> StoreFuture<'_, Vec<AuditEntry>>;

    /// Adds counts to those that are there. After an error they may or may not have been added.
    fn add_usage(&self, rows: &[UsageRow]) -> StoreFuture<'_, ()>;

    /// The rows that match, by hour.
    fn usage(&self, query: UsageQuery) -> StoreFuture<'_, Vec<UsageRow>>;

    /// Whose turn it is to look a client up, for replicas.
    fn lookup_turn(&self, _wish: LookupWish) -> StoreFuture<'_, LookupTurn> {
        one_process()
    }

    /// Shares an answer, and ends the turn of its giver.
    fn share_lookup(&self, _wish: LookupWish, _answer: SharedLookup) -> StoreFuture<'_, ()> {
        one_process()
    }

    /// Ends a turn without an answer.
    fn release_lookup(&self, _wish: LookupWish) -> StoreFuture<'_, ()> {
        one_process()
    }

    /// The answers that were shared after a time of the database's.
    fn shared_lookups(&self, _section: &str, _after: i64) -> StoreFuture<'_, SharedLookups> {
        one_process()
    }
}

fn one_process<T>() -> StoreFuture<'static, T> {
    Box::pin(async {
        Err(StoreError::Refused(
            "a single process has no other to share \
                                              with"
                .to_owned(),
        ))
    })
}

/// What a replica wants to know of a client.
#[derive(Clone, Debug, Serialize)]
pub struct LookupWish {
    /// Names the lookup's config: others' answers mean nothing to it.
    pub section: String,
    /// Who is asked about.
    pub client: String,
    /// An answer to a lookup that began after this will do, in microseconds.
    pub newer_than: i64,
    /// How long a turn lasts.
    pub lease: i64,
    /// Names the replica.
    pub owner: String,
}

/// Whose turn a lookup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupTurn {
    /// Nobody else asks now.
    Ours,
    /// Another replica has the answer.
    Answered(SharedLookup),
    /// Somebody else asks.
    Theirs,
}

/// An answer that replicas share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedLookup {
    /// Whom it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// Sealed.
    pub answer: String,
    /// When the lookup began, in microseconds.
    pub looked_up_at: i64,
}

/// Shared answers, with the time of their reading.
#[derive(Clone, Debug, Deserialize)]
pub struct SharedLookups {
    /// The database's clock, in microseconds.
    pub now: i64,
    /// In no order.
    pub answers: Vec<SharedLookup>,
}

pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A place in the feed. The id tells whether it is still the same history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Its number; each change has the next one.
    pub seq: i64,
    /// Its id, which tells two histories apart.
    pub id: String,
}

/// A change in the history.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Its place.
    #[serde(flatten)]
    pub cursor: Cursor,
    /// `None`: a write that was refused.
    pub record: Option<Record>,
}

/// What came after a cursor.
#[derive(Clone, Debug, Deserialize)]
pub struct Polled {
    /// The database's clock, in microseconds.
    pub now: i64,
    /// The last event there is.
    pub head: i64,
    /// The first is the one that was asked with.
    pub events: Vec<Event>,
}

/// Everything that is kept.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The database's clock, in microseconds.
    pub now: i64,
    /// The newest change that is in it.
    pub cursor: Cursor,
    /// In no order.
    pub records: Vec<Record>,
}

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Records of management actions.
    pub audit: Duration,
    /// Hourly counts.
    pub usage: Duration,
}

/// A replica that has been away for longer than this reads everything again.
const FEED: Duration = Duration::from_secs(24 * 3600);
/// How long it can be told that something was lifted or deleted.
const LIFTED: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Serialize)]
pub(super) struct Ages {
    feed: i64,
    lifted: i64,
    audit: i64,
    usage: i64,
}

impl From<Retention> for Ages {
    fn from(retention: Retention) -> Self {
        Self {
            feed: micros_of(FEED),
            lifted: micros_of(LIFTED),
            audit: micros_of(retention.audit),
            usage: micros_of(retention.usage),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StoreError {
    /// Another try may succeed. The text names no secret.
    #[error("the state's database cannot be used right now: {0}")]
    Unavailable(String),
    #[error("the state's database is a standby, which takes no writes and may lag behind")]
    Standby,
    #[error("the state's database takes no writes")]
    ReadOnly,
    #[error(
        "the state's database has schema {found}, and this build wants {LATEST}; run `tenantgate \
         state migrate` with an account that may create tables",
        LATEST = super::LATEST
    )]
    SchemaOld { found: i64 },
    #[error(
        "the state's database has schema {found}, newer than the {LATEST} that this build knows; \
         run the newer build",
        LATEST = super::LATEST
    )]
    SchemaNew { found: i64 },
    /// It will not become better by itself.
    #[error("{0}")]
    Refused(String),
}
