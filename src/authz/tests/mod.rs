//! Decisions over real tokens: what every rule lets through and what it stops.

mod decisions;
mod token_rules;
mod told;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use serde_json::{Value, json};

use super::route::{RouteRule, Router, Template};
use super::trust::{Curve, KeySet, PublicKey, TrustedKey};
use super::*;
use crate::domain::{
    Algorithm, Attributes, Client, ClientBook, ClientId, Credential, CredentialDigest, DenyReason,
    GRANTS_AT, GrantBook, GrantCell, GrantSet, Holder, Meter, Moment, Quota, QuotaUnit, ScopeSet,
    TenantCode, TenantDigester, Timestamp,
};

pub const OWN: &str = "https://issuer.test";
pub const FOREIGN: &str = "https://other.test";
pub const AUDIENCE: &str = "https://api.test";
pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
pub const MAX_AGE: Duration = Duration::from_secs(300);

/// An issuer's key pair.
pub struct Signer {
    pair: EcdsaKeyPair,
    pub kid: &'static str,
}

impl Signer {
    pub fn new(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { pair, kid }
    }

    pub fn trusted(&self) -> TrustedKey {
        let point = self.pair.public_key().as_ref();
        let key =
            PublicKey::Ec { curve: Curve::P256, x: point[1..33].to_vec(), y: point[33..].to_vec() };
        TrustedKey::new(self.kid, Algorithm::Es256, &key).unwrap()
    }

    pub fn sign(&self, header: &Value, payload: &Value) -> String {
        self.sign_text(&header.to_string(), &payload.to_string())
    }

    pub fn sign_text(&self, header: &str, payload: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.kid })
    }
}

#[derive(Default)]
pub struct Cells(DashMap<ClientId, Arc<GrantCell>>);

impl GrantBook for Cells {
    fn cell(&self, client: &ClientId) -> Arc<GrantCell> {
        Arc::clone(&self.0.entry(client.clone()).or_default())
    }
}

struct Silent;

impl Meter for Silent {
    fn allowed(&self) {}
    fn denied(&self, _: DenyReason) {}
    fn shadowed(&self, _: DenyReason) {}
}

