use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::issuer::Trust;
use super::probing::Probing;
use super::route::{Demands, Router};
use crate::domain::{ClientBook, Meter, TenantDigester, Withdrawals};

/// Everything a decision depends on besides the request, the time and the grants. Built and swapped
/// as a whole.
#[derive(Clone)]
pub struct Snapshot {
    /// By the name that Envoy gives.
    pub apis: Arc<Apis>,
    /// The issuers whose tokens are accepted, with their keys.
    pub trust: Arc<Trust>,
    /// `None`: this process has no registry; only the token speaks for a client.
    pub clients: Option<Arc<ClientBook>>,
    /// Makes the digests that grants are compared by, and the references for logs.
    pub digester: Arc<TenantDigester>,
    /// `None`: only files and lookups withdraw anything.
    pub withdrawals: Option<Arc<Withdrawals>>,
    /// The issuer under whose name grants are kept; empty if we have none.
    pub own_issuer: Arc<str>,
    /// How old the evidence for a grant may be.
    pub freshness: FreshnessRule,
    /// Look a client up again when its token lacks the tenant.
    pub lookup_on_miss: bool,
    /// When a client is reported or throttled for asking for foreign tenants.
    pub probing: Probing,
    /// The `realm` of challenges (RFC 6750, section 3), safe inside a quoted string.
    pub realm: Arc<str>,
    /// Counts what is denied before an API is known.
    pub no_api: Arc<dyn Meter>,
    /// Counts decisions by the issuer of the caller.
    pub issuer_meters: Arc<HashMap<String, Box<dyn Meter>>>,
}

/// How old the evidence for a grant may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessRule {
    /// The token alone decides until it expires.
    Token,
    /// The token's issuer or a lookup must have vouched for a grant within this time.
    MaxAge(Duration),
}

/// An API's routes and settings.
pub struct Api {
    /// As in the config; `context_extensions` names it where there are several APIs.
    pub name: String,
    /// Its routes.
    pub router: Router<Route>,
    /// Whether the upstream gets the `authorization` header of an allowed request.
    pub forward_authorization: bool,
    /// Decide and record, but let everything pass.
    pub shadow: bool,
    /// In lower case. `None`: this API takes no API keys.
    pub api_key_header: Option<String>,
    /// Every name that a route of this API may hand to the upstream, so that what a client sends
    /// under such a name never gets there.
    pub variables: Vec<Variable>,
    /// Counts the decisions about this API.
    pub meter: Box<dyn Meter>,
}

/// A variable of a route, and the header under which the upstream gets it.
pub struct Variable {
    /// As in the template's `{name}`.
    pub name: String,
    /// In lower case, with `-` for each `_` of the name.
    pub header: String,
}

impl Variable {
    /// The header is `x-tenantgate-var-` and the name.
    pub fn new(name: String) -> Self {
        let header = format!("x-tenantgate-var-{}", name.replace('_', "-"));
        Self { name, header }
    }
}

/// What a route requires, and how it is named.
pub struct Route {
    /// The template's text; logs and metadata show it instead of the path.
    pub name: String,
    /// A caller needs all of them. Empty: none.
    pub scopes: Vec<String>,
    /// The scopes as the `scope` attribute of a challenge.
    pub challenge: String,
    /// Requests pass without a credential.
    pub public: bool,
}

impl Route {
    /// The challenge follows from the scopes.
    pub fn new(name: &str, scopes: &[String], public: bool) -> Self {
        Self { name: name.to_owned(), scopes: scopes.to_vec(), challenge: scopes.join(" "), public }
    }
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
    /// Each by its name; a check without a name is denied.
    Several(HashMap<String, Api>),
}

impl Apis {
    /// Of exactly one API it makes [`Apis::Single`].
    pub fn new(mut apis: Vec<Api>) -> Self {
        if apis.len() == 1
            && let Some(api) = apis.pop()
        {
            return Self::Single(Box::new(api));
        }
        Self::Several(apis.into_iter().map(|api| (api.name.clone(), api)).collect())
    }

    /// `profile` is the name that Envoy gives. `None`: no such API, so the check is denied.
    pub fn select(&self, profile: Option<&str>) -> Option<&Api> {
        match self {
            // It may be the last one left of several: requests for the others are not for it.
            Self::Single(api) => profile.is_none_or(|name| name == api.name).then_some(api),
            Self::Several(apis) => apis.get(profile?),
        }
    }
}
