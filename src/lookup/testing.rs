//! Lookups against a provider that answers as a test says, and configs that point to it.

#[path = "../../tests/support/provider.rs"]
mod provider;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::config::{
    AnswerFormat, AnswerReading, ClientTls, CodesOf, Config, HttpLookup, JsonPath, Lookup,
    LookupAuth, LookupHeader, LookupLimits, OAuth2Auth, OAuth2Method, SecretText, UrlTemplate,
};
use crate::domain::{ClientId, ManualClock, Secret, Timestamp};
use crate::telemetry::{Instruments, Metrics};

use super::{Answer, Directory, Grants, Listed, Question, Unavailable};

pub use provider::*;

pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);

pub fn client(id: &str) -> ClientId {
    ClientId::parse(id).unwrap()
}

pub fn secret(text: &str) -> SecretText {
    SecretText(Secret::new(text))
}

pub fn json_path(query: &str, array: Option<&str>) -> JsonPath {
    let parse = |text: &str| serde_json_path::JsonPath::parse(text).unwrap();
    JsonPath { text: query.to_owned(), query: parse(query), array: array.map(parse) }
}

/// Codes that stand where `select` says, and nothing else.
pub fn reading(select: JsonPath) -> AnswerReading {
    AnswerReading {
        format: AnswerFormat::Json,
        select,
        of: CodesOf::Values,
        code_pattern: None,
        complete_if: None,
        refuse: Vec::new(),
        claims: BTreeMap::new(),
        quota: None,
    }
}

pub fn header(name: &str, value: &str) -> LookupHeader {
    LookupHeader { name: name.to_owned(), value: secret(value), per_client: false }
}

/// What a config with these keys of `tenants.lookup` (YAML in braces) means. `URL` in them is
/// `url`.
pub fn configured(keys: &str, url: &str) -> Lookup {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenantgate.yaml");
    let yaml = format!(
        "listen: {{ check: 127.0.0.1:0, admin: 127.0.0.1:0 }}
issuers:
  - {{ issuer: https://i, jwks_url: https://i/jwks, audience: https://a, algorithms: [ES256],
      tenant_claim: /tenants, client_claim: /azp, typ: [at+jwt] }}
tenants:
  lookup: {}
apis:
  - {{ name: a, routes: [{{ path: '/{{tenant}}/**', methods: [GET] }}] }}
",
        keys.replace("URL", url)
    );
    std::fs::write(&file, yaml).unwrap();
    match Config::load(&file) {
        Ok(config) => config.tenants.lookup,
        Err(problems) => panic!("{problems:?}"),
    }
}

/// A lookup at `provider` without credentials.
pub fn http_lookup(provider: &Provider) -> HttpLookup {
    HttpLookup {
        limits: LookupLimits {
            timeout: Duration::from_secs(2),
            cache_ttl: Duration::from_secs(60),
            negative_ttl: Duration::from_secs(5),
            stale_while_revalidate: Duration::ZERO,
            max_tries: 3,
            concurrency: 300,
            cache_clients: 1000,
        },
        authzen: false,
        url: UrlTemplate(format!("{}{}", provider.url, path_of("{client_id}"))),
        headers: Vec::new(),
        body: None,
        reading: reading(json_path("$.tenants[*].code", Some("$.tenants"))),
        pages: None,
        no_grants_status: Vec::new(),
        max_body: 64 * 1024,
        auth: LookupAuth::None,
        tls: ClientTls::default(),
        proxy: None,
    }
}

pub fn oauth2(provider: &Provider) -> OAuth2Auth {
    OAuth2Auth {
        token_url: Url::parse(&format!("{}{TOKEN_PATH}", provider.url)).unwrap(),
        client_id: "tenantgate".to_owned(),
        method: OAuth2Method::ClientSecretBasic(secret("s:cret")),
        scope: None,
        audience: None,
        refresh_before_expiry: Duration::from_secs(10),
        default_lifetime: Duration::from_secs(300),
        timeout: Duration::from_secs(2),
    }
}

pub fn oauth2_lookup(provider: &Provider) -> HttpLookup {
    HttpLookup { auth: LookupAuth::OAuth2(Box::new(oauth2(provider))), ..http_lookup(provider) }
}

/// A directory with everything a test wants to turn or read.
pub struct LookupBench {
    pub directory: Arc<Directory>,
    pub clock: Arc<ManualClock>,
    pub metrics: Arc<Metrics>,
}

impl LookupBench {
    pub fn new(lookup: HttpLookup) -> Self {
        Self::with(&Lookup::Http(Box::new(lookup)))
    }

    pub fn with(lookup: &Lookup) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let metrics = Arc::new(Metrics::new());
        let instruments = Instruments { clock: clock.clone(), metrics: metrics.clone() };
        let directory = Directory::new(lookup, instruments).unwrap();
        Self { directory, clock, metrics }
    }

    pub fn instruments(&self) -> Instruments {
        Instruments { clock: self.clock.clone(), metrics: self.metrics.clone() }
    }

    pub async fn ask(&self, id: &str) -> Asked {
        Asked(self.directory.look_up(Question::of(&client(id)), &|_| ()).await)
    }

    pub fn token_requests(&self, outcome: &str) -> u64 {
        self.metrics.callout_token_requests.with_label_values(&[outcome]).get()
    }
}

/// What came of one lookup.
pub struct Asked(pub Result<Answer, Unavailable>);

impl Asked {
    pub fn listed(&self) -> &Listed {
        match &self.0 {
            Ok(Answer { grants: Grants::Listed { listed, .. }, .. }) => listed,
            Ok(_) => panic!("unchanged"),
            Err(reason) => panic!("unavailable: {reason:?}"),
        }
    }

    pub fn codes(&self) -> Vec<&str> {
        self.listed().codes.iter().map(|code| code.expose()).collect()
    }

    /// The outcome in a word, as the metric names it.
    pub fn as_str(&self) -> &'static str {
        match &self.0 {
            Err(reason) => reason.as_str(),
            Ok(_) if self.listed().codes.is_empty() => "denied",
            Ok(_) => "granted",
        }
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(_) => f.write_str(self.as_str()),
            Err(reason) => reason.fmt(f),
        }
    }
}

/// Waits for what background work is about to bring about.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: did not happen within 5 s");
}
