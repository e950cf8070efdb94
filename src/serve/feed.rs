//! The listener that modules inside Envoy are fed at.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::listener::Listener;
use crate::engine::Engine;
use crate::feed::{FeedError, publish};

/// An Envoy has one for each `tenantgate.yaml`, and two while a new one takes over.
const MODULES: usize = 32;

/// Feeds each module that connects, until `shutdown`.
pub async fn serve(
    listener: Listener,
    engine: Arc<Engine>,
    config: &Path,
    shutdown: impl Future<Output = ()>,
) {
    let Listener::Unix(listener) = listener else {
        unreachable!("the config has a Unix socket here: it was parsed")
    };
    let places = Arc::new(Semaphore::new(MODULES));
    let mut fed = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = fed.join_next() => continue,
            () = &mut shutdown => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, mostly: others may be closed in a moment.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(
                limit = MODULES,
                "too many modules want to be fed; one more is hung up on"
            );
            continue;
        };
        let (engine, config) = (Arc::clone(&engine), PathBuf::from(config));
        fed.spawn(async move {
            tracing::info!("a module is being fed");
            match publish(&engine, stream, &config).await {
                FeedError::Ended => tracing::info!("a module has gone"),
                error => tracing::warn!(%error, "a module is not fed any more"),
            }
            drop(place);
        });
    }
}
