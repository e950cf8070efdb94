use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use reqwest::header::HeaderValue;
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::Budget as _;

use crate::domain::{ClientId, Clock};
use crate::telemetry::traces::child;

use super::answer::Answer;
use super::remote::{Auth, Remote, Transport};
use super::step::{Step, StepObserver};
use super::unavailable::Unavailable;

const FIRST_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

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

/// One lookup on its way.
pub struct Inquiry<'a> {
    pub remote: &'a Remote,
    pub question: Question<'a>,
    pub observer: StepObserver<'a>,
    pub clock: &'a dyn Clock,
    pub deadline: Instant,
}

impl Inquiry<'_> {
    /// Within its time budget, tries and token included.
    pub async fn run(&self) -> Result<Answer, Unavailable> {
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
