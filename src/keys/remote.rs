//! Another issuer's key set over HTTP: fetched and renewed in the background, never by a request.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use reqwest::{Client, ClientBuilder, StatusCode, redirect};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use url::Url;

use super::jwks::{JwksError, MAX_JWKS_BYTES, SkippedKey, WantedKeys, parse_jwks, tell_skipped};
use crate::authz::trust::KeySet;
use crate::domain::{Backoff, Timestamp};
use crate::telemetry::Instruments;

/// For one request, its body included.
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_REDIRECTS: usize = 3;
/// Characters of somebody else's text in an error.
const LONGEST_SHOWN: usize = 200;
/// How long the last good set is believed.
const GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Takes a set whenever one was fetched, changed or not.
pub type Publish = Arc<dyn Fn(&str, KeySet) + Send + Sync>;

/// Where the key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The URL of the key set itself.
    Jwks(Url),
    /// The issuer's URL, for OpenID Connect Discovery 1.0 and, where that has no document, RFC
    /// 8414.
    Discovery(Url),
}

impl Location {
    /// Where the first request goes.
    pub fn url(&self) -> &Url {
        match self {
            Self::Jwks(url) | Self::Discovery(url) => url,
        }
    }
}

/// How often to fetch. All but `unknown_kid` with a jitter of 10 %.
struct Pace {
    refresh: Duration,
    /// Between two fetches for the sake of an unknown `kid`.
    unknown_kid: Duration,
    /// After failures while nothing was ever loaded, so that an issuer may start after us.
    first: Backoff,
    /// The same while the last good set is in use.
    again: Backoff,
}

const OWN_PACE: Pace = Pace {
    refresh: Duration::from_secs(5),
    unknown_kid: Duration::from_secs(5),
    first: Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(5) },
    again: Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(15) },
};

const PACE: Pace = Pace {
    refresh: Duration::from_secs(600),
    unknown_kid: Duration::from_secs(30),
    first: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) },
    again: Backoff { first: Duration::from_secs(30), longest: Duration::from_secs(300) },
};

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Unreachable(String),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("status {0}; redirects to another host are not followed")]
    Status(StatusCode),
    #[error(transparent)]
    Jwks(#[from] JwksError),
    #[error("not a discovery document: {0}")]
    Discovery(String),
    #[error("the discovery document is of issuer `{found}`, not of `{wanted}`")]
    OtherIssuer { found: String, wanted: String },
    #[error("jwks_uri must be https, or on the host and port of the issuer")]
    JwksUri,
}

impl FetchError {
    fn is_status(&self) -> bool {
        matches!(self, Self::Status(_))
    }

    /// The metric's label.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::Jwks(JwksError::TooLarge | JwksError::TooManyKeys) => "too_large",
            Self::Jwks(JwksError::Malformed(_)) => "malformed",
            Self::Discovery(_) | Self::OtherIssuer { .. } | Self::JwksUri => "discovery",
        }
    }
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        // A URL may carry a secret in its query.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self::Unreachable(text)
    }
}

#[derive(Deserialize)]
struct DiscoveryDocument {
    issuer: String,
    jwks_uri: String,
}

/// How the fetches of one issuer's keys go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchStatus {
    /// `None`: never.
    pub last_success: Option<Timestamp>,
    /// Why the last fetch failed, if it did.
    pub error: Option<String>,
}

/// Whose keys are fetched, and which of them.
#[derive(Clone, Debug)]
pub struct KeysOf {
    /// The exact `iss`.
    pub issuer: String,
    /// Others in the set are not used.
    pub wanted: WantedKeys,
    /// They are ours, published by a process beside this one: a key that is taken away there has to
    /// be gone here within seconds.
    pub own: bool,
}

/// What every client that fetches keys has, beside how it reaches them.
pub fn key_client(builder: ClientBuilder) -> ClientBuilder {
    builder.timeout(TIMEOUT).redirect(redirect::Policy::custom(same_host))
}

/// One issuer's keys, kept fresh by [`RemoteKeys::run`].
pub struct RemoteKeys {
    of: KeysOf,
    location: Location,
    client: Client,
    instruments: Instruments,
    publish: Publish,
    unknown_kid: Notify,
    status: ArcSwap<FetchStatus>,
    pace: Pace,
}

impl RemoteKeys {
    /// `client` is one of [`key_client`].
    pub fn new(
        of: KeysOf,
        location: Location,
        client: Client,
        instruments: Instruments,
        publish: Publish,
    ) -> Self {
        let pace = if of.own { OWN_PACE } else { PACE };
        Self {
            of,
            location,
            client,
            instruments,
            publish,
            unknown_kid: Notify::new(),
            status: ArcSwap::default(),
            pace,
        }
    }

    /// Tells that a token named a `kid` that the set lacks. Never blocks. The first time it causes
    /// a fetch at once; however often it is called, at most one in 30 s.
    pub fn hint_unknown_kid(&self) {
        self.unknown_kid.notify_one();
    }

    /// How the last fetch went.
    pub fn status(&self) -> FetchStatus {
        FetchStatus::clone(&self.status.load())
    }

