//! What is stored for longer than a process lives, and shared by all of them: withdrawals, clients,
//! the record of who changed what, and counts of use. One process keeps it in SQLite, replicas in
//! PostgreSQL. Checks never ask here: a feed of changes keeps
//! [`Withdrawals`](crate::domain::Withdrawals) in memory up to date.

mod backend;
mod client;
mod feed;
#[cfg(feature = "state")]
mod postgres;
mod record;
mod schema;
mod seal;
mod snapshot;
#[cfg(feature = "state")]
mod sqlite;
mod store;
mod view;
mod wire;

pub use backend::{Backend, PostgresSettings};
pub use client::{ClientBody, ClientContext, StoredCredential, StoredQuota};
pub use feed::{FeedSettings, State, StateHealth};
pub use record::{
    Audit, AuditEntry, AuditQuery, Change, Expect, Key, Kind, Record, UsageQuery, UsageRow, Written,
};
pub use schema::{LATEST, Schema};
pub use seal::{Sealer, StateKey};
pub use store::{
    Cursor, Event, Loaded, LookupTurn, LookupWish, Polled, Retention, SharedLookup, SharedLookups,
    Store, StoreError,
};
pub use view::ClientSink;
