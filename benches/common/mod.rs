//! What all benches decide on: a config as an operator would write it, signed tokens, and checks as
//! Envoy sends them.

#![allow(dead_code, reason = "each bench uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::google::protobuf::Timestamp as WireTimestamp;
use prost::Message as _;
use serde_json::json;
use tempfile::TempDir;
use tenantgate::authz::{FactsCache, ProbeWatch, Snapshot};
use tenantgate::domain::{
    ClientId, Clock, GrantBook, GrantCell, GrantSet, Holder, SystemClock, TenantCode,
};
use tenantgate::engine::Inputs;
use tenantgate::gate::Gate;
use tenantgate::keys::{SigningAlgorithm, store};
use tenantgate::telemetry::Metrics;

pub const ISSUER: &str = "https://api.example.com";
pub const CLIENT: &str = "acme-analytics";
pub const SECRET: &str = "tgs_bench";
pub const PATH: &str = "/oda/apis/get/reports/assets/tenant/T0/devicedistribution";
/// Tenants in the token of a typical check.
pub const TENANTS: usize = 3;

/// The files of one installation, in a folder that goes away with this.
pub struct Installation {
    dir: TempDir,
    pub inputs: Inputs,
}

impl Installation {
    /// `lookup` is the provider's address, asked for the grants of every client.
    pub fn new(lookup: &str, further_config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let now = SystemClock.now();
        store::generate(&dir.path().join("keys"), SigningAlgorithm::Es256, None, now)
            .expect("a signing key");
        let config = config(lookup) + further_config;
        let digest = tenantgate::domain::CredentialDigest::sha256_of(SECRET);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let clients = format!(
            "clients:\n  - id: {CLIENT}\n    status: approved\n    developer: {{ id: acme, status: \
             active }}\n    \
             credentials:\n      - {{ digest: \"sha256:{digest}\", status: active }}\n    scopes: \
             [reports.read]\n"
        );
        for (name, text) in [
            ("tenantgate.yaml", config.as_str()),
            ("clients.yaml", &clients),
            ("tenant-digest.key", &"5a".repeat(32)),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("a writable folder");
            owner_only(&path);
        }
        let config = dir.path().join("tenantgate.yaml");
        let inputs = Inputs::open(&config, Arc::new(SystemClock))
            .unwrap_or_else(|problems| panic!("the bench's own config: {problems:?}"));
        Self { dir, inputs }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A token as the token endpoint would mint it. `id` tells tokens apart.
    pub fn token(&self, id: usize, tenants: usize) -> String {
        self.token_with(id, tenants, json!({}))
    }

    /// The same with further claims.
    pub fn token_with(&self, id: usize, tenants: usize, further: serde_json::Value) -> String {
        let now = SystemClock.now();
        let holder = Holder { issuer: ISSUER, client: CLIENT };
        let digests = codes(tenants)
            .map(|code| self.inputs.digester().current(holder, code.expose()).to_text())
            .collect::<Vec<_>>();
        let mut payload = json!({
            "iss": ISSUER, "aud": ISSUER, "sub": CLIENT, "client_id": CLIENT,
            "iat": now.secs(), "exp": now.secs() + 1800, "jti": format!("{id:022}"),
            "scope": "reports.read", "tenant_list": digests, "grants_at": now.secs(),
        });
        if let (Some(payload), Some(further)) = (payload.as_object_mut(), further.as_object()) {
            payload.extend(further.clone());
        }
        let keys = self.inputs.signing_keys().expect("the config has an issuer");
        let signer = keys.signer(now).expect("a key was made");
        let header = json!({ "alg": "ES256", "kid": signer.kid(), "typ": "at+jwt" });
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(payload.to_string().as_bytes())
        );
        let signature = signer.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", encode(&signature))
    }

    pub fn snapshot(&self, metrics: &Metrics) -> Snapshot {
        self.inputs.snapshot(metrics, None)
    }

    /// A gate without a listener; it knows the client's grants.
    pub fn gate(&self, snapshot: Snapshot, metrics: Metrics, cache_bytes: u64) -> Gate {
        let cells = Cells::default();
        let digester = &snapshot.digester;
        let holder = Holder { issuer: ISSUER, client: CLIENT };
        let client = ClientId::parse(CLIENT).expect("a client id");
        cells.cell(&client).replace(Arc::new(GrantSet {
            looked_up_at: SystemClock.monotonic(),
            ..GrantSet::of(codes(300).collect(), digester, holder)
        }));
        Gate {
            timed: true,
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            cache: Arc::new(FactsCache::new(cache_bytes)),
            probes: ProbeWatch::default(),
            grants: Arc::new(cells),
            clock: Arc::new(SystemClock),
            metrics: Arc::new(metrics),
            hints: Box::new(|_| {}),
            decision_ids: AtomicU64::new(0),
            ledger: Default::default(),
        }
    }

    pub fn typical_gate(&self) -> Gate {
        let metrics = Metrics::new();
        self.gate(self.snapshot(&metrics), metrics, 64 << 20)
    }
}

fn config(lookup: &str) -> String {
    format!(
        "listen: {{ check: 127.0.0.1:0, token: 127.0.0.1:0, admin: 127.0.0.1:0, feed: \
         unix:feed.sock }}
issuer:
  url: {ISSUER}
  audience: {ISSUER}
  token_ttl: 30m
  signing_keys: keys/
  tenant_claim: {{ name: tenant_list, form: digest, key_file: tenant-digest.key }}
clients: {{ file: clients.yaml }}
tenants:
  lookup: {{ url: 'http://{lookup}/{{client_id}}/authorizedTenants', select: '$.tenants[*].code' }}
apis:
  - name: oda
    routes:
      - path: /oda/apis/get/reports/assets/tenant/{{tenant}}/devicedistribution
        methods: [GET]
        ignore_case: true
        scopes: [reports.read]
"
    )
}

/// Secrets that others may read are refused.
fn owner_only(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}

/// T0, T1 and so on.
pub fn codes(count: usize) -> impl Iterator<Item = TenantCode> {
    (0..count).map(|at| TenantCode::parse(&format!("T{at}")).expect("a tenant code"))
}

#[derive(Default)]
struct Cells(DashMap<ClientId, Arc<GrantCell>>);

impl GrantBook for Cells {
    fn cell(&self, client: &ClientId) -> Arc<GrantCell> {
        Arc::clone(&self.0.entry(client.clone()).or_default())
    }
}

/// What Envoy sends with the settings of `envoy/envoy.yaml`.
pub fn check_request(path: &str, token: &str) -> Vec<u8> {
    let peer = |port| Peer {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                address: "127.0.0.1".into(),
                port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
                ..Default::default()
            })),
        }),
        ..Default::default()
    };
    let http = HttpRequest {
        id: "16371830203345678431".into(),
        method: "GET".into(),
        path: path.into(),
        host: "api.example.com".into(),
        scheme: "http".into(),
        protocol: "HTTP/1.1".into(),
        size: -1,
        headers: [
            ("authorization".to_owned(), format!("Bearer {token}")),
            ("x-request-id".to_owned(), "d8a0cbd2-9a5a-4b6c-9d35-1f0a2a6f7a11".to_owned()),
        ]
        .into(),
        ..Default::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(40000)),
            destination: Some(peer(10000)),
            request: Some(Request { time: Some(WireTimestamp::default()), http: Some(http) }),
            ..Default::default()
        }),
    }
    .encode_to_vec()
}
