use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::{Algorithm, Clock as _, ManualClock};
use crate::keys::jwks::{PublicJwk, thumbprint};
use crate::keys::{KeyPair, SigningAlgorithm};
use crate::telemetry::Metrics;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

type Reply = Box<dyn Fn(&str) -> Response + Send + Sync>;

/// An issuer whose answers can be changed, and what was asked of it.
struct Issuer {
    address: SocketAddr,
    reply: Mutex<Reply>,
    asked: AtomicUsize,
}

impl Issuer {
    async fn start(reply: impl Fn(&str) -> Response + Send + Sync + 'static) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            reply: Mutex::new(Box::new(reply)),
            asked: AtomicUsize::new(0),
        });
        let answer = async |State(issuer): State<Arc<Issuer>>, uri: Uri| {
            issuer.asked.fetch_add(1, Ordering::SeqCst);
            (issuer.reply.lock().unwrap())(uri.path())
        };
        let router = Router::new().fallback(answer).with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn answer(&self, reply: impl Fn(&str) -> Response + Send + Sync + 'static) {
        *self.reply.lock().unwrap() = Box::new(reply);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }
}

/// What a `RemoteKeys` under test publishes, and its surroundings.
struct Bench {
    keys: Arc<RemoteKeys>,
    published: Arc<Mutex<Vec<KeySet>>>,
    metrics: Arc<Metrics>,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new(issuer: &str, location: Location, pace: Pace) -> Self {
        let of = KeysOf {
            issuer: issuer.to_owned(),
            wanted: WantedKeys::named(&[Algorithm::EdDsa]),
            own: false,
        };
        let published = Arc::<Mutex<Vec<KeySet>>>::default();
        let (sink, name) = (published.clone(), issuer.to_owned());
        let publish: Publish = Arc::new(move |issuer, set| {
            assert_eq!(issuer, name);
            sink.lock().unwrap().push(set);
        });
        let metrics = Arc::new(Metrics::new());
        let clock = Arc::new(ManualClock::at(NOW));
        let client = key_client(Client::builder().no_proxy()).build().unwrap();
        let instruments = Instruments { clock: clock.clone(), metrics: metrics.clone() };
        let mut keys = RemoteKeys::new(of, location, client, instruments, publish);
        keys.pace = pace;
        Self { keys: Arc::new(keys), published, metrics, clock }
    }

    fn jwks(issuer: &Issuer, pace: Pace) -> Self {
        Self::new("https://login.example", Location::Jwks(issuer.url("/jwks")), pace)
    }

    fn start(&self) -> CancellationToken {
        let (keys, cancelled) = (self.keys.clone(), CancellationToken::new());
        let inner = cancelled.clone();
        tokio::spawn(async move { inner.run_until_cancelled(keys.run()).await });
        cancelled
    }

    fn published(&self) -> usize {
        self.published.lock().unwrap().len()
    }

    fn last(&self) -> KeySet {
        self.published.lock().unwrap().last().unwrap().clone()
    }

    fn refreshes(&self, outcome: &str) -> u64 {
        self.metrics.jwks_refreshes.with_label_values(&[&self.keys.of.issuer, outcome]).get()
    }
}

/// Nothing is repeated within a test's time.
const DAILY: Backoff = Backoff { first: DAY, longest: DAY };
const ONCE: Pace = Pace { refresh: DAY, unknown_kid: DAY, first: DAILY, again: DAILY };

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

/// A set of `count` fresh keys, as text, and the first one's kid.
fn a_set(count: usize) -> (String, String) {
    let keys: Vec<_> = (0..count)
        .map(|_| {
            let key = KeyPair::generate(SigningAlgorithm::EdDsa).unwrap().public_key();
            PublicJwk { kid: thumbprint(&key), algorithm: Algorithm::EdDsa, key }.to_json()
        })
        .collect();
    let kid = keys[0]["kid"].as_str().unwrap().to_owned();
    (json!({ "keys": keys }).to_string(), kid)
}

fn status(status: u16) -> Response {
    StatusCode::from_u16(status).unwrap().into_response()
}

async fn fetch_error(bench: &Bench) -> FetchError {
    bench.keys.fetch().await.expect_err("a failure")
}

