//! PostgreSQL, for replicas. Every call is one message of the simple protocol with its time-outs
//! inside, one JSON argument and JSON rows: it needs no prepared statement and no session, so it
//! works behind a pooler in transaction mode, and no stalled client can hold the row that orders
//! the writes.

mod sql;

use std::fmt::Write as _;
use std::str::FromStr as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use super::backend::PostgresSettings;
use super::record::{AuditEntry, AuditQuery, Change, UsageQuery, UsageRow, Written};
use super::schema::{LATEST, MIGRATIONS, Schema, VERSION_TABLE};
use super::store::{
    Ages, Cursor, Loaded, LookupTurn, LookupWish, Polled, Retention, SharedLookup, SharedLookups,
    Store, StoreError, StoreFuture,
};
use super::wire;

const CONNECT: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);
const CONNECTIONS: u32 = 4;
/// Any number that no other program is likely to take for its own advisory lock.
const MIGRATION_LOCK: i64 = 0x74656e616e746761;

pub struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub fn open(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .connect_lazy_with(options(settings)?);
        Ok(Self { pool })
    }

    /// Runs one statement; its `$1` is the argument as a JSON literal.
    async fn rows(
        &self,
        sql: &str,
        argument: &impl Serialize,
        limit: Duration,
    ) -> Result<Vec<String>, Failed> {
        let statement = sql.replace("$1", &literal(&wire::to_json(argument)?));
        let message = format!("{}{statement}", time_outs(limit));
        let mut connection = self.pool.acquire().await?;
        // The server gives up first, unless it is gone.
        let patience = limit + Duration::from_millis(500);
        let query = sqlx::raw_sql(AssertSqlSafe(message)).fetch_all(&mut *connection);
        match tokio::time::timeout(patience, query).await {
            Ok(Ok(rows)) => rows.iter().map(|row| Ok(row.try_get(0)?)).collect(),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                // Whatever still comes on this connection is nobody's answer.
                drop(connection.detach());
                Err(Failed::Other(StoreError::Unavailable("no answer in time".to_owned())))
            }
        }
    }

    async fn one<T: serde::de::DeserializeOwned>(
        &self,
        sql: &str,
        argument: &impl Serialize,
    ) -> Result<T, StoreError> {
        let rows = self.rows(sql, argument, SHORT).await?;
        wire::from_json(rows.first().map_or("", String::as_str))
    }

    async fn version(&self) -> Result<Schema, StoreError> {
        match self.rows(sql::VERSION, &json!({}), SHORT).await {
            Ok(rows) => {
                let version = rows.first().and_then(|row| row.parse().ok()).unwrap_or(0);
                Ok(Schema { version })
            }
            Err(Failed::NoTable) => Ok(Schema { version: 0 }),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn apply(&self) -> Result<(), Failed> {
        let mut transaction = self.pool.begin().await?;
        let first = format!(
            "SET LOCAL lock_timeout = '30s'; SET LOCAL statement_timeout = '60s'; \
             SELECT pg_advisory_xact_lock({MIGRATION_LOCK}); {VERSION_TABLE}"
        );
        sqlx::raw_sql(AssertSqlSafe(first)).execute(&mut *transaction).await?;
        let row = sqlx::raw_sql(sql::VERSION).fetch_one(&mut *transaction).await?;
        let found: i64 = row.try_get::<String, _>(0)?.parse().unwrap_or(0);
        for version in found.max(0)..LATEST {
            for statement in MIGRATIONS[version as usize] {
                sqlx::raw_sql(*statement).execute(&mut *transaction).await?;
            }
            if version == 0 {
                sqlx::raw_sql(sql::FIRST_EVENT).execute(&mut *transaction).await?;
            }
            let done = format!("INSERT INTO tenantgate_schema (version) VALUES ({})", version + 1);
            sqlx::raw_sql(AssertSqlSafe(done)).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn repeated(&self, request_id: &str) -> Result<Option<AuditEntry>, StoreError> {
        let rows = self.rows(sql::AUDIT_OF, &json!({ "id": request_id }), SHORT).await?;
        rows.first().map(|row| wire::from_json(row)).transpose()
    }
}

impl Store for Postgres {
    fn migrate(&self) -> StoreFuture<'_, Schema> {
        Box::pin(async {
            let before = self.version().await?;
            if before.version > LATEST {
                return Err(StoreError::SchemaNew { found: before.version });
            }
            if before.version < LATEST {
                let work = tokio::time::timeout(LONG + LONG, self.apply()).await;
                work.map_err(|_| StoreError::Unavailable("no answer in time".to_owned()))??;
            }
            self.version().await
        })
    }

    fn schema(&self) -> StoreFuture<'_, Schema> {
        Box::pin(self.version())
    }

    fn write(&self, change: Change) -> StoreFuture<'_, Written> {
        Box::pin(async move {
            match self.rows(sql::WRITE, &wire::WriteArgument::of(&change), SHORT).await {
                Ok(rows) => match rows.first().filter(|row| !row.is_empty()) {
                    Some(row) => Ok(Written::Done(wire::from_json(row)?)),
                    None => {
                        let known = self.repeated(&change.audit.request_id).await?;
                        Ok(known.map_or(Written::Conflict, Written::Repeated))
                    }
                },
                Err(Failed::Duplicate) => {
                    let known = self.repeated(&change.audit.request_id).await?;
                    let gone = || StoreError::Unavailable("two writes met; try again".to_owned());
                    known.map(Written::Repeated).ok_or_else(gone)
                }
                Err(failed) => Err(failed.into()),
            }
        })
    }

    fn request(&self, id: String) -> StoreFuture<'_, Option<AuditEntry>> {
        Box::pin(async move { self.repeated(&id).await })
    }

    fn poll(&self, cursor: &Cursor) -> StoreFuture<'_, Polled> {
        let argument = json!({ "seq": cursor.seq });
        Box::pin(async move {
            let polled: wire::FromPrimary<Polled> = self.one(sql::POLL, &argument).await?;
            polled.checked()
        })
    }

    fn load(&self) -> StoreFuture<'_, Loaded> {
        Box::pin(async {
            let rows = self.rows(sql::LOAD, &json!({}), LONG).await?;
            wire::loaded(&rows)
        })
    }

    fn tidy(&self, retention: Retention) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.rows(sql::TIDY, &Ages::from(retention), LONG).await?;
            Ok(())
        })
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<'_, Vec<AuditEntry>> {
        Box::pin(async move {
            let rows = self.rows(sql::AUDIT, &query, SHORT).await?;
            rows.iter().map(|row| wire::from_json(row)).collect()
        })
    }

    fn add_usage(&self, rows: &[UsageRow]) -> StoreFuture<'_, ()> {
        let rows = json!(rows);
        Box::pin(async move {
            self.rows(sql::ADD_USAGE, &rows, LONG).await?;
            Ok(())
        })
    }

    fn lookup_turn(&self, wish: LookupWish) -> StoreFuture<'_, LookupTurn> {
        Box::pin(async move {
            let state: wire::LookupState = self.one(sql::LOOKUP_TURN, &wish).await?;
            Ok(state.turn(&wish))
        })
    }

    fn share_lookup(&self, wish: LookupWish, answer: SharedLookup) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let argument = json!({
                "section": wish.section,
                "client": wish.client,
                "owner": wish.owner,
                "answer": answer.answer,
                "looked_up_at": answer.looked_up_at,
            });
            self.rows(sql::SHARE_LOOKUP, &argument, SHORT).await?;
            Ok(())
        })
    }

    fn release_lookup(&self, wish: LookupWish) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.rows(sql::RELEASE_LOOKUP, &wish, SHORT).await?;
            Ok(())
        })
    }

    fn shared_lookups(&self, section: &str, after: i64) -> StoreFuture<'_, SharedLookups> {
        let argument = json!({ "section": section, "after": after });
        Box::pin(async move { self.one(sql::SHARED_LOOKUPS, &argument).await })
    }

    fn usage(&self, query: UsageQuery) -> StoreFuture<'_, Vec<UsageRow>> {
        Box::pin(async move {
            let rows = self.rows(sql::USAGE, &query, SHORT).await?;
            rows.iter().map(|row| wire::from_json(row)).collect()
        })
    }
}

