//! A whole deployment in memory, without a network: two issuers, a registry with one client, and
//! APIs. The tests in `src/`, those in `tests/it/` and the fuzz targets share it.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use serde_json::{Value, json};
use tenantgate::authz::route::{RouteRule, Router, Template};
use tenantgate::authz::trust::{KeySet, PublicKey, TrustedKey};
use tenantgate::authz::{
    Api, Apis, Authorizer, CheckInput, FactsCache, FreshnessRule, HeaderValue, Headers, Hint,
    IssuerPolicy, ProbeWatch, Probing, Route, Snapshot, Trust,
};
use tenantgate::domain::{
    Algorithm, Client, ClientId, DenyReason, GrantBook, GrantCell, Holder, Meter, Moment, ScopeSet,
    TenantDigester, TenantForm, Timestamp,
};

pub const OWN: &str = "https://issuer.test";
pub const FOREIGN: &str = "https://other.test";
pub const AUDIENCE: &str = "https://api.test";
pub const CLIENT: &str = "acme";
pub const NOW: u64 = 1_800_000_000;
pub const MAX_AGE: Duration = Duration::from_secs(300);
pub const LEEWAY: Duration = Duration::from_secs(10);
pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// An issuer's key pair. Always the same for the same seed, so that corpora stay good.
pub struct Signer {
    pair: Ed25519KeyPair,
    pub kid: &'static str,
}

impl Signer {
    pub fn new(kid: &'static str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes are a seed");
        Self { pair, kid }
    }

    pub fn trusted(&self) -> TrustedKey {
        let key = PublicKey::Ed25519(self.public());
        TrustedKey::new(self.kid, Algorithm::EdDsa, &key).expect("a key that was just made")
    }

    pub fn public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    pub fn sign(&self, header: &Value, payload: &Value) -> String {
        self.sign_text(&header.to_string(), &payload.to_string())
    }

