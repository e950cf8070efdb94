//! The lookup over gRPC against a service that misbehaves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::config::{ClientTls, GrpcLookup, Lookup, LookupAuth};
use crate::domain::Clock as _;
use crate::lookup::{Grants, Question};

use super::super::directory_v1::directory_server::{Directory, DirectoryServer};
use super::super::directory_v1::{ListAuthorizedTenantsRequest, ListAuthorizedTenantsResponse};
use super::super::flight::lock;
use super::super::testing::*;
use super::SECOND;

/// `if_none_match` and `authorization` of each call.
type Calls = Arc<Mutex<Vec<(String, Option<String>)>>>;
type Reply = Result<ListAuthorizedTenantsResponse, Status>;

struct Service {
    script: fn(usize) -> Reply,
    delay: Duration,
    calls: Calls,
}

#[tonic::async_trait]
impl Directory for Service {
    async fn list_authorized_tenants(
        &self,
        request: Request<ListAuthorizedTenantsRequest>,
    ) -> Result<Response<ListAuthorizedTenantsResponse>, Status> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        let nth = {
            let mut calls = lock(&self.calls);
            calls.push((request.into_inner().if_none_match, authorization));
            calls.len() - 1
        };
        tokio::time::sleep(self.delay).await;
        (self.script)(nth).map(Response::new)
    }
}

struct Served {
    url: String,
    calls: Calls,
}

async fn serve(delay: Duration, script: fn(usize) -> Reply) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Calls::default();
    let service = DirectoryServer::new(Service { script, delay, calls: calls.clone() });
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    Served { url, calls }
}

async fn bench(url: &str, auth: LookupAuth) -> LookupBench {
    let unused = Provider::start(|_, _| Vec::new()).await;
    let mut limits = http_lookup(&unused).limits;
    limits.timeout = Duration::from_millis(900);
    let lookup = GrpcLookup { limits, url: url.parse().unwrap(), auth, tls: ClientTls::default() };
    LookupBench::with(&Lookup::Grpc(Box::new(lookup)))
}

fn listed(codes: &[&str]) -> ListAuthorizedTenantsResponse {
    ListAuthorizedTenantsResponse {
        tenant_codes: codes.iter().map(|&code| code.to_owned()).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn every_status_has_its_outcome() {
    type Row = (&'static str, &'static str, usize, fn(usize) -> Reply);
    let rows: [Row; 13] = [
        ("granted", "granted", 1, |_| Ok(listed(&["T1"]))),
        ("empty", "denied", 1, |_| Ok(listed(&[]))),
        ("not found", "denied", 1, |_| Err(Status::not_found(""))),
        ("some codes that are none", "granted", 1, |_| Ok(listed(&["a/b", "T1"]))),
        ("only codes that are none", "wrong_shape", 1, |_| Ok(listed(&["a/b"]))),
        ("not modified unasked", "wrong_shape", 1, |_| {
            Ok(ListAuthorizedTenantsResponse { not_modified: true, ..listed(&["T1"]) })
        }),
        ("unauthenticated", "unauthorized", 1, |_| Err(Status::unauthenticated(""))),
        ("permission denied", "unauthorized", 1, |_| Err(Status::permission_denied(""))),
        ("unavailable once", "granted", 2, |nth| match nth {
            0 => Err(Status::unavailable("")),
            _ => Ok(listed(&["T1"])),
        }),
        ("internal", "server_error", 3, |_| Err(Status::internal("CANARY"))),
        ("exhausted", "too_many_requests", 3, |_| Err(Status::resource_exhausted(""))),
        ("invalid argument", "unexpected_status", 1, |_| Err(Status::invalid_argument(""))),
        ("too large", "too_large", 1, |_| Ok(listed(&["T1"; 300_000]))),
    ];
    for (name, expected, calls, script) in rows {
        let served = serve(Duration::ZERO, script).await;
        let bench = bench(&served.url, LookupAuth::None).await;
        let outcome = bench.ask("acme").await;
        assert_eq!(outcome.as_str(), expected, "{name}: {outcome:?}");
        assert_eq!(lock(&served.calls).len(), calls, "{name}");
        assert!(!format!("{outcome:?}").contains("CANARY"), "{outcome:?}");
    }
}

#[tokio::test]
async fn too_slow_and_nobody_there() {
    let served = serve(30 * SECOND, |_| Ok(listed(&["T1"]))).await;
    let slow = bench(&served.url, LookupAuth::None).await;
    assert_eq!(slow.ask("acme").await.as_str(), "timeout");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let nobody = bench(&url, LookupAuth::None).await;
    let outcome = nobody.ask("acme").await;
    assert_eq!(outcome.as_str(), "connect", "{outcome:?}");
}

#[tokio::test]
async fn it_has_the_same_credentials() {
    let served = serve(Duration::ZERO, |nth| match nth {
        0 => Err(Status::unauthenticated("")),
        _ => Ok(listed(&["T1"])),
    })
    .await;
    let issuer = Provider::with_tokens(|_, _| Vec::new()).await;
    let auth = LookupAuth::OAuth2(Box::new(oauth2(&issuer)));
    let bench = bench(&served.url, auth).await;
    assert_eq!(bench.ask("acme").await.codes(), ["T1"]);
    let sent: Vec<_> = lock(&served.calls).iter().filter_map(|call| call.1.clone()).collect();
    assert_eq!(sent, ["Bearer token-0", "Bearer token-1"]);
}

#[tokio::test]
async fn an_unchanged_answer_is_as_young_as_its_question() {
    let served = serve(Duration::ZERO, |_| {
        Ok(ListAuthorizedTenantsResponse { not_modified: true, ..listed(&[]) })
    })
    .await;
    let bench = bench(&served.url, LookupAuth::None).await;
    bench.clock.advance(60 * SECOND);
    let acme = client("acme");
    let question = Question { etag: Some("v1"), ..Question::of(&acme) };
    let answer = bench.directory.look_up(question, &|_| ()).await.unwrap();
    assert!(matches!(answer.grants, Grants::Unchanged { .. }));
    assert_eq!(answer.sent_at, bench.clock.monotonic());
    assert_eq!(lock(&served.calls)[0].0, "v1");
}

#[tokio::test]
async fn attributes_become_claims_but_never_reserved_ones() {
    let served = serve(Duration::ZERO, |_| {
        let attributes = [("plan", "go\"ld"), ("sub", "root"), ("iss", "me"), ("a b", "x")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(ListAuthorizedTenantsResponse {
            attributes: HashMap::from(attributes),
            ..listed(&["T1"])
        })
    })
    .await;
    let bench = bench(&served.url, LookupAuth::None).await;
    let expected = [("plan".to_owned(), r#""go\"ld""#.to_owned())];
    assert_eq!(bench.ask("acme").await.listed().claims, expected.into());
}
