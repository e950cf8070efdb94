//! SQLite, for exactly one process. Its clock is this process's.

mod sql;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqliteConnection};
use uuid::Uuid;

use super::record::{
    AuditEntry, AuditQuery, Change, Record, UsageQuery, UsageRow, Written, micros,
};
use super::schema::{LATEST, MIGRATIONS, Schema, VERSION_TABLE};
use super::store::{Ages, Cursor, Loaded, Polled, Retention, Store, StoreError, StoreFuture};
use super::wire;
use crate::domain::Clock;

/// As `statfs` tells them: on these a lock may not be seen by another machine.
const NETWORK_FILE_SYSTEMS: [(i64, &str); 10] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
];

pub struct Sqlite {
    pool: SqlitePool,
    clock: Arc<dyn Clock>,
    /// Held for as long as the file is open.
    _lock: File,
}

impl Sqlite {
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let lock = take(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // Without shared memory, and nobody else gets in.
            .locking_mode(SqliteLockingMode::Exclusive)
            // What was acknowledged survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(2))
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let store = Self { pool, clock, _lock: lock };
        store.version().await.map_err(|error| match error {
            StoreError::Unavailable(why) => {
                StoreError::Refused(format!("{} cannot be used: {why}", path.display()))
            }
            error => error,
        })?;
        Ok(store)
    }

    fn now(&self) -> i64 {
        micros(self.clock.now())
    }

    async fn rows(
        &self,
        sql: &'static str,
        argument: &impl Serialize,
    ) -> Result<Vec<String>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        rows(&mut connection, sql, &wire::to_json(argument)?, self.now()).await
    }

    async fn version(&self) -> Result<Schema, StoreError> {
        let found = self.rows(sql::VERSION, &json!({})).await;
        let no_table = |error: &StoreError| error.to_string().contains("no such table");
        match found {
            Ok(rows) => {
                let version = rows.first().and_then(|row| row.parse().ok()).unwrap_or(0);
                Ok(Schema { version })
            }
            Err(error) if no_table(&error) => Ok(Schema { version: 0 }),
            Err(error) => Err(error),
        }
    }

    async fn apply(&self, found: i64) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(VERSION_TABLE).execute(&mut *transaction).await?;
        for version in found..LATEST {
            for statement in MIGRATIONS[version as usize] {
                sqlx::query(*statement).execute(&mut *transaction).await?;
            }
            if version == 0 {
                let id = Uuid::now_v7().to_string();
                rows(&mut transaction, sql::FIRST_EVENT, &wire::to_json(&id)?, self.now()).await?;
            }
            let done = "INSERT INTO tenantgate_schema (version) VALUES ($1)";
            sqlx::query(done).bind(version + 1).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn write_once(&self, change: &Change) -> Result<Written, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let now = self.now();
        let known = json!({ "id": change.audit.request_id }).to_string();
        if let Some(row) = rows(&mut transaction, sql::AUDIT_OF, &known, now).await?.first() {
            return Ok(Written::Repeated(wire::from_json(row)?));
        }
        let argument = wire::to_json(&wire::WriteArgument::of(change))?;
        rows(&mut transaction, sql::NEXT, "{}", now).await?;
        let written = rows(&mut transaction, sql::WRITE, &argument, now).await?;
        let Some(record) = written.first() else { return Ok(Written::Conflict) };
        rows(&mut transaction, sql::WRITE_AUDIT, &argument, now).await?;
        let event = json!({ "id": Uuid::now_v7().to_string(), "body": record }).to_string();
        rows(&mut transaction, sql::WRITE_EVENT, &event, now).await?;
        let record: Record = wire::from_json(record)?;
        transaction.commit().await?;
        Ok(Written::Done(record))
    }
}

