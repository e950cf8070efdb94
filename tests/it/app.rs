//! The whole app in process: real listeners on port 0, a clock that the test moves, and a stand-in
//! for the provider's API.

mod changes;
mod grants;
mod management;
mod peers;
mod questions;
mod reflection;
mod registration;
mod state;
mod tls;
mod tokens;
mod withdrawals;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use serde_json::{Value, json};
use tenantgate::app::{Environment, Running, start};
use tenantgate::domain::{Clock as _, ManualClock, Timestamp};
use tonic::transport::Channel;

use crate::provider::{self, Acts, answer, slow, tenants};

pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);
pub const SECRET: &str = "tgs_secret-of-acme";

/// The provider's API, as far as these tests need it.
#[derive(Clone, Default)]
pub struct Provider {
    pub grants: Arc<Mutex<HashMap<String, Vec<String>>>>,
    pub down: Arc<Mutex<bool>>,
    pub delay: Arc<Mutex<Duration>>,
    pub lookups: Arc<AtomicU32>,
}

impl Provider {
    pub async fn start(&self) -> String {
        let provider = self.clone();
        provider::Provider::start(move |seen, _| provider.look_up(&seen.target)).await.url
    }

    fn look_up(&self, path: &str) -> Acts {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let client = path.trim_start_matches('/').trim_end_matches("/authorizedTenants");
        let said = match self.grants.lock().unwrap().get(client) {
            _ if *self.down.lock().unwrap() => answer(500, &[], ""),
            Some(codes) => tenants(&codes.iter().map(String::as_str).collect::<Vec<_>>()),
            None => answer(404, &[], ""),
        };
        slow(*self.delay.lock().unwrap(), said)
    }

    pub fn grant(&self, client: &str, codes: &[&str]) {
        let codes = codes.iter().map(|code| (*code).to_owned()).collect();
        self.grants.lock().unwrap().insert(client.to_owned(), codes);
    }

    pub fn go_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    pub fn lookups(&self) -> u32 {
        self.lookups.load(Ordering::SeqCst)
    }
}

/// One tenantgate with its folder, its provider and its clock.
pub struct Gate {
    pub folder: tempfile::TempDir,
    pub provider: Provider,
    pub clock: Arc<ManualClock>,
    pub running: Running,
    pub http: reqwest::Client,
    check: AuthorizationClient<Channel>,
}

/// What a check answered.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub removed: Vec<String>,
    pub body: String,
}

pub const CONFIG: &str = r#"
listen: { check: "127.0.0.1:0", token: "127.0.0.1:0", admin: "127.0.0.1:0" }
issuer:
  url: https://issuer.test
  audience: https://api.test
  signing_keys: keys
  tenant_claim: { name: tenant_list, form: digest, key_file: digest.key }
clients: { file: clients.yaml }
tenants:
  freshness: { refresh: 60s, max_age: 300s }
  lookup:
    url: PROVIDER/{client_id}/authorizedTenants
    select: $.tenants[*].code
    max_tries: 1
    timeout: 20s # a busy machine is no outage
apis:
  - name: oda
    routes:
      - { path: "/api/{tenant}/report", methods: [GET], scopes: [reports.read] }
      - { path: "/api/{tenant}/{kind}/{id}", methods: [GET] }
      - { path: "/docs/{page}", methods: [GET], public: true }
"#;

pub fn clients_yaml(of_acme: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, SECRET.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "clients:\n  - id: acme\n    credentials:\n      - {{ digest: \"sha256:{digest}\" }}\n    \
         scopes: [reports.read, other]\n{of_acme}"
    )
}

impl Gate {
    pub async fn start() -> Self {
        Self::with_config(CONFIG).await
    }

    pub async fn with_config(config: &str) -> Self {
        Self::prepared(config, |_| ()).await
    }

    /// `prepare` may change the files before the start.
    pub async fn prepared(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let provider = Provider::default();
        provider.grant("acme", &["T1", "T2"]);
        let url = provider.start().await;
        let config = config.replace("PROVIDER", &url);
        std::fs::write(folder.path().join("tenantgate.yaml"), config).unwrap();
        std::fs::write(folder.path().join("clients.yaml"), clients_yaml("")).unwrap();
        command(&["keys", "generate", "--dir"], &folder.path().join("keys"));
        command(&["keys", "digest", "--out"], &folder.path().join("digest.key"));
        prepare(folder.path());
        // Keys are made by the system's clock; the test's own stands later.
        let clock = Arc::new(ManualClock::at(START.plus(Duration::from_secs(3600 * 24 * 365))));
        let environment = Environment {
            clock: Arc::clone(&clock) as _,
            check_runtime: tokio::runtime::Handle::current(),
        };
        let running = start(&folder.path().join("tenantgate.yaml"), environment).await.unwrap();
        let check = Channel::from_shared(format!("http://{}", running.addresses.check));
        let check = AuthorizationClient::new(check.unwrap().connect_lazy());
        Self { folder, provider, clock, running, http: reqwest::Client::new(), check }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    pub fn token_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.addresses.token.as_ref().unwrap())
    }

    pub async fn admin(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.running.addresses.admin);
        let response = self.http.get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A token request with the credentials of acme and this form beside the grant type.
    pub async fn request(&self, form: &str) -> (u16, Value) {
        let response = self
            .http
            .post(self.token_url("/oauth2/token"))
            .basic_auth("acme", Some(SECRET))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type=client_credentials{form}"))
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    pub async fn mint(&self) -> String {
        let (status, body) = self.request("").await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn check_headers(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        Self::ask(self.check.clone(), path, headers).await
    }

    pub async fn ask(
        mut check: AuthorizationClient<Channel>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let http = HttpRequest {
            method: "GET".into(),
            path: path.into(),
            headers: headers.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Default::default()
        };
        let request = CheckRequest {
            attributes: Some(AttributeContext {
                request: Some(Request { http: Some(http), ..Default::default() }),
                ..Default::default()
            }),
        };
        let response = check.check(request).await.unwrap().into_inner();
        let named = |headers: Vec<envoy_types::pb::envoy::config::core::v3::HeaderValueOption>| {
            headers.into_iter().filter_map(|h| h.header).map(|h| (h.key, h.value)).collect()
        };
        match response.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => Answer {
                status: 200,
                headers: named(ok.headers),
                removed: ok.headers_to_remove,
                body: String::new(),
            },
            HttpResponse::DeniedResponse(denied) => Answer {
                status: denied.status.unwrap().code as u16,
                headers: named(denied.headers),
                removed: Vec::new(),
                body: denied.body,
            },
            HttpResponse::ErrorResponse(error) => panic!("an error response: {error:?}"),
        }
    }

    pub async fn check(&self, path: &str, token: &str) -> Answer {
        self.check_headers(path, &[("authorization", &format!("Bearer {token}"))]).await
    }

    pub async fn status(&self, path: &str, token: &str) -> u16 {
        self.check(path, token).await.status
    }

    /// Asks again until the answer is there; background work needs a moment.
    pub async fn becomes(&self, path: &str, token: &str, status: u16) -> bool {
        for _ in 0..300 {
            if self.status(path, token).await == status {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }
}

/// The name of the key that signed a token.
pub fn kid(token: &str) -> String {
    use base64::Engine as _;
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token.split('.').next().unwrap())
        .unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

/// Runs the binary with a path as last argument.
pub fn command(args: &[&str], path: &Path) {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_tenantgate"))
        .args(args)
        .arg(path)
        .output()
        .unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
}