pub struct OwnHeaders(pub Vec<(&'static str, String)>);

impl Headers for OwnHeaders {
    fn get(&self, name: &str) -> HeaderValue<'_> {
        let mut found = self.0.iter().filter(|(key, _)| *key == name);
        match (found.next(), found.next()) {
            (None, _) => HeaderValue::Missing,
            (Some((_, value)), None) => HeaderValue::One(value.as_bytes()),
            _ => HeaderValue::Several,
        }
    }
}

/// One of everything: two issuers, a registry with one client, one API.
pub struct World {
    pub own: Signer,
    pub foreign: Signer,
    pub snapshot: Snapshot,
    pub cells: Cells,
    pub cache: FactsCache,
    pub probes: ProbeWatch,
    pub now: Timestamp,
}

pub const API_KEY: &str = "tgs_key";

impl World {
    pub fn new() -> Self {
        let (own, foreign) = (Signer::new("k1"), Signer::new("k1"));
        let mut world = Self {
            snapshot: Snapshot {
                apis: Arc::new(Apis::new(vec![api("oda")])),
                trust: Arc::default(),
                clients: Some(Arc::new([client("acme")].into_iter().collect())),
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
            cells: Cells::default(),
            cache: FactsCache::new(1 << 20),
            probes: ProbeWatch::default(),
            now: NOW,
        };
        world.trust(vec![world.own.trusted()], vec![world.foreign.trusted()]);
        world
    }

    pub fn trust(&mut self, own: Vec<TrustedKey>, foreign: Vec<TrustedKey>) {
        let set = |keys| Some(Arc::new(KeySet::new(keys, None)));
        self.snapshot.trust = Arc::new(Trust::new([
            (Arc::new(own_policy()), set(own)),
            (Arc::new(foreign_policy()), set(foreign)),
        ]));
    }

    pub fn digest(&self, code: &str) -> String {
        let holder = Holder { issuer: OWN, client: "acme" };
        self.snapshot.digester.current(holder, code).to_text()
    }

    /// The claims of a good own token for T1.
    pub fn claims(&self) -> Value {
        json!({
            "iss": OWN, "aud": AUDIENCE, "sub": "acme", "client_id": "acme", "jti": "j",
            "iat": NOW.secs(), "exp": NOW.secs() + 300, "scope": "reports.read other",
            "tenant_list": [self.digest("T1")],
        })
    }

    pub fn foreign_claims(&self) -> Value {
        json!({
            "iss": FOREIGN, "aud": [AUDIENCE], "sub": "user", "azp": "partner",
            "iat": NOW.secs(), "exp": NOW.secs() + 3600, "scp": ["reports.read"],
            "tenants": ["T1", "no/code"],
        })
    }

    pub fn token(&self) -> String {
        self.own.sign(&self.own.header(), &self.claims())
    }

    pub fn foreign_token(&self) -> String {
        self.foreign.sign(&self.foreign.header(), &self.foreign_claims())
    }

    pub fn grant(&self, codes: &[&str], looked_up_at: Timestamp) {
        let holder = Holder { issuer: OWN, client: "acme" };
        let codes = codes.iter().map(|code| TenantCode::parse(code).unwrap()).collect();
        self.cells.cell(&ClientId::parse("acme").unwrap()).replace(Arc::new(GrantSet {
            looked_up_at: Moment::of(looked_up_at).monotonic,
            ..GrantSet::of(codes, &self.snapshot.digester, holder)
        }));
    }

    /// The reason of the denial, `None` for allowed, and the hint.
    pub fn ask(&self, target: &str, headers: &OwnHeaders) -> (Option<DenyReason>, Option<Hint>) {
        let input = CheckInput { profile: None, method: "GET", target: target.as_bytes(), headers };
        let outcome = self.authorizer().decide(&input, &mut ());
        (outcome.denied(), outcome.hint().cloned())
    }

    pub fn authorizer(&self) -> Authorizer<'_> {
        Authorizer {
            snapshot: &self.snapshot,
            cache: &self.cache,
            grants: &self.cells,
            probes: Some(&self.probes),
            now: Moment::of(self.now),
        }
    }

    pub fn ask_with(&self, token: &str) -> Option<DenyReason> {
        self.ask("/api/T1/report", &bearer(token)).0
    }
}

pub fn bearer(token: &str) -> OwnHeaders {
    OwnHeaders(vec![("authorization", format!("Bearer {token}"))])
}

pub fn own_policy() -> IssuerPolicy {
    IssuerPolicy {
        issuer: OWN.into(),
        own: true,
        audience: AUDIENCE.into(),
        algorithms: vec![Algorithm::Es256],
        types: vec!["at+jwt".into()],
        max_lifetime: Duration::from_secs(3600),
        leeway: Duration::from_secs(10),
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
        ..own_policy()
    }
}

pub fn client(id: &str) -> Client {
    Client {
        id: ClientId::parse(id).unwrap(),
        approved: true,
        developer_active: true,
        credentials: vec![Credential {
            digest: CredentialDigest::Sha256(CredentialDigest::sha256_of(API_KEY)),
            active: true,
            expires_at: Some(NOW.plus(Duration::from_secs(3600))),
        }],
        scopes: ScopeSet::parse("reports.read other").unwrap(),
        static_grants: None,
        token_ttl: None,
        tokens_not_before: None,
        apis: None,
        attributes: Attributes::new(),
        quota: None,
    }
}

pub fn api(name: &str) -> Api {
    let rule = |path: &str, scopes: &[&str], public| RouteRule {
        template: Template::parse(path, false).unwrap(),
        methods: vec!["GET".into()],
        head: true,
        allow_encoded_percent: false,
        data: Route {
            name: path.into(),
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            challenge: scopes.join(" "),
            public,
        },
    };
    Api {
        name: name.into(),
        router: Router::new(vec![
            rule("/api/{tenant}/report", &["reports.read"], false),
            rule("/api/{tenant}/admin", &["admin"], false),
            rule("/docs/{page}", &[], true),
        ])
        .unwrap(),
        forward_authorization: false,
        shadow: false,
        api_key_header: None,
        variables: vec![Variable::new("page".into())],
        meter: Box::new(Silent),
    }
}

pub fn book(clients: impl IntoIterator<Item = Client>) -> Option<Arc<ClientBook>> {
    Some(Arc::new(clients.into_iter().collect()))
}
