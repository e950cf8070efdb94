use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::{Budget as _, TpsBudget};

use crate::config::{GrpcLookup, HttpLookup, Lookup, LookupAuth, LookupLimits};
use crate::domain::{ClientId, Clock, Problem};
use crate::outbound::Reach;
use crate::telemetry::traces::child;
use crate::telemetry::{Instruments, Metrics};

use super::answer::{Answer, Grants};
use super::callout_token::{CalloutToken, TokenHealth};
use super::grpc::GrpcTransport;
use super::http::HttpTransport;
use super::select::Listed;
use super::shape::Body;
use super::unavailable::Unavailable;

/// The section of the config.
const FIELD: &str = "tenants.lookup";
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
/// A fifth of the lookups may be retried, and a few a second in any case.
const RETRY_SHARE: f32 = 0.2;
const RETRIES_PER_SECOND: u32 = 5;
const RETRY_WINDOW: Duration = Duration::from_secs(10);
/// Of dropped codes, in one log line: a provider must not write our log.
const MAX_POSITIONS: usize = 20;

/// What a lookup does on its way, for people who wire a provider's API.
#[derive(Debug)]
pub enum Step<'a> {
    /// The lookup's own token is there.
    Token {
        /// Whether it was requested now.
        fetched: bool,
        /// How long it is still good.
        remaining: Duration,
    },
    /// The provider refused the token, and there is a new one.
    TokenReplaced {
        /// How long the new one is good.
        remaining: Duration,
    },
    /// A call begins.
    Asking {
        /// Without the query's values.
        url: String,
    },
    /// A page of an answer, as it came.
    Read {
        /// Counted from 1.
        page: u32,
        /// What is sent.
        body: Body<'a>,
    },
    /// The status of an answer that can be used, or why there is none.
    Answered {
        /// The status, or why there is none.
        status: Result<&'a str, &'a Unavailable>,
        /// From the call to the last byte.
        took: Duration,
    },
    /// The next try comes later.
    Waiting {
        /// How much later.
        delay: Duration,
    },
}

/// Follows the steps of one lookup, for `lookup test`.
pub type StepObserver<'a> = &'a (dyn Fn(Step<'_>) + Send + Sync);

/// What a lookup is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Who is asked about.
    pub client: &'a ClientId,
    /// The validator of the last answer.
    pub etag: Option<&'a str>,
    /// Whether a try that fails may be followed by another one.
    pub may_retry: bool,
}

impl<'a> Question<'a> {
    /// As nobody who knows anything would ask.
    pub const fn of(client: &'a ClientId) -> Self {
        Self { client, etag: None, may_retry: true }
    }
}

/// Where the tenants of a client are looked up: the provider's API with its credentials and
/// limits. Replaced when its config changes.
pub struct Directory {
    config: Lookup,
    remote: Option<Remote>,
    clock: Arc<dyn Clock>,
}

struct Remote {
    transport: Transport,
    auth: Auth,
    limits: LookupLimits,
    permits: Semaphore,
    /// The share of background lookups, so that a mint always finds a free place.
    background: Arc<Semaphore>,
    background_places: usize,
    retries: TpsBudget,
    metrics: Arc<Metrics>,
}

enum Transport {
    Http(Box<HttpTransport>),
    Grpc(GrpcTransport),
}

enum Auth {
    None,
    Fixed(HeaderValue),
    OAuth2(CalloutToken),
}

impl Directory {
    /// `field` names the section in a problem.
    pub fn new(config: &Lookup, instruments: Instruments) -> Result<Arc<Self>, Problem> {
        let remote = match config {
            Lookup::Static => None,
            Lookup::Http(http) => Some(Remote::http(http, &instruments)?),
            Lookup::Grpc(grpc) => Some(Remote::grpc(grpc, &instruments)?),
        };
        Ok(Arc::new(Self { config: config.clone(), remote, clock: instruments.clock }))
    }

    /// The section that it was made from.
    pub fn config(&self) -> &Lookup {
        &self.config
    }

    /// `None`: there is nobody to ask.
    pub fn limits(&self) -> Option<&LookupLimits> {
        self.remote.as_ref().map(|remote| &remote.limits)
    }

    /// One lookup within its time budget, tries and token included.
    pub async fn look_up(
        &self,
        question: Question<'_>,
        observer: StepObserver<'_>,
    ) -> Result<Answer, Unavailable> {
        match &self.remote {
            // Clients with static grants are never looked up, so this one has none.
            None => Ok(Answer {
                grants: Grants::none(),
                sent_at: self.clock.monotonic(),
                status: "static".to_owned(),
            }),
            Some(remote) => {
                let deadline = Instant::now() + remote.limits.timeout;
                let clock = &*self.clock;
                let inquiry = Inquiry { remote, question, observer, clock, deadline };
                let answer = inquiry.run().await?;
                if let Grants::Listed { listed, .. } = &answer.grants {
                    remote.report_dropped(question.client, listed);
                    listed.understood()?;
                }
                Ok(answer)
            }
        }
    }

    /// How the lookup's own token is doing, where it has one by OAuth.
    pub fn token_health(&self) -> Option<TokenHealth> {
        match &self.remote.as_ref()?.auth {
            Auth::OAuth2(token) => Some(token.health()),
            Auth::None | Auth::Fixed(_) => None,
        }
    }

    /// Renews the lookup's own token if it is time.
    pub fn renew_token(&self) {
        if let Some(Remote { auth: Auth::OAuth2(token), .. }) = &self.remote {
            token.renew_if_due();
        }
    }

    /// How many lookups in the background may be under way. `None`: there is nobody to ask.
    pub fn background_places(&self) -> Option<usize> {
        self.remote.as_ref().map(|remote| remote.background_places)
    }

    /// A place among the background lookups.
    pub async fn background_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.remote.as_ref()?.background).acquire_owned().await.ok()
    }
}

