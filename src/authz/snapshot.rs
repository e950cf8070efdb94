use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::issuer::Trust;
use super::probing::Probing;
use super::route::{Demands, Router};
use crate::domain::{ClientBook, Meter, TenantDigester, Withdrawals};

/// Everything a decision depends on besides the request, the time and the grants. Built whole,
/// swapped whole.
#[derive(Clone)]
pub struct Snapshot {
    pub apis: Arc<Apis>,
    pub trust: Arc<Trust>,
    /// `None`: this process has no registry; only the token speaks for a client.
    pub clients: Option<Arc<ClientBook>>,
    pub digester: Arc<TenantDigester>,
    /// `None`: nothing is withdrawn but by files and lookups.
    pub withdrawals: Option<Arc<Withdrawals>>,
    /// The issuer under whose name grants are kept.
    pub own_issuer: Arc<str>,
    pub freshness: Freshness,
    /// Look a client up again when its token lacks the tenant.
    pub lookup_on_miss: bool,
    pub probing: Probing,
    /// What challenges name, safe inside a quoted string.
    pub realm: Arc<str>,
    /// Counts what is denied before an API is known.
    pub no_api: Arc<dyn Meter>,
    /// Counts by the issuer of who asks.
    pub issuer_meters: Arc<HashMap<String, Box<dyn Meter>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The token alone is the truth until it expires.
    Token,
    /// Somebody must have vouched for a grant within this time: the token's issuer or a lookup.
    MaxAge(Duration),
}

pub struct Api {
    pub name: String,
    pub router: Router<Route>,
    pub forward_authorization: bool,
    /// Decide and record, but let everything pass.
    pub shadow: bool,
    /// In lower case.
    pub api_key_header: Option<String>,
    /// Every name that a route of this API may hand to the upstream, so that what a client sends
    /// under such a name never gets there.
    pub variables: Vec<Variable>,
    pub meter: Box<dyn Meter>,
}

/// A variable of a route, and the header under which the upstream gets it.
pub struct Variable {
    pub name: String,
    pub header: String,
}

impl Variable {
    pub fn new(name: String) -> Self {
        let header = format!("x-tenantgate-var-{}", name.replace('_', "-"));
        Self { name, header }
    }
}

pub struct Route {
    pub name: String,
    pub scopes: Vec<String>,
    /// The scopes as the `scope` attribute of a challenge.
    pub challenge: String,
    pub public: bool,
}

impl Demands for Route {
    fn is_public(&self) -> bool {
        self.public
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

/// The APIs by the name that Envoy gives in `context_extensions`.
pub enum Apis {
    /// One API needs no name: it is used for every check that gives none.
    Single(Box<Api>),
    Several(HashMap<String, Api>),
}

impl Apis {
    pub fn new(mut apis: Vec<Api>) -> Self {
        if apis.len() == 1
            && let Some(api) = apis.pop()
        {
            return Self::Single(Box::new(api));
        }
        Self::Several(apis.into_iter().map(|api| (api.name.clone(), api)).collect())
    }

    pub fn select(&self, profile: Option<&str>) -> Option<&Api> {
        match self {
            // It may be one that was left of several: the others' requests are not its own.
            Self::Single(api) => profile.is_none_or(|name| name == api.name).then_some(api),
            Self::Several(apis) => apis.get(profile?),
        }
    }
}
