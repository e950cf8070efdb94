//! A provider that answers as a test says, down to the bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub const TOKEN_PATH: &str = "/oauth/token";

/// One request as the provider saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

#[derive(Clone)]
pub enum Act {
    Send(Vec<u8>),
    Wait(Duration),
}

pub type Acts = Vec<Act>;

/// A whole answer.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Acts {
    let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    raw(&format!("{head}connection: close\r\n\r\n{body}"))
}

pub fn raw(bytes: &str) -> Acts {
    vec![Act::Send(bytes.into())]
}

pub fn slow(by: Duration, acts: Acts) -> Acts {
    [vec![Act::Wait(by)], acts].concat()
}

pub fn tenants(codes: &[&str]) -> Acts {
    answer(200, &[], &tenants_body(codes))
}

pub fn tenants_body(codes: &[&str]) -> String {
    let tenants: Vec<_> = codes.iter().map(|code| serde_json::json!({ "code": code })).collect();
    serde_json::json!({ "tenants": tenants }).to_string()
}

pub fn token(value: &str, expires_in: u64) -> Acts {
    let body = serde_json::json!({
        "access_token": value, "token_type": "bearer", "expires_in": expires_in,
    });
    answer(200, &[], &body.to_string())
}

type Script = dyn Fn(&Seen, usize) -> Acts + Send + Sync;

pub struct Provider {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    /// `script` gets each request and how many came before it on the same path.
    pub async fn start(script: impl Fn(&Seen, usize) -> Acts + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&all)));
            }
        });
        Self { url, seen }
    }

    /// Lookups for which `script` decides, behind a token endpoint that always works.
    pub async fn with_tokens(
        script: impl Fn(&Seen, usize) -> Acts + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |seen, nth| match seen.target.as_str() {
            TOKEN_PATH => token(&format!("token-{nth}"), 3600),
            _ => script(seen, nth),
        })
        .await
    }

    pub fn seen(&self, path: &str) -> Vec<Seen> {
        held(&self.seen).iter().filter(|seen| seen.target == path).cloned().collect()
    }

    pub fn all(&self) -> Vec<Seen> {
        held(&self.seen).clone()
    }

    pub fn count(&self, path: &str) -> usize {
        self.seen(path).len()
    }

    pub fn lookups_of(&self, client: &str) -> usize {
        self.count(&path_of(client))
    }
}

pub fn path_of(client: &str) -> String {
    format!("/{client}/authorizedTenants")
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, all: Arc<Mutex<Vec<Seen>>>) {
    let Some(seen) = read_request(&mut stream).await else { return };
    let acts = {
        let mut all = held(&all);
        let nth = all.iter().filter(|other| other.target == seen.target).count();
        all.push(seen.clone());
        drop(all);
        script(&seen, nth)
    };
    for act in acts {
        match act {
            Act::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::Wait(time) => tokio::time::sleep(time).await,
        }
    }
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let mut words = lines.next()?.split(' ').map(str::to_owned);
            let headers: BTreeMap<_, _> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
            if body.len() >= length {
                let (method, target) = (words.next()?, words.next()?);
                return Some(Seen { method, target, headers, body: body.to_owned() });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