    pub fn sign_text(&self, header: &str, payload: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub fn header(&self) -> Value {
        json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": self.kid })
    }
}

#[derive(Default)]
pub struct Cells(DashMap<ClientId, Arc<GrantCell>>);

impl GrantBook for Cells {
    fn cell(&self, client: &ClientId) -> Arc<GrantCell> {
        Arc::clone(&self.0.entry(client.clone()).or_default())
    }
}

pub struct Silent;

impl Meter for Silent {
    fn allowed(&self) {}
    fn denied(&self, _: DenyReason) {}
    fn shadowed(&self, _: DenyReason) {}
}

/// Headers by lower-case name.
pub struct Sent(pub Vec<(&'static str, Vec<u8>)>);

impl Headers for Sent {
    fn get(&self, name: &str) -> HeaderValue<'_> {
        let mut found = self.0.iter().filter(|(key, _)| *key == name);
        match (found.next(), found.next()) {
            (None, _) => HeaderValue::Missing,
            (Some((_, value)), None) => HeaderValue::One(value),
            (Some(_), Some(_)) => HeaderValue::Several,
        }
    }
}

pub struct World {
    pub own: Signer,
    pub foreign: Signer,
    pub snapshot: Snapshot,
    pub cells: Arc<Cells>,
    pub cache: Arc<FactsCache>,
    pub probes: ProbeWatch,
    pub now: Timestamp,
    /// Of the tokens that `claims` and `token` make.
    pub scope: &'static str,
}

impl World {
    pub fn new(apis: Vec<Api>) -> Self {
        // One kid in two issuers names two keys.
        let (own, foreign) = (Signer::new("k1", 1), Signer::new("k1", 2));
        let keys = |signer: &Signer| Some(Arc::new(KeySet::new(vec![signer.trusted()], None)));
        let trust = Trust::new([
            (Arc::new(own_policy()), keys(&own)),
            (Arc::new(foreign_policy()), keys(&foreign)),
        ]);
        Self {
            snapshot: Snapshot {
                apis: Arc::new(Apis::new(apis)),
                trust: Arc::new(trust),
                clients: Some(Arc::new([client(CLIENT)].into_iter().collect())),
                digester: Arc::new(TenantDigester::new(&[7; 32], None)),
                withdrawals: None,
                own_issuer: OWN.into(),
                freshness: FreshnessRule::MaxAge(MAX_AGE),
                lookup_on_miss: false,
                probing: Probing { tenants: 3, window: Duration::from_secs(60), throttle: false },
                realm: AUDIENCE.into(),
                no_api: Arc::new(Silent),
                issuer_meters: Arc::default(),
            },
            own,
            foreign,
            cells: Arc::default(),
            cache: Arc::new(FactsCache::new(1 << 20)),
            probes: ProbeWatch::default(),
            now: Timestamp::from_secs(NOW),
            scope: "reports.read",
        }
    }

    pub fn digest(&self, issuer: &str, client: &str, code: &str) -> String {
        self.snapshot.digester.current(Holder { issuer, client }, code).to_text()
    }

    /// The claims of a good own token for T1.
    pub fn claims(&self) -> Value {
        json!({
            "iss": OWN, "aud": AUDIENCE, "sub": CLIENT, "client_id": CLIENT, "jti": "j",
            "iat": NOW, "exp": NOW + 300, "scope": self.scope,
            "tenant_list": [self.digest(OWN, CLIENT, "T1")],
        })
    }

    pub fn token(&self) -> String {
        self.own.sign(&self.own.header(), &self.claims())
    }

    pub fn authorizer(&self) -> Authorizer<'_> {
        Authorizer {
            snapshot: &self.snapshot,
            cache: &self.cache,
            grants: &*self.cells,
            probes: Some(&self.probes),
            now: Moment::of(self.now),
        }
    }

    /// The reason of the denial, `None` for allowed, and the hint.
    pub fn decide(
        &self,
        method: &str,
        target: &[u8],
        headers: &Sent,
    ) -> (Option<DenyReason>, Option<Hint>) {
        let input = CheckInput { profile: None, method, target, headers };
        let outcome = self.authorizer().decide(&input, &mut ());
        (outcome.denied(), outcome.hint().cloned())
    }
}

pub fn bearer(token: &str) -> Sent {
    Sent(vec![("authorization", format!("Bearer {token}").into_bytes())])
}

pub fn own_policy() -> IssuerPolicy {
    IssuerPolicy {
        issuer: OWN.into(),
        own: true,
        audience: AUDIENCE.into(),
        // More than the keys sign with: a key is still good for its own alone.
        algorithms: vec![Algorithm::EdDsa, Algorithm::Es256],
        types: vec!["at+jwt".into()],
        max_lifetime: MAX_LIFETIME,
        leeway: LEEWAY,
        tenant_claim: "/tenant_list".into(),
        client_claim: "/client_id".into(),
        tenant_form: TenantForm::Digest,
        tenants_of: None,
        allow_missing_kid: false,
        fresh_grants: true,
        keys_from: String::new(),
    }
}

pub fn foreign_policy() -> IssuerPolicy {
    IssuerPolicy {
        issuer: FOREIGN.into(),
        own: false,
        tenant_claim: "/tenants".into(),
        client_claim: "/azp".into(),
        tenant_form: TenantForm::Plain,
        tenants_of: None,
        allow_missing_kid: false,
        fresh_grants: false,
        keys_from: String::new(),
        ..own_policy()
    }
}

pub fn client(id: &str) -> Client {
    Client {
        approved: true,
        scopes: ScopeSet::parse("reports.read").expect("good scopes"),
        ..Client::new(ClientId::parse(id).expect("a good id"))
    }
}

/// A route as a config file has it.
#[derive(Clone, Debug)]
pub struct RouteLine {
    pub path: &'static str,
    pub methods: Vec<&'static str>,
    pub ignore_case: bool,
    pub head: bool,
    pub allow_encoded_percent: bool,
    pub public: bool,
    pub scopes: Vec<&'static str>,
}

impl RouteLine {
    pub fn new(path: &'static str) -> Self {
        Self {
            path,
            methods: vec!["GET"],
            ignore_case: false,
            head: true,
            allow_encoded_percent: false,
            public: false,
            scopes: vec!["reports.read"],
        }
    }

    fn scopes(&self) -> Vec<String> {
        self.scopes.iter().map(ToString::to_string).collect()
    }

    pub fn rule(&self) -> RouteRule<Route> {
        RouteRule {
            template: Template::parse(self.path, self.ignore_case).expect("a good template"),
            methods: self.methods.iter().map(ToString::to_string).collect(),
            head: self.head,
            allow_encoded_percent: self.allow_encoded_percent,
            data: Route::new(self.path, &self.scopes(), self.public),
        }
    }
}

/// `None` where the routes contradict each other.
pub fn api(name: &str, routes: &[RouteLine]) -> Option<Api> {
    let router = Router::new(routes.iter().map(RouteLine::rule).collect()).ok()?;
    Some(Api {
        name: name.into(),
        router,
        forward_authorization: false,
        shadow: false,
        api_key_header: None,
        variables: Vec::new(),
        meter: Box::new(Silent),
    })
}