fn first(positions: &[usize]) -> &[usize] {
    &positions[..positions.len().min(MAX_POSITIONS)]
}

impl Remote {
    fn report_dropped(&self, client: &ClientId, listed: &Listed) {
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

    fn http(config: &HttpLookup, instruments: &Instruments) -> Result<Self, Problem> {
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

    fn grpc(config: &GrpcLookup, instruments: &Instruments) -> Result<Self, Problem> {
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

/// One lookup on its way.
struct Inquiry<'a> {
    remote: &'a Remote,
    question: Question<'a>,
    observer: StepObserver<'a>,
    clock: &'a dyn Clock,
    deadline: Instant,
}

impl Inquiry<'_> {
    async fn run(&self) -> Result<Answer, Unavailable> {
        let Ok(Ok(_permit)) = timeout_at(self.deadline, self.remote.permits.acquire()).await else {
            return Err(Unavailable::Busy);
        };
        if Instant::now() >= self.deadline {
            return Err(Unavailable::Busy);
        }
        self.remote.retries.deposit();
        let retries = self.remote.limits.max_tries.saturating_sub(1);
        let delays = ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY_DELAY)
            .with_max_delay(MAX_RETRY_DELAY)
            .with_max_times(retries as usize);
        let tries = (|| self.attempt())
            .retry(delays)
            .when(Unavailable::is_transient)
            .adjust(|failure, delay| self.delay(failure, delay?));
        timeout_at(self.deadline, tries).await.unwrap_or(Err(Unavailable::Timeout))
    }

    /// How long to wait before the next try; `None` gives up.
    fn delay(&self, failure: &Unavailable, backoff: Duration) -> Option<Duration> {
        let jittered = backoff.mul_f64(rand::random::<f64>());
        let delay = jittered.max(failure.retry_after().unwrap_or_default());
        let left = self.deadline.saturating_duration_since(Instant::now());
        // The client's own standing first, then what all of them may take together.
        if delay >= left || !self.question.may_retry || !self.remote.retries.withdraw() {
            return None;
        }
        self.remote.metrics.lookup_retries.inc();
        (self.observer)(Step::Waiting { delay });
        Some(delay)
    }

    /// One try, or two where the provider refuses our token and there is a newer one.
    async fn attempt(&self) -> Result<Answer, Unavailable> {
        let tokens = match &self.remote.auth {
            Auth::None => return self.ask(None).await,
            Auth::Fixed(header) => return self.ask(Some(header)).await,
            Auth::OAuth2(tokens) => tokens,
        };
        let (token, fetched) = tokens.get().await.map_err(Unavailable::CalloutToken)?;
        let remaining = token.expires_at.since(self.clock.monotonic());
        (self.observer)(Step::Token { fetched, remaining });
        let first = self.ask(Some(&token.header)).await;
        let Err(Unavailable::Unauthorized(_)) = first else { return first };
        match tokens.replace(&token).await.map_err(Unavailable::CalloutToken)? {
            Some(newer) => {
                let remaining = newer.expires_at.since(self.clock.monotonic());
                (self.observer)(Step::TokenReplaced { remaining });
                self.ask(Some(&newer.header)).await
            }
            None => first,
        }
    }

    async fn ask(&self, authorization: Option<&HeaderValue>) -> Result<Answer, Unavailable> {
        let transport = &self.remote.transport;
        let Question { client, etag, .. } = self.question;
        (self.observer)(Step::Asking { url: transport.shown_url(client) });
        let started = Instant::now();
        let asking = async {
            match transport {
                Transport::Http(http) => http.ask(client, etag, authorization, self.observer).await,
                Transport::Grpc(grpc) => grpc.ask(client, etag, authorization).await,
            }
        };
        let outcome = |answer: &Result<Answer, Unavailable>| match answer {
            Ok(_) => "answered",
            Err(reason) => reason.as_str(),
        };
        let answer = child("lookup", asking, outcome).await;
        let status = answer.as_ref().map(|answer| answer.status.as_str());
        (self.observer)(Step::Answered { status, took: started.elapsed() });
        answer
    }
}

impl Transport {
    /// Where `client` is looked up, without what may be secret.
    fn shown_url(&self, client: &ClientId) -> String {
        match self {
            Self::Http(http) => http.shown_url(client),
            Self::Grpc(grpc) => grpc.shown_url(),
        }
    }
}
