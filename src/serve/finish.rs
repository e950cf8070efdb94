use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tokio_util::task::TaskTracker;

/// For an answer to leave, once it is made.
const LINGER: Duration = Duration::from_secs(1);

/// Waits until every connection is closed; or no longer than the requests under way take, where a
/// peer that asks nothing keeps its connection open.
pub async fn finish(connections: GracefulShutdown, requests: TaskTracker) {
    requests.close();
    let answered = async {
        requests.wait().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = connections.shutdown() => {}
        () = answered => {}
    }
}
