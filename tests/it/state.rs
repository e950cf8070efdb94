//! The state on both of its engines: SQLite in a temporary folder, and a real PostgreSQL where
//! its wheel is in `.tools/venv` (`make tools`).

mod feed;
mod fleet;
mod kill;
mod store;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use sqlx::Connection as _;
use tempfile::TempDir;
use tenantgate::domain::{Secret, SystemClock};
use tenantgate::state::{Backend, PostgresSettings, Store};

/// A server that ends when its standard input does, which is when this process ends. Nobody can
/// wait for it then.
struct Server {
    url: String,
    /// A pooler in transaction mode before it. `None`: there is none to be had here.
    pooler: Option<String>,
    _input: ChildStdin,
    _child: Child,
}

/// One server for all tests of this binary. `None`: the wheel is not here.
#[expect(clippy::zombie_processes, reason = "it ends with this process, which cannot wait for it")]
fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let start = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let started = Command::new("python3")
            .arg(root.join("tests/postgres.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        if line.is_empty() {
            eprintln!("NOT TESTED WITH POSTGRESQL: run `make tools`");
            return None;
        }
        let urls: serde_json::Value = serde_json::from_str(&line).unwrap();
        let url = |name: &str| urls[name].as_str().map(str::to_owned);
        if url("pooler").is_none() {
            eprintln!("NOT TESTED BEHIND PGBOUNCER: it comes from a Debian mirror");
        }
        let (url, pooler) = (url("server").unwrap(), url("pooler"));
        Some(Server { url, pooler, _input: child.stdin.take()?, _child: child })
    };
    SERVER.get_or_init(start).as_ref()
}

/// A store of its own for one test.
pub struct Place {
    pub engine: Backend,
    pub name: &'static str,
    _folder: Option<TempDir>,
}

impl Place {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("state/tenantgate.db");
        Self { engine: Backend::Sqlite(path), name: "SQLite", _folder: Some(folder) }
    }

    pub async fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = tokio::task::spawn_blocking(server).await.unwrap()?;
        let database = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = sqlx::PgConnection::connect(&server.url).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {database}"));
        sqlx::raw_sql(create).execute(&mut admin).await.unwrap();
        Some(Self::at(&server.url, &database, "PostgreSQL"))
    }

    /// A database of its own behind a pooler in transaction mode.
    pub async fn pooled() -> Option<Self> {
        let place = Self::postgres().await?;
        let Backend::Postgres(settings) = &place.engine else { return None };
        let database = settings.url.expose().rsplit('/').next()?;
        Some(Self::at(server()?.pooler.as_ref()?, database, "PostgreSQL behind pgbouncer"))
    }

    fn at(url: &str, database: &str, name: &'static str) -> Self {
        let (server, _) = url.rsplit_once('/').unwrap();
        let url = Secret::new(format!("{server}/{database}"));
        let engine = Backend::Postgres(PostgresSettings { url, ca_pem: None });
        Self { engine, name, _folder: None }
    }

    pub async fn all() -> Vec<Self> {
        let postgres = Self::postgres().await.into_iter().chain(Self::pooled().await);
        std::iter::once(Self::sqlite()).chain(postgres).collect()
    }

    pub async fn open(&self) -> Arc<dyn Store> {
        self.engine.open(Arc::new(SystemClock)).await.unwrap()
    }
}
