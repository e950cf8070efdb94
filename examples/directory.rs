//! A provider's side of the lookup over gRPC: `proto/tenantgate/directory/v1/directory.proto`
//! served from a list on the command line.
//!
//! ```text
//! cargo run --example directory -- --listen 127.0.0.1:9400 acme-analytics=T1,T2 other-app=
//! ```
//!
//! and in `tenantgate.yaml`:
//!
//! ```yaml
//! tenants:
//!   lookup: { grpc: { url: "http://127.0.0.1:9400" } }
//! ```

#![expect(clippy::print_stdout, reason = "a demo says where it listens")]

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use tenantgate::lookup::directory_v1::directory_server::{Directory, DirectoryServer};
use tenantgate::lookup::directory_v1::{
    ListAuthorizedTenantsRequest, ListAuthorizedTenantsResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:9400")]
    listen: SocketAddr,
    /// Require `authorization: Bearer TOKEN`.
    #[arg(long)]
    token: Option<String>,
    /// `CLIENT=CODE,CODE`, any number of times. Other clients are answered with NOT_FOUND.
    grants: Vec<String>,
}

struct Grants {
    by_client: HashMap<String, Vec<String>>,
    token: Option<String>,
}

#[tonic::async_trait]
impl Directory for Grants {
    async fn list_authorized_tenants(
        &self,
        request: Request<ListAuthorizedTenantsRequest>,
    ) -> Result<Response<ListAuthorizedTenantsResponse>, Status> {
        if let Some(token) = &self.token {
            let sent = request.metadata().get("authorization");
            let sent = sent.and_then(|value| value.to_str().ok()).unwrap_or_default();
            if sent != format!("Bearer {token}") {
                return Err(Status::unauthenticated("the bearer token is not the expected one"));
            }
        }
        let request = request.into_inner();
        let codes = self
            .by_client
            .get(&request.client_id)
            .ok_or_else(|| Status::not_found("no tenant has authorised this client"))?;
        // The list never changes while this runs, so its length is validator enough.
        let etag = format!("v{}", codes.len());
        let not_modified = request.if_none_match == etag;
        Ok(Response::new(ListAuthorizedTenantsResponse {
            tenant_codes: if not_modified { Vec::new() } else { codes.clone() },
            attributes: HashMap::new(),
            etag,
            not_modified,
        }))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut by_client = HashMap::new();
    for grant in &args.grants {
        let (client, codes) = grant.split_once('=').context("write grants as CLIENT=CODE,CODE")?;
        let codes = codes.split(',').filter(|code| !code.is_empty()).map(str::to_owned).collect();
        by_client.insert(client.to_owned(), codes);
    }
    let listener = TcpListener::bind(args.listen).await.context("cannot listen")?;
    println!("directory listens on {}", listener.local_addr()?);
    Server::builder()
        .add_service(DirectoryServer::new(Grants { by_client, token: args.token }))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}
