//! The yardstick: an external authorization service that looks at nothing. Tonic and envoy-types as
//! they come, with the transport settings and the runtime of our own check listener.

use std::time::Duration;

use envoy_types::ext_authz::v3::CheckResponseExt as _;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

struct Empty;

#[tonic::async_trait]
impl Authorization for Empty {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(CheckResponse::with_status(Status::ok(""))))
    }
}

/// Prints its address and serves until it is killed. On one core a `current_thread` runtime is the
/// harder yardstick: it wakes no other thread.
pub fn serve(single_thread: bool) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match single_thread {
        true => Builder::new_current_thread(),
        false => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(cores).enable_all().build().expect("threads");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("a bound socket"));
        let incoming = TcpListenerStream::new(listener)
            .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
        let (_reporter, health) = tonic_health::server::health_reporter();
        tonic::transport::Server::builder()
            .max_concurrent_streams(65_536)
            .http2_max_pending_accept_reset_streams(Some(65_536))
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_service(health)
            .add_service(AuthorizationServer::new(Empty))
            .serve_with_incoming(incoming)
            .await
            .expect("a server");
    });
}
