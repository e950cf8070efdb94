//! What is stored for longer than a process lives, and shared by all of them: withdrawals, clients,
//! the record of who changed what, and counts of use. One process keeps it in SQLite, replicas in
//! PostgreSQL. Checks never ask here: a feed of changes keeps
//! [`Withdrawals`](crate::domain::Withdrawals) in memory up to date.

mod client;
mod feed;
mod postgres;
mod record;
mod schema;
mod seal;
mod snapshot;
mod sqlite;
mod store;
mod view;
mod wire;

use std::sync::Arc;

use crate::domain::Clock;

pub use client::{ClientBody, ClientContext, StoredCredential, StoredQuota};
pub use feed::{FeedSettings, State, StateHealth};
pub use postgres::PostgresSettings;
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

use std::path::PathBuf;

/// Where the state is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Backend {
    /// A file, for exactly one process.
    Sqlite(PathBuf),
    /// Shared by all replicas.
    Postgres(PostgresSettings),
}

impl Backend {
    /// Opens the store. SQLite takes its lock here; PostgreSQL connects at the first use.
    pub async fn open(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(sqlite::Sqlite::open(path, clock).await?),
            Self::Postgres(settings) => Arc::new(postgres::Postgres::open(settings)?),
        })
    }
}
