//! Peers that take connections and give nothing, and what that does to everybody else.

use std::net::SocketAddr;

use tenantgate::serve::Bound;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn tcp(bound: &Bound) -> SocketAddr {
    let Bound::Tcp(address) = bound else { panic!("not TCP: {bound}") };
    *address
}

async fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut peers = Vec::new();
    for _ in 0..count {
        peers.push(TcpStream::connect(address).await.unwrap());
    }
    peers
}

#[tokio::test]
async fn silent_peers_keep_neither_probes_nor_mints_nor_checks_waiting() {
    let few = CONFIG.to_owned()
        + "limits: { check_connections: 20, token_connections: 30, trusted_proxies: 0 }\n";
    let gate = Gate::with_config(&few).await;
    let addresses = gate.running.addresses.clone();
    let token = gate.mint().await;
    let _admin = silent(tcp(&addresses.admin), 200).await;
    let _token = silent(tcp(addresses.token.as_ref().unwrap()), 100).await;
    let _check = silent(tcp(&addresses.check), 100).await;
    let started = Instant::now();
    for path in ["livez", "readyz"] {
        // A connection of its own each, as the kubelet's.
        let asked = reqwest::get(format!("http://{}/{path}", addresses.admin));
        assert_eq!(timeout(SOON, asked).await.unwrap().unwrap().status(), 200, "{path}");
    }
    let fresh = reqwest::Client::new().get(gate.token_url("/oauth2/jwks")).send();
    assert_eq!(timeout(SOON, fresh).await.unwrap().unwrap().status(), 200);
    // On the connection from before, which has been used.
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
    let fresh = AuthorizationClient::connect(format!("http://{}", addresses.check));
    let fresh = timeout(SOON, fresh).await.unwrap().unwrap();
    let headers = [("authorization", &*format!("Bearer {token}"))];
    let answer = timeout(SOON, Gate::ask(fresh, "/api/T2/report", &headers)).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());

    let shown = reqwest::get(format!("http://{}/readyz?verbose", addresses.admin)).await.unwrap();
    let shown = shown.text().await.unwrap();
    assert!(shown.contains("connections on token: ") && shown.contains(" of 30\n"), "{shown}");
    let metrics = reqwest::get(format!("http://{}/metrics", addresses.admin)).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for line in [
        "tenantgate_connections{listener=\"check\"} ",
        "tenantgate_connections_closed_total{listener=\"admin\",reason=\"evicted\"} ",
        "tenantgate_connections_limit{listener=\"token\"} 30",
    ] {
        assert!(metrics.contains(line), "{line} missing");
    }
}

#[tokio::test]
async fn a_process_whose_places_are_all_taken_stops_at_once() {
    let one = CONFIG.to_owned() + "limits: { token_connections: 2 }\n";
    let gate = Gate::with_config(&one).await;
    let token = tcp(gate.running.addresses.token.as_ref().unwrap());
    let mut heads = silent(token, 8).await;
    for head in &mut heads {
        head.write_all(b"POST /oauth2/token HTTP/1.1\r\nhost: a\r\nx: ").await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Gate { running, .. } = gate;
    let started = Instant::now();
    timeout(Duration::from_secs(10), running.drain()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_oversized_check_is_denied() {
    let small = CONFIG.to_owned()
        + "limits: { check_message_bytes: 16384, check_unfinished_bytes: 65536 }\n";
    let gate = Gate::with_config(&small).await;
    let token = gate.mint().await;
    let large = "x".repeat(20_000);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("x-large", &*large)];
    assert_eq!(gate.check_headers("/api/T1/report", &headers).await.status, 400);
    assert_eq!(gate.status("/api/T1/report", &token).await, 200);
}
