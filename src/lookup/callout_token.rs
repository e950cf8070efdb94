use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::HeaderValue;

use crate::config::OAuth2Auth;
use crate::domain::{Backoff, Moment, Monotonic, Problem};
use crate::telemetry::Instruments;

use super::flight::{Flight, Joined, lock};
use super::token_request::{CalloutTokenRequest, NewToken};
use super::unavailable::CalloutTokenError;

/// A provider that refuses every token must not make us fetch one for every lookup.
const FORCED_FETCH_INTERVAL: Duration = Duration::from_secs(1);
/// Between a fetch and the renewal ahead of the expiry.
const SHORTEST_USE: Duration = Duration::from_secs(1);
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

/// The lookup's own token.
pub struct Token {
    /// `Bearer …`, marked sensitive.
    pub header: HeaderValue,
    pub expires_at: Monotonic,
    renew_at: Monotonic,
    /// Tells whether somebody has renewed the token since.
    generation: u64,
}

/// How the lookup's own token is doing, for an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenHealth {
    /// There has been one.
    pub fetched: bool,
    /// How long it is still good.
    pub remaining: Duration,
    /// Why the last request for one failed.
    pub last_error: Option<CalloutTokenError>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Token>>,
    generation: u64,
    failures: u32,
    last_error: Option<CalloutTokenError>,
    /// No request before this: the last ones failed.
    retry_at: Monotonic,
    forced_at: Option<Monotonic>,
}

type Result<T> = std::result::Result<T, CalloutTokenError>;

/// One token for all lookups: fetched when first needed, renewed ahead of its expiry, replaced
/// when the provider refuses it.
pub struct CalloutToken(Arc<Inner>);

struct Inner {
    request: CalloutTokenRequest,
    timeout: Duration,
    renew_ahead: Duration,
    instruments: Instruments,
    state: Mutex<State>,
    flight: Flight<Result<Arc<Token>>>,
}

impl CalloutToken {
    pub fn new(
        config: &OAuth2Auth,
        client: reqwest::Client,
        instruments: Instruments,
    ) -> std::result::Result<Self, Problem> {
        Ok(Self(Arc::new(Inner {
            request: CalloutTokenRequest::new(config, client)?,
            timeout: config.timeout,
            renew_ahead: config.refresh_before_expiry,
            instruments,
            state: Mutex::default(),
            flight: Flight::default(),
        })))
    }

    /// The token, and whether it had to be fetched for this.
    pub async fn get(&self) -> Result<(Arc<Token>, bool)> {
        let joined = {
            let state = lock(&self.0.state);
            let now = self.0.instruments.clock.monotonic();
            if let Some(token) = state.current.as_ref().filter(|token| now < token.expires_at) {
                return Ok((Arc::clone(token), false));
            }
            self.0.check_backoff(&state, now)?;
            self.0.join()
        };
        landed(joined).await.map(|token| (token, true))
    }

    /// Another token than `refused`. `None`: one was fetched for that reason a moment ago.
    /// Until the new one is there, `refused` stays in use: the provider may have meant one client.
    pub async fn replace(&self, refused: &Token) -> Result<Option<Arc<Token>>> {
        let joined = {
            let mut state = lock(&self.0.state);
            let now = self.0.instruments.clock.monotonic();
            let newer = |token: &&Arc<Token>| token.generation > refused.generation;
            if let Some(token) = state.current.as_ref().filter(newer) {
                return Ok(Some(Arc::clone(token)));
            }
            if !self.0.flight.is_running() {
                self.0.check_backoff(&state, now)?;
                if state.forced_at.is_some_and(|at| now.since(at) < FORCED_FETCH_INTERVAL) {
                    return Ok(None);
                }
                state.forced_at = Some(now);
            }
            self.0.join()
        };
        landed(joined).await.map(Some)
    }

    pub fn health(&self) -> TokenHealth {
        let state = lock(&self.0.state);
        let now = self.0.instruments.clock.monotonic();
        let current = state.current.as_ref();
        TokenHealth {
            fetched: current.is_some(),
            remaining: current.map_or(Duration::ZERO, |token| token.expires_at.since(now)),
            last_error: state.last_error.clone(),
        }
    }

    /// Starts a renewal in the background if it is time.
    pub fn renew_if_due(&self) {
        let state = lock(&self.0.state);
        let now = self.0.instruments.clock.monotonic();
        let due = state.current.as_ref().is_some_and(|token| token.renew_at <= now);
        if due && self.0.check_backoff(&state, now).is_ok() {
            drop(self.0.join());
        }
    }
}

async fn landed(joined: Joined<Result<Arc<Token>>>) -> Result<Arc<Token>> {
    joined.result().await.unwrap_or(Err(CalloutTokenError::Aborted))
}

impl Inner {
    fn check_backoff(&self, state: &State, now: Monotonic) -> Result<()> {
        match &state.last_error {
            Some(error) if now < state.retry_at => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn join(self: &Arc<Self>) -> Joined<Result<Arc<Token>>> {
        let inner = Arc::clone(self);
        self.flight.join(|| async move { inner.fetch().await })
    }

    async fn fetch(&self) -> Result<Arc<Token>> {
        let sent_at = self.instruments.clock.moment();
        let answer = tokio::time::timeout(self.timeout, self.request.send(sent_at.wall))
            .await
            .unwrap_or(Err(CalloutTokenError::Timeout));
        let outcome = match &answer {
            Ok(_) => "issued",
            Err(error) => error.as_str(),
        };
        self.instruments.metrics.callout_token_requests.with_label_values(&[outcome]).inc();
        answer.map(|granted| self.keep(granted, sent_at)).inspect_err(|error| self.failed(error))
    }

    fn keep(&self, granted: NewToken, sent_at: Moment) -> Arc<Token> {
        let lifetime = granted.expires_at.since(sent_at.wall);
        // Jitter keeps replicas apart. A token that does not live so long must be of some use too.
        let ahead = self.renew_ahead.mul_f64(1.0 + 0.1 * rand::random::<f64>());
        let ahead = if ahead + SHORTEST_USE > lifetime { lifetime / 2 } else { ahead };
        let mut state = lock(&self.state);
        state.generation += 1;
        let expires_at = sent_at.monotonic.plus(lifetime);
        let token = Arc::new(Token {
            header: granted.header,
            expires_at,
            renew_at: expires_at.minus(ahead),
            generation: state.generation,
        });
        state.current = Some(Arc::clone(&token));
        state.failures = 0;
        state.last_error = None;
        self.instruments.metrics.callout_token_expiry.set(granted.expires_at.secs() as f64);
        tracing::debug!(lifetime_secs = lifetime.as_secs(), "fetched a token for the lookup");
        token
    }

    fn failed(&self, error: &CalloutTokenError) {
        let mut state = lock(&self.state);
        state.failures += 1;
        // A first failure may pass: the lookup that needs the token tries again at once.
        let wait = match state.failures {
            1 if error.is_transient() => Duration::ZERO,
            failures => BACKOFF.spread_after(failures.saturating_sub(1)),
        };
        state.retry_at = self.instruments.clock.monotonic().plus(wait);
        state.last_error = Some(error.clone());
        let failures = state.failures;
        if *error == CalloutTokenError::InvalidClient {
            tracing::error!(%error, failures, "no token for the lookup");
        } else {
            tracing::warn!(%error, failures, "no token for the lookup");
        }
    }
}