impl Store for Sqlite {
    fn migrate(&self) -> StoreFuture<'_, Schema> {
        Box::pin(async {
            let before = self.version().await?;
            if before.version > LATEST {
                return Err(StoreError::SchemaNew { found: before.version });
            }
            if before.version < LATEST {
                self.apply(before.version).await?;
            }
            self.version().await
        })
    }

    fn schema(&self) -> StoreFuture<'_, Schema> {
        Box::pin(self.version())
    }

    fn write(&self, change: Change) -> StoreFuture<'_, Written> {
        Box::pin(async move { self.write_once(&change).await })
    }

    fn request(&self, id: String) -> StoreFuture<'_, Option<AuditEntry>> {
        Box::pin(async move {
            let rows = self.rows(sql::AUDIT_OF, &json!({ "id": id })).await?;
            rows.first().map(|row| wire::from_json(row)).transpose()
        })
    }

    fn poll(&self, cursor: &Cursor) -> StoreFuture<'_, Polled> {
        let argument = json!({ "seq": cursor.seq });
        Box::pin(async move {
            let rows = self.rows(sql::POLL, &argument).await?;
            wire::from_json(rows.first().map_or("", String::as_str))
        })
    }

    fn load(&self) -> StoreFuture<'_, Loaded> {
        Box::pin(async { wire::loaded(&self.rows(sql::LOAD, &json!({})).await?) })
    }

    fn tidy(&self, retention: Retention) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let ages = Ages::from(retention);
            for statement in sql::TIDY {
                self.rows(statement, &ages).await?;
            }
            Ok(())
        })
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<'_, Vec<AuditEntry>> {
        Box::pin(async move {
            let rows = self.rows(sql::AUDIT, &query).await?;
            rows.iter().map(|row| wire::from_json(row)).collect()
        })
    }

    fn add_usage(&self, rows: &[UsageRow]) -> StoreFuture<'_, ()> {
        let rows = json!(rows);
        Box::pin(async move {
            self.rows(sql::ADD_USAGE, &rows).await?;
            Ok(())
        })
    }

    fn usage(&self, query: UsageQuery) -> StoreFuture<'_, Vec<UsageRow>> {
        Box::pin(async move {
            let rows = self.rows(sql::USAGE, &query).await?;
            rows.iter().map(|row| wire::from_json(row)).collect()
        })
    }
}

/// `$1` is the argument as JSON, `$2` the time.
async fn rows(
    connection: &mut SqliteConnection,
    sql: &'static str,
    argument: &str,
    now: i64,
) -> Result<Vec<String>, StoreError> {
    let query = sqlx::query_scalar::<_, String>(sql).bind(argument).bind(now);
    Ok(query.fetch_all(connection).await?)
}

/// Makes the file, for its owner only, and takes the lock that keeps a second process out.
fn take(path: &Path) -> Result<File, StoreError> {
    let refused = |why: String| StoreError::Refused(format!("{}: {why}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| refused(format!("its folder cannot be made: {error}")))?;
    if let Some(name) = network_file_system(folder) {
        return Err(refused(format!(
            "lies on a network file system ({name}), where SQLite's locks do not hold; use a local \
             disk, or PostgreSQL"
        )));
    }
    let own = |path: &Path| {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
    };
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let opened = own(path).and_then(|_| own(&PathBuf::from(lock_path)));
    let lock = opened.map_err(|error| refused(format!("cannot be opened: {error}")))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(refused(
            "is in use by another process; a SQLite file serves exactly one, use PostgreSQL for \
             several"
                .to_owned(),
        )),
        Err(TryLockError::Error(error)) => Err(refused(format!("cannot be locked: {error}"))),
    }
}

fn network_file_system(folder: &Path) -> Option<&'static str> {
    let found = rustix::fs::statfs(folder).ok()?;
    network_name(found.f_type as i64)
}

fn network_name(magic: i64) -> Option<&'static str> {
    // Some platforms sign-extend the 32 bits.
    let magic = magic & 0xffff_ffff;
    NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_number() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42_u32 as i32 as i64), Some("CIFS"));
        // ext4 and tmpfs
        assert_eq!((network_name(0xef53), network_name(0x0102_1994)), (None, None));
    }
}
