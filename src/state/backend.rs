use std::path::PathBuf;
use std::sync::Arc;

use super::store::{Store, StoreError};
use crate::domain::{Clock, Secret};

/// Where the state is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Backend {
    /// A file, for exactly one process.
    Sqlite(PathBuf),
    /// Shared by all replicas.
    Postgres(PostgresSettings),
}

/// How the database is reached.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `postgres://…`, with the password in it.
    pub url: Secret,
    /// PEM certificates of the CA that the server's is held against.
    pub ca_pem: Option<String>,
}

impl Backend {
    /// Opens the store. SQLite takes its lock here; PostgreSQL connects at the first use.
    #[cfg(feature = "state")]
    pub async fn open(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        use super::{postgres::Postgres, sqlite::Sqlite};
        Ok(match self {
            Self::Sqlite(path) => Arc::new(Sqlite::open(path, clock).await?),
            Self::Postgres(settings) => Arc::new(Postgres::open(settings)?),
        })
    }

    /// Without a database linked in: what is withdrawn by calls cannot be known.
    #[cfg(not(feature = "state"))]
    pub async fn open(&self, _: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        let message =
            "this build is without the feature `state`: build it in, or leave `state` out";
        Err(StoreError::Refused(message.to_owned()))
    }
}

impl std::fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[PostgreSQL]")
    }
}

impl PartialEq for PostgresSettings {
    fn eq(&self, other: &Self) -> bool {
        self.url.expose() == other.url.expose() && self.ca_pem == other.ca_pem
    }
}
