use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use tokio::sync::Semaphore;
use tower::retry::budget::TpsBudget;

use crate::config::{GrpcLookup, HttpLookup, LookupAuth, LookupLimits};
use crate::domain::{ClientId, Problem};
use crate::outbound::Reach;
use crate::telemetry::{Instruments, Metrics};

use super::callout_token::CalloutToken;
use super::grpc::GrpcTransport;
use super::http::HttpTransport;
use super::select::Listed;

/// The section of the config.
const FIELD: &str = "tenants.lookup";
/// A fifth of the lookups may be retried, and a few a second in any case.
const RETRY_SHARE: f32 = 0.2;
const RETRIES_PER_SECOND: u32 = 5;
const RETRY_WINDOW: Duration = Duration::from_secs(10);
/// Of dropped codes, in one log line: a provider must not write our log.
const MAX_POSITIONS: usize = 20;

/// The provider's API with the lookup's credentials and limits.
pub struct Remote {
    pub transport: Transport,
    pub auth: Auth,
    pub limits: LookupLimits,
    pub permits: Semaphore,
    /// The share of background lookups, so that a mint always finds a free place.
    pub background: Arc<Semaphore>,
    pub background_places: usize,
    pub retries: TpsBudget,
    pub metrics: Arc<Metrics>,
}

pub enum Transport {
    Http(Box<HttpTransport>),
    Grpc(GrpcTransport),
}

pub enum Auth {
    None,
    Fixed(HeaderValue),
    OAuth2(CalloutToken),
}

fn first(positions: &[usize]) -> &[usize] {
    &positions[..positions.len().min(MAX_POSITIONS)]
}

impl Remote {
    pub fn report_dropped(&self, client: &ClientId, listed: &Listed) {
        let Listed { dropped, unmatched, dropped_claims, .. } = listed;
        self.metrics.dropped_tenant_codes.inc_by((dropped.len() + unmatched.len()) as u64);
        if !dropped.is_empty() {
            let (codes, positions) = (dropped.len(), first(dropped));
            tracing::warn!(%client, codes, ?positions, "dropped what is not a tenant code");
        }
        if !unmatched.is_empty() {
            let (codes, positions) = (unmatched.len(), first(unmatched));
            tracing::warn!(%client, codes, ?positions, "dropped what `code_pattern` does not \
                                                        match");
        }
        if listed.bad_quota {
            tracing::warn!(%client, "the quota is not a whole number of requests a second, minute, \
                                     hour or day");
        }
        if !dropped_claims.is_empty() {
            let claims = &dropped_claims;
            tracing::warn!(%client, ?claims, "left out claims: too large or reserved");
        }
    }

    pub fn http(config: &HttpLookup, instruments: &Instruments) -> Result<Self, Problem> {
        let mut urls = token_url(&config.auth);
        urls.push(config.url.0.as_str());
        let reach = Reach { tls: config.tls.clone(), proxy: config.proxy.clone() };
        let client = reach.client(FIELD, &urls)?;
        let auth = Auth::new(&config.auth, &client, instruments)?;
        let transport = HttpTransport::new(config, client, Arc::clone(&instruments.clock))?;
        Ok(Self::new(
            Transport::Http(Box::new(transport)),
            auth,
            &config.limits,
            Arc::clone(&instruments.metrics),
        ))
    }

    pub fn grpc(config: &GrpcLookup, instruments: &Instruments) -> Result<Self, Problem> {
        let reach = Reach { tls: config.tls.clone(), proxy: None };
        let client = reach.client(FIELD, &token_url(&config.auth))?;
        let auth = Auth::new(&config.auth, &client, instruments)?;
        let transport = GrpcTransport::new(config, Arc::clone(&instruments.clock))?;
        Ok(Self::new(
            Transport::Grpc(transport),
            auth,
            &config.limits,
            Arc::clone(&instruments.metrics),
        ))
    }

    fn new(transport: Transport, auth: Auth, limits: &LookupLimits, metrics: Arc<Metrics>) -> Self {
        let concurrency = limits.concurrency.max(1);
        let background_places = concurrency.div_ceil(2);
        Self {
            transport,
            auth,
            limits: limits.clone(),
            permits: Semaphore::new(concurrency),
            background: Arc::new(Semaphore::new(background_places)),
            background_places,
            retries: TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE),
            metrics,
        }
    }
}

impl Auth {
    fn new(
        config: &LookupAuth,
        client: &reqwest::Client,
        instruments: &Instruments,
    ) -> Result<Self, Problem> {
        Ok(match config {
            LookupAuth::None => Self::None,
            LookupAuth::Bearer(token) => {
                Self::Fixed(credential("bearer", "Bearer", token.0.expose())?)
            }
            LookupAuth::Basic { username, password } => {
                let pair = STANDARD.encode(format!("{username}:{}", password.0.expose()));
                Self::Fixed(credential("basic", "Basic", &pair)?)
            }
            LookupAuth::OAuth2(oauth2) => {
                Self::OAuth2(CalloutToken::new(oauth2, client.clone(), instruments.clone())?)
            }
        })
    }
}

fn token_url(auth: &LookupAuth) -> Vec<&str> {
    match auth {
        LookupAuth::OAuth2(oauth2) => vec![oauth2.token_url.as_str()],
        LookupAuth::None | LookupAuth::Bearer(_) | LookupAuth::Basic { .. } => Vec::new(),
    }
}

fn credential(field: &str, scheme: &str, value: &str) -> Result<HeaderValue, Problem> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {value}")).map_err(|_| Problem {
        field: format!("tenants.lookup.auth.{field}"),
        message: "cannot be sent in a header; use visible ASCII characters".to_owned(),
    })?;
    header.set_sensitive(true);
    Ok(header)
}

impl Transport {
    /// Where `client` is looked up, without what may be secret.
    pub fn shown_url(&self, client: &ClientId) -> String {
        match self {
            Self::Http(http) => http.shown_url(client),
            Self::Grpc(grpc) => grpc.shown_url(),
        }
    }
}