#[tokio::test]
async fn a_set_is_fetched_published_and_good_for_a_day() {
    let (set, kid) = a_set(2);
    let odd = set.replacen("[", r#"[{"kty":"oct","kid":"x","k":"AA"},"#, 1);
    let issuer = Issuer::start(move |_| odd.clone().into_response()).await;
    let bench = Bench::jwks(&issuer, ONCE);
    let cancelled = bench.start();
    until("the set", || bench.published() == 1).await;
    let set = bench.last();
    assert_eq!(set.len(), 2);
    assert!(set.get(&kid).is_some());
    assert!(set.good_at(bench.clock.monotonic().plus(DAY - Duration::from_nanos(1))));
    assert!(!set.good_at(bench.clock.monotonic().plus(DAY)));
    assert_eq!(bench.refreshes("ok"), 1);
    let issuer_label = ["https://login.example"];
    let success = bench.metrics.jwks_last_success.with_label_values(&issuer_label).get();
    assert_eq!(success, NOW.secs() as f64);
    assert_eq!(bench.metrics.jwks_keys_skipped.with_label_values(&issuer_label).get(), 1);
    cancelled.cancel();
    until("the end of the task", || Arc::strong_count(&bench.keys) == 1).await;
}

#[tokio::test]
async fn it_is_renewed_by_itself_and_a_withdrawn_key_disappears() {
    let ((old, old_kid), (new, new_kid)) = (a_set(1), a_set(1));
    let issuer = Issuer::start(move |_| old.clone().into_response()).await;
    let bench = Bench::jwks(&issuer, Pace { refresh: Duration::from_millis(50), ..ONCE });
    let _running = bench.start();
    until("the first set", || bench.published() > 0).await;
    assert!(bench.last().get(&old_kid).is_some());
    issuer.answer(move |_| new.clone().into_response());
    until("the second set", || bench.last().get(&new_kid).is_some()).await;
    assert!(bench.last().get(&old_kid).is_none());
}

#[tokio::test]
async fn an_issuer_that_starts_later_is_tried_again_soon_and_ever_slower() {
    let issuer = Issuer::start(|_| status(503)).await;
    let first = Backoff { first: Duration::from_millis(40), longest: Duration::from_millis(160) };
    let bench = Bench::jwks(&issuer, Pace { first, ..ONCE });
    let _running = bench.start();
    let began = Instant::now();
    until("five tries", || issuer.asked() >= 5).await;
    // 40 + 80 + 160 + 160 ms, less the jitter; without doubling it would be 160.
    assert!(began.elapsed() >= Duration::from_millis(390), "{:?}", began.elapsed());
    assert_eq!(bench.published(), 0);
    let (set, _) = a_set(1);
    issuer.answer(move |_| set.clone().into_response());
    until("the set", || bench.published() == 1).await;
    assert!(bench.refreshes("status") >= 5);
}

#[tokio::test]
async fn a_failing_refresh_publishes_nothing_so_that_the_last_good_set_stays() {
    let (set, kid) = a_set(1);
    let issuer = Issuer::start(move |_| set.clone().into_response()).await;
    let soon = Duration::from_millis(30);
    let bench = Bench::jwks(
        &issuer,
        Pace { refresh: soon, again: Backoff { first: soon, longest: soon }, ..ONCE },
    );
    let _running = bench.start();
    until("the set", || bench.published() > 0).await;
    issuer.answer(|_| "<html>".into_response());
    until("failures", || bench.refreshes("malformed") >= 2).await;
    let before = bench.published();
    until("more failures", || bench.refreshes("malformed") >= 4).await;
    assert_eq!(bench.published(), before);
    assert!(bench.last().get(&kid).is_some());
}

#[tokio::test]
async fn an_unknown_kid_causes_a_fetch_at_once_and_many_no_second_one_too_soon() {
    let (set, _) = a_set(1);
    let issuer = Issuer::start(move |_| set.clone().into_response()).await;
    let gap = Duration::from_secs(2);
    let bench = Bench::jwks(&issuer, Pace { unknown_kid: gap, ..ONCE });
    let _running = bench.start();
    until("the set", || bench.published() == 1).await;
    let hinted = Instant::now();
    bench.keys.hint_unknown_kid();
    until("a second set", || bench.published() == 2).await;
    assert!(hinted.elapsed() < gap, "{:?}", hinted.elapsed());
    for _ in 0..10_000 {
        bench.keys.hint_unknown_kid();
    }
    until("a third set", || bench.published() == 3).await;
    assert!(hinted.elapsed() >= gap, "{:?}", hinted.elapsed());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(issuer.asked(), 3);
}

#[tokio::test]
async fn a_redirect_is_followed_on_its_host_only_and_not_for_ever() {
    let (set, _) = a_set(1);
    let answer = set.clone();
    let elsewhere = Issuer::start(move |_| answer.clone().into_response()).await;
    let target = elsewhere.url("/jwks").to_string();
    let issuer = Issuer::start(move |_| Redirect::temporary(&target).into_response()).await;
    let bench = Bench::jwks(&issuer, ONCE);
    assert!(matches!(fetch_error(&bench).await, FetchError::Status(_)));
    assert_eq!((elsewhere.asked(), issuer.asked()), (0, 1));

    issuer.answer(move |path| match path {
        "/jwks" => Redirect::temporary("/moved").into_response(),
        _ => set.clone().into_response(),
    });
    assert_eq!(bench.keys.fetch().await.unwrap().0.len(), 1);
    issuer.answer(|_| Redirect::temporary("/jwks").into_response());
    assert!(matches!(fetch_error(&bench).await, FetchError::Status(_)));
    assert_eq!(issuer.asked(), 3 + 1 + MAX_REDIRECTS);
}

#[tokio::test]
async fn hostile_answers_are_refused() {
    let endless = || {
        let chunk = Bytes::from(vec![b' '; 64 * 1024]);
        let chunks = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
        Body::from_stream(chunks).into_response()
    };
    let many = format!("{{\"keys\":[{}]}}", vec!["0"; 100_000].join(","));
    let deep = "[".repeat(200_000);
    let issuer = Issuer::start(move |_| endless()).await;
    let bench = Bench::jwks(&issuer, ONCE);
    assert_eq!(fetch_error(&bench).await.outcome(), "too_large");
    issuer.answer(move |_| many.clone().into_response());
    assert_eq!(fetch_error(&bench).await.outcome(), "too_large");
    issuer.answer(move |_| deep.clone().into_response());
    assert_eq!(fetch_error(&bench).await.outcome(), "malformed");
    issuer.answer(|_| "<!doctype html><title>Sign in</title>".into_response());
    assert_eq!(fetch_error(&bench).await.outcome(), "malformed");
    for code in [204, 206, 304, 404, 500] {
        issuer.answer(move |_| status(code));
        assert_eq!(fetch_error(&bench).await.outcome(), "status", "{code}");
    }
}

#[tokio::test]
async fn a_slow_drip_ends_after_two_seconds() {
    let issuer = Issuer::start(|_| {
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
        });
        Body::from_stream(drops).into_response()
    })
    .await;
    let bench = Bench::jwks(&issuer, ONCE);
    let began = Instant::now();
    assert_eq!(fetch_error(&bench).await.outcome(), "timeout");
    let took = began.elapsed();
    assert!(took >= TIMEOUT && took < TIMEOUT * 2, "{took:?}");
}

