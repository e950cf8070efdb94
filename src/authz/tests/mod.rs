//! Decisions over real tokens: what every rule lets through and what it stops.

mod decisions;
mod in_words;
mod token_rules;
#[path = "../../../tests/support/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

pub use self::world::{
    AUDIENCE, FOREIGN, MAX_AGE, OWN, Sent, Signer, World, bearer, foreign_policy, own_policy,
};
use self::world::{CLIENT, RouteLine};
use super::trust::{KeySet, TrustedKey};
use super::*;
use crate::domain::{
    Client, ClientBook, ClientId, Credential, CredentialDigest, DenyReason, GrantBook as _,
    GrantSet, Holder, Moment, ScopeSet, TenantCode, Timestamp,
};

pub const NOW: Timestamp = Timestamp::from_secs(world::NOW);
pub const API_KEY: &str = "tgs_key";
const SCOPE: &str = "reports.read other";

impl World {
    /// With one API, and a client that has a key and two scopes.
    pub fn typical() -> Self {
        let mut world = Self { scope: SCOPE, ..Self::new(vec![api("oda")]) };
        world.snapshot.clients = book([client(CLIENT)]);
        world
    }

    fn trust(&mut self, own: Vec<TrustedKey>, foreign: Vec<TrustedKey>) {
        let set = |keys| Some(Arc::new(KeySet::new(keys, None)));
        self.snapshot.trust = Arc::new(Trust::new([
            (Arc::new(own_policy()), set(own)),
            (Arc::new(foreign_policy()), set(foreign)),
        ]));
    }

    pub fn foreign_claims(&self) -> Value {
        json!({
            "iss": FOREIGN, "aud": [AUDIENCE], "sub": "user", "azp": "partner",
            "iat": NOW.secs(), "exp": NOW.secs() + 3600, "scp": ["reports.read"],
            "tenants": ["T1", "no/code"],
        })
    }

    pub fn foreign_token(&self) -> String {
        self.foreign.sign(&self.foreign.header(), &self.foreign_claims())
    }

    pub fn grant(&self, codes: &[&str], looked_up_at: Timestamp) {
        let holder = Holder { issuer: OWN, client: CLIENT };
        let codes = codes.iter().map(|code| TenantCode::parse(code).unwrap()).collect();
        self.cells.cell(&ClientId::parse(CLIENT).unwrap()).replace(Arc::new(GrantSet {
            looked_up_at: Moment::of(looked_up_at).monotonic,
            ..GrantSet::of(codes, &self.snapshot.digester, holder)
        }));
    }

    /// The reason of the denial, `None` for allowed, and the hint.
    fn ask(&self, target: &str, headers: &Sent) -> (Option<DenyReason>, Option<Hint>) {
        self.decide("GET", target.as_bytes(), headers)
    }

    fn ask_with(&self, token: &str) -> Option<DenyReason> {
        self.ask("/api/T1/report", &bearer(token)).0
    }
}

pub fn client(id: &str) -> Client {
    Client {
        credentials: vec![Credential {
            digest: CredentialDigest::Sha256(CredentialDigest::sha256_of(API_KEY)),
            active: true,
            expires_at: Some(NOW.plus(Duration::from_secs(3600))),
        }],
        scopes: ScopeSet::parse(SCOPE).unwrap(),
        ..world::client(id)
    }
}

pub fn api(name: &str) -> Api {
    let route = |path, scopes: &[&'static str]| RouteLine {
        scopes: scopes.to_vec(),
        ..RouteLine::new(path)
    };
    let routes = [
        route("/api/{tenant}/report", &["reports.read"]),
        route("/api/{tenant}/admin", &["admin"]),
        RouteLine { public: true, ..route("/docs/{page}", &[]) },
    ];
    let variables = vec![Variable::new("page".into())];
    Api { variables, ..world::api(name, &routes).unwrap() }
}

pub fn book(clients: impl IntoIterator<Item = Client>) -> Option<Arc<ClientBook>> {
    Some(Arc::new(clients.into_iter().collect()))
}