fn options(settings: &PostgresSettings) -> Result<PgConnectOptions, StoreError> {
    let url = settings.url.expose();
    let refused = |error: sqlx::Error| StoreError::Refused(format!("not a usable URL: {error}"));
    let mut options = PgConnectOptions::from_str(url).map_err(refused)?;
    let local = options.get_socket().is_some()
        || ["localhost", "127.0.0.1", "[::1]", "::1"].contains(&options.get_host())
        || options.get_host().starts_with('/');
    let chosen = url.contains("sslmode=") || url.contains("ssl-mode=");
    if let Some(pem) = &settings.ca_pem {
        options = options.ssl_root_cert_from_pem(pem.clone().into_bytes());
    }
    if !chosen && (settings.ca_pem.is_some() || !local) {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    Ok(options
        .application_name("tenantgate")
        .statement_cache_capacity(0)
        // A start-up parameter that older poolers refuse.
        .extra_float_digits(None)
        .disable_statement_logging())
}

/// They hold for the message's own transaction, so a pooler need not know them.
fn time_outs(limit: Duration) -> String {
    let lock = limit.as_millis() / 2;
    let all = limit.as_millis();
    format!("SET LOCAL lock_timeout = {lock}; SET LOCAL statement_timeout = {all}; ")
}

/// A text as a literal that means the same whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 16);
    literal.push_str(" E'");
    for character in text.chars() {
        match character {
            '\'' | '\\' => {
                // Writing to a `String` cannot fail.
                let _ = write!(literal, "\\{character}");
            }
            other => literal.push(other),
        }
    }
    literal.push('\'');
    literal
}

/// What matters of a failure inside this file.
enum Failed {
    Duplicate,
    NoTable,
    Other(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Duplicate => Self::Unavailable("two writes met; try again".to_owned()),
            Failed::NoTable => Self::SchemaOld { found: 0 },
            Failed::Other(error) => error,
        }
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let other = |error: StoreError| Self::Other(error);
        match code.as_deref() {
            Some("23505") => Self::Duplicate,
            Some("42P01") => Self::NoTable,
            Some("25006") => other(StoreError::ReadOnly),
            Some("42501") => other(StoreError::ReadOnly),
            _ => other(StoreError::Unavailable(error.to_string())),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Failed::from(error).into()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Idle connections go at once; a pool that is only dropped keeps them a while.
        drop(self.pool.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_be_left() {
        assert_eq!(literal(r#"{"a":"it's \" \\"}"#), r#" E'{"a":"it\'s \\" \\\\"}'"#);
    }
}
