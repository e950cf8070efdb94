//! Stands in for the systems of an API provider that puts tenantgate in front of its API. Whoever
//! wires a real API can read here what tenantgate asks of it: a token endpoint, a lookup that lists
//! an app's tenants, and the API.
//!
//! ```text
//! make build
//! target/debug/example-provider --listen 127.0.0.1:9300
//! ```
//!
//! | path | what it is | module |
//! |---|---|---|
//! | `POST /oauth/token` | where tenantgate gets the token for its own lookups | `token` |
//! | `GET\|POST /{client_id}/authorizedTenants` | which tenants has this app | `lookup` |
//! | every other path | the API itself: one report, and an echo of the request | `upstream` |
//! | `/control/...` | switches for demos and tests, no part of a provider's API | `control` |
//!
//! Try it:
//!
//! ```text
//! TOKEN=$(curl -s -u tenantgate:callout-secret -d grant_type=client_credentials \
//!   127.0.0.1:9300/oauth/token | jq -r .access_token)
//! curl -H "Authorization: Bearer $TOKEN" 127.0.0.1:9300/acme-analytics/authorizedTenants
//! curl 127.0.0.1:9300/oda/apis/get/reports/assets/tenant/T1001/devicedistribution
//! curl -X PUT 127.0.0.1:9300/control/grants/acme-analytics/T1003
//! curl -X PUT -d '{"lookup": {"kind": "503", "times": 2}}' 127.0.0.1:9300/control/faults
//! curl -X DELETE 127.0.0.1:9300/control/faults
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demo says what it does")]

mod control;
mod faults;
mod lookup;
mod state;
mod token;
mod upstream;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Parser;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};
use tower::ServiceExt;

use crate::{faults::CloseConnection, state::Provider};

/// Example API provider for tenantgate: token endpoint, tenant lookup, an API, and switches to make
/// them fail.
#[derive(Parser)]
#[command(name = "example-provider")]
struct Args {
    /// Address of the one HTTP listener (HTTP/1.1 and HTTP/2 without TLS); port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9300", value_parser = loopback)]
    listen: SocketAddr,
    /// Writes the bound address here as JSON, `{"http": "127.0.0.1:PORT"}`, once ready
    #[arg(long)]
    ports_file: Option<PathBuf>,
    /// The secret with which tenantgate authenticates at the token endpoint
    #[arg(long, default_value = "callout-secret")]
    callout_secret: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        format!("--listen: cannot bind {}; name a free port, or 0 for any", args.listen)
    })?;
    let address = listener.local_addr()?;
    if let Some(file) = &args.ports_file {
        write_ports_file(file, address).with_context(|| {
            format!("--ports-file: cannot write {}; name a writable path", file.display())
        })?;
    }
    println!("provider listens on http://{address}");

    let provider = Arc::new(Provider::new(args.callout_secret));
    tokio::select! {
        () = serve(listener, router(provider)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "give IP:PORT, such as 127.0.0.1:9300")?;
    if !address.ip().is_loopback() {
        return Err("/control has no authentication; use 127.0.0.1 or [::1]".to_owned());
    }
    Ok(address)
}

/// A reader sees the whole file or none, as it is renamed into place.
fn write_ports_file(file: &Path, address: SocketAddr) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".tmp");
    let ports = serde_json::json!({ "http": address.to_string() });
    std::fs::write(&unfinished, format!("{ports}\n"))?;
    std::fs::rename(&unfinished, file)
}

fn router(provider: Arc<Provider>) -> Router {
    Router::new()
        .route("/oauth/token", post(token::issue))
        .merge(control::routes())
        .fallback(lookup_or_upstream)
        .with_state(provider)
}

/// The lookup and the API share the root, and the API has to see paths undecoded, so both are told
/// apart here.
async fn lookup_or_upstream(State(provider): State<Arc<Provider>>, request: Request) -> Response {
    let path = request.uri().path();
    let first_segment = path.split('/').nth(1);
    if matches!(first_segment, Some("oauth" | "control")) {
        return (StatusCode::NOT_FOUND, "no such endpoint\n").into_response();
    }
    match lookup::client_id(path) {
        Some(client_id) => lookup::answer(&provider, &client_id, request).await,
        None => upstream::answer(&provider, request).await,
    }
}

async fn serve(listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(stream, router.clone()));
            }
            Err(error) => {
                eprintln!("accept: {error}");
                // Most likely out of file descriptors, which takes a moment to pass.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Not `axum::serve`, as the fault "closed" has to end a connection without any reply.
async fn serve_connection(stream: TcpStream, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        eprintln!("set_nodelay: {error}");
    }
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            let Ok(response) = router.oneshot(request.map(Body::new)).await;
            match response.extensions().get::<CloseConnection>() {
                Some(_) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
                None => Ok(response),
            }
        }
    });
    // An error is a peer that went away or a fault at work; neither is news.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
