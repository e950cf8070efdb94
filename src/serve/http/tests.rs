use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::config::ListenAddress;
use crate::serve::connections::{Connections, Patience};
use crate::serve::listener::{Bound, Listener};
use crate::telemetry::Metrics;

const LONG: Duration = Duration::from_secs(5);
const QUICK: Patience =
    Patience { to_begin: Duration::from_millis(500), in_request: Duration::from_millis(500) };
const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const ASK_ONCE: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

async fn start_with(router: Router, connections: usize, patience: Patience) -> Running {
    let any = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let (listener, Bound::Tcp(address)) = Listener::bind(&any).await.unwrap() else { panic!() };
    let connections = Connections::new("test", connections, patience, &Metrics::new());
    let shutdown = CancellationToken::new();
    let limits = HttpLimits {
        header_read: Duration::from_millis(1000),
        idle: Duration::from_millis(1500),
        ..HttpLimits::default()
    };
    let entrance = Entrance { listener, tls: None, connections };
    let served = tokio::spawn(serve(entrance, router, limits, shutdown.clone()));
    Running { address, shutdown, served }
}

async fn start(connections: usize) -> Running {
    let router = Router::new().route("/", axum::routing::get(|| async { "hello" }));
    start_with(router, connections, QUICK).await
}

/// Whether the other side ends the connection before patience does.
async fn ends(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest)).await.is_ok()
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(ASK_ONCE).await.unwrap();
    answer(&mut stream).await
}

#[tokio::test]
async fn a_head_that_drips_is_ended() {
    let Running { address, .. } = start(2).await;
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let drip = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nhost: a\r\nx: ".iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut rest = Vec::new();
    assert!(timeout(LONG, read.read_to_end(&mut rest)).await.is_ok());
    drip.abort();
}

#[tokio::test]
async fn a_silent_connection_is_ended_and_half_a_preface_is_silence() {
    let Running { address, .. } = start(3).await;
    for sent in [&b""[..], b"PRI * HTTP"] {
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(sent).await.unwrap();
        let before = tokio::time::Instant::now();
        let _ = timeout(LONG, silent.read_to_end(&mut Vec::new())).await.unwrap();
        // Before the time for a head or an idle connection is over.
        assert!(before.elapsed() < Duration::from_millis(950), "{:?}", before.elapsed());
    }
}

#[tokio::test]
async fn a_peer_that_asks_and_never_reads_is_ended() {
    let Running { address, .. } = start(2).await;
    let mut greedy = TcpStream::connect(address).await.unwrap();
    let requests = ASK.repeat(1000);
    let stuffed = async { while greedy.write_all(&requests).await.is_ok() {} };
    assert!(timeout(LONG * 2, stuffed).await.is_ok());
}

#[tokio::test]
async fn silent_and_idle_connections_make_room_at_once() {
    let Running { address, .. } = start(3).await;
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(ASK).await.unwrap();
    let mut byte = [0];
    kept.read_exact(&mut byte).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let asked = tokio::time::Instant::now();
    assert!(ask(address).await.ends_with("hello"));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    // The one that had asked before was not the one to go.
    kept.write_all(ASK_ONCE).await.unwrap();
    assert!(answer(&mut kept).await.ends_with("hello"));
}

#[tokio::test]
async fn requests_that_are_not_finished_are_waited_for_a_moment() {
    let Running { address, .. } = start(2).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx: ").await.unwrap();
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(ASK_ONCE).await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(200), third.read(&mut byte)).await;
    assert!(early.is_err(), "answered although both places are taken");
    assert!(answer(&mut third).await.ends_with("hello"));
}

#[tokio::test]
async fn a_peer_that_asks_nothing_does_not_hold_up_the_end() {
    let Running { address, shutdown, served } = start(2).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    // HTTP/2 with empty settings, and not a word more, not even to a PING.
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    shutdown.cancel();
    timeout(LONG, served).await.unwrap().unwrap();
}

fn slow() -> Router {
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "done"
    };
    Router::new().route("/", axum::routing::get(slow))
}

#[tokio::test]
async fn shutting_down_finishes_what_is_under_way() {
    let Running { address, shutdown, served } = start_with(slow(), 2, Patience::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    shutdown.cancel();
    assert!(answer(&mut stream).await.ends_with("done"));
    timeout(LONG, served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_listener_whose_places_are_all_taken_notices_the_end_at_once() {
    let forever = || async { std::future::pending::<&str>().await };
    let quick = Router::new().route("/", axum::routing::get(forever));
    let Running { address, shutdown, mut served } = start_with(quick, 1, Patience::default()).await;
    let mut taken = TcpStream::connect(address).await.unwrap();
    taken.write_all(ASK).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(ASK_ONCE).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    shutdown.cancel();
    // No longer listening, and the one that waited is gone; the request under way is waited for.
    assert!(ends(&mut waiting).await);
    assert!(TcpStream::connect(address).await.is_err());
    assert!(timeout(Duration::from_millis(100), &mut served).await.is_err());
    drop(taken);
    timeout(LONG, served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_is_answered_and_the_other_streams_of_its_connection_live() {
    let panics = |method: http::Method| async move {
        assert_eq!(method, http::Method::PUT, "a fault for this test");
    };
    let router = slow().route("/panic", axum::routing::get(panics));
    let Running { address, .. } = start_with(router, 2, Patience::default()).await;
    let socket = TcpStream::connect(address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(socket)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let mut request = |path: &str| {
        let uri = format!("http://{address}{path}");
        sender.send_request(Request::get(uri).body(Body::empty()).unwrap())
    };
    let (slow, panicked) = (request("/"), request("/panic"));
    assert_eq!(panicked.await.unwrap().status(), 500);
    assert_eq!(slow.await.unwrap().status(), 200);
    assert_eq!(request("/").await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_nobody_reads_closes_the_connection() {
    let router = Router::new().route("/", axum::routing::post(|| async { "unread" }));
    let Running { address, .. } = start_with(router, 2, Patience::default()).await;
    for (body, closes) in
        [("content-length: 3\r\n\r\nabc", true), ("content-length: 0\r\n\r\n", false)]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = vec![0; 400];
        let read = timeout(LONG, stream.read(&mut head)).await.unwrap().unwrap();
        let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
        assert_eq!(head.contains("connection: close"), closes, "{head}");
    }
}