#[tokio::test]
async fn a_refused_connection_is_told_without_the_urls_query() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = Url::parse(&format!("http://{address}/jwks?key=CANARY")).unwrap();
    let bench = Bench::new("https://login.example", Location::Jwks(url), ONCE);
    let error = fetch_error(&bench).await;
    assert_eq!(error.outcome(), "unreachable");
    let text = error.to_string();
    assert!(text.to_lowercase().contains("refused") && !text.contains("CANARY"), "{text}");
}

/// A discovering bench for an issuer at `path`, which answers by `documents` and knows a set at
/// `/keys`.
async fn discovering(
    path: &str,
    documents: impl Fn(&str, &str) -> Option<serde_json::Value> + Send + Sync + 'static,
) -> (Arc<Issuer>, Bench) {
    let (set, _) = a_set(1);
    let issuer = Issuer::start(|_| status(500)).await;
    let base = issuer.url("").as_str().trim_end_matches('/').to_owned();
    let name = format!("{base}{path}");
    let location = Location::Discovery(Url::parse(&name).unwrap());
    issuer.answer(move |asked| match documents(&base, asked) {
        Some(document) => document.to_string().into_response(),
        None if asked == "/keys" => set.clone().into_response(),
        None => status(404),
    });
    (issuer, Bench::new(&name, location, ONCE))
}

#[tokio::test]
async fn discovery_asks_openid_first_then_rfc_8414() {
    for (path, known, asked) in [
        ("", "/.well-known/openid-configuration", 2),
        ("/a/b", "/a/b/.well-known/openid-configuration", 2),
        ("/a/b", "/.well-known/oauth-authorization-server/a/b", 3),
        ("/a/", "/.well-known/oauth-authorization-server/a", 3),
        ("/a/b", "/.well-known/openid-configuration/a/b", 4),
    ] {
        let (issuer, bench) = discovering(path, move |base, asked| {
            (asked == known).then(
                || json!({"issuer": format!("{base}{path}"), "jwks_uri": format!("{base}/keys")}),
            )
        })
        .await;
        let (set, skipped) = bench.keys.fetch().await.unwrap();
        assert_eq!((set.len(), skipped.len(), issuer.asked()), (1, 0, asked), "{known}");
    }
}

#[tokio::test]
async fn discovery_believes_only_its_own_issuers_document() {
    let (_issuer, bench) = discovering("", |base, _| {
        Some(json!({"issuer": format!("{base}/"), "jwks_uri": format!("{base}/keys")}))
    })
    .await;
    let error = fetch_error(&bench).await;
    assert!(matches!(error, FetchError::OtherIssuer { .. }));
    let told = error.to_string();
    assert!(told.contains("of issuer `") && told.contains("`, not of `"), "{told}");
    let (_issuer, bench) = discovering("", |_, _| Some(json!({"issuer": 1}))).await;
    assert!(matches!(fetch_error(&bench).await, FetchError::Discovery(_)));
}

#[tokio::test]
async fn discovery_leads_to_https_or_to_the_issuers_own_host_and_port() {
    for bad in ["http://127.0.0.1:1/keys", "http://login.example/keys", "file:///etc/keys", "keys"]
    {
        let (_issuer, bench) =
            discovering("", move |base, _| Some(json!({"issuer": base, "jwks_uri": bad}))).await;
        assert!(matches!(fetch_error(&bench).await, FetchError::JwksUri), "{bad}");
    }
    // Refused only when connecting, so it was not for its name.
    let good = "https://127.0.0.1:1/keys";
    let (_issuer, bench) =
        discovering("", move |base, _| Some(json!({"issuer": base, "jwks_uri": good}))).await;
    assert_eq!(fetch_error(&bench).await.outcome(), "unreachable");
}