    /// Fetches and publishes, without an end.
    pub async fn run(&self) {
        let mut loaded = self.status().last_success.is_some();
        let mut skipped_before = Vec::new();
        let mut failures = 0;
        let mut next_for_kid = Instant::now();
        loop {
            // Hints until now are answered by this very fetch.
            self.unknown_kid.notified().now_or_never();
            let wait = match self.fetch().await {
                Ok((set, skipped)) => {
                    loaded = true;
                    failures = 0;
                    self.succeeded(set, &skipped, skipped != skipped_before);
                    skipped_before = skipped;
                    self.pace.refresh
                }
                Err(error) => {
                    self.failed(&error, loaded);
                    failures += 1;
                    let backoff = if loaded { self.pace.again } else { self.pace.first };
                    backoff.after(failures)
                }
            };
            let due = Instant::now() + wait.mul_f64(rand::random_range(0.9..=1.1));
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.unknown_kid.notified() => {
                    sleep_until(due.min(next_for_kid)).await;
                    next_for_kid = Instant::now() + self.pace.unknown_kid;
                }
            }
        }
    }

    fn succeeded(&self, set: KeySet, skipped: &[SkippedKey], tell: bool) {
        let issuer = [self.of.issuer.as_str()];
        let Instruments { clock, metrics } = &self.instruments;
        metrics.jwks_refreshes.with_label_values(&[issuer[0], "ok"]).inc();
        let now = clock.now();
        self.status.store(Arc::new(FetchStatus { last_success: Some(now), error: None }));
        metrics.jwks_last_success.with_label_values(&issuer).set(now.secs() as f64);
        metrics.jwks_keys_skipped.with_label_values(&issuer).inc_by(skipped.len() as u64);
        // Once a change, and not at every fetch.
        if tell {
            tell_skipped(issuer[0], skipped, set.len());
        }
        (self.publish)(&self.of.issuer, set);
    }

    fn failed(&self, error: &FetchError, loaded: bool) {
        let issuer = self.of.issuer.as_str();
        self.instruments.metrics.jwks_refreshes.with_label_values(&[issuer, error.outcome()]).inc();
        let message = if loaded {
            "fetching the keys of this issuer failed; the last good ones are used for up to 24 h"
        } else {
            "fetching the keys of this issuer failed; its tokens cannot be checked yet"
        };
        let last_success = self.status().last_success;
        self.status.store(Arc::new(FetchStatus { last_success, error: Some(error.to_string()) }));
        warn!(issuer, %error, "{message}");
    }

    /// The set, and its keys that are not used.
    async fn fetch(&self) -> Result<(KeySet, Vec<SkippedKey>), FetchError> {
        let body = match &self.location {
            Location::Jwks(url) => self.get(url).await?,
            Location::Discovery(issuer) => self.get(&self.discover(issuer).await?).await?,
        };
        let (keys, mut skipped) = parse_jwks(&body, &self.of.wanted)?;
        let given = keys.len();
        let set = KeySet::new(keys, Some(self.instruments.clock.monotonic().plus(GOOD_FOR)));
        let sharing = (0..set.dropped())
            .map(|_| SkippedKey { at: given, why: "shares its kid with another key".to_owned() });
        skipped.extend(sharing);
        Ok((set, skipped))
    }

    /// The URL of the key set by the issuer's own word, from the first place that has it: a host
    /// may answer a page of its own, or somebody else's document, where it has none.
    async fn discover(&self, issuer: &Url) -> Result<Url, FetchError> {
        let mut telling: Option<FetchError> = None;
        for place in [
            openid_configuration(issuer),
            oauth_metadata(issuer),
            inserted(issuer, "openid-configuration"),
        ] {
            let found = self.get(&place).await.and_then(|body| self.jwks_uri(issuer, &body));
            match found {
                Ok(url) => return Ok(url),
                Err(error @ (FetchError::Unreachable(_) | FetchError::Timeout)) => {
                    return Err(error);
                }
                Err(error) if telling.as_ref().is_none_or(FetchError::is_status) => {
                    telling = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(telling.unwrap_or(FetchError::JwksUri))
    }

    /// It may be on another host, as with Google, since the document that names it comes from the
    /// issuer; but never on plain HTTP elsewhere.
    fn jwks_uri(&self, issuer: &Url, document: &[u8]) -> Result<Url, FetchError> {
        let document: DiscoveryDocument = serde_json::from_slice(document)
            .map_err(|error| FetchError::Discovery(error.to_string()))?;
        if document.issuer != self.of.issuer {
            let found = document.issuer.chars().take(LONGEST_SHOWN).collect();
            return Err(FetchError::OtherIssuer { found, wanted: self.of.issuer.clone() });
        }
        let jwks_uri = Url::parse(&document.jwks_uri).map_err(|_| FetchError::JwksUri)?;
        if jwks_uri.scheme() != "https" && jwks_uri.origin() != issuer.origin() {
            return Err(FetchError::JwksUri);
        }
        Ok(jwks_uri)
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let mut response = self.client.get(url.clone()).send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_JWKS_BYTES {
                return Err(JwksError::TooLarge.into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Somebody who can redirect one path of a host must not name keys of another.
fn same_host(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let asked = attempt.previous().first().map(Url::origin);
    if attempt.previous().len() <= MAX_REDIRECTS && asked == Some(attempt.url().origin()) {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

/// OpenID Connect Discovery 1.0, section 4: appended to the issuer.
fn openid_configuration(issuer: &Url) -> Url {
    let mut url = issuer.clone();
    let path = issuer.path().trim_end_matches('/');
    url.set_path(&format!("{path}/.well-known/openid-configuration"));
    url
}

fn oauth_metadata(issuer: &Url) -> Url {
    inserted(issuer, "oauth-authorization-server")
}

/// RFC 8414, sections 3.1 and 5: between the host and the issuer's path.
fn inserted(issuer: &Url, name: &str) -> Url {
    let mut url = issuer.clone();
    let path = issuer.path().trim_end_matches('/');
    url.set_path(&format!("/.well-known/{name}{path}"));
    url
}

#[cfg(test)]
mod tests;
