use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;

use crate::domain::{ClientId, GrantBook, GrantCell, Monotonic};

/// A client that was not heard of for so long is forgotten; its next token is a new one.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// The freshest grants of every client seen here or told by the sidecar.
#[derive(Default)]
pub struct Cells(DashMap<ClientId, Arc<GrantCell>>);

impl GrantBook for Cells {
    fn cell(&self, client: &ClientId) -> Arc<GrantCell> {
        if let Some(cell) = self.0.get(client) {
            return Arc::clone(&cell);
        }
        Arc::clone(&self.0.entry(client.clone()).or_default())
    }
}

impl Cells {
    /// Forgets the tenants of all clients but these: the digests' keys are others, and they could
    /// not be compared with any more.
    pub fn forget_grants(&self, but: &HashSet<ClientId>) {
        self.0.iter().filter(|cell| !but.contains(cell.key())).for_each(|cell| cell.forget());
    }

    /// The clients that had requests since `then`.
    pub fn used_since(&self, then: Monotonic) -> Vec<ClientId> {
        let used = self.0.iter().filter(|cell| cell.last_used() >= then);
        used.map(|cell| cell.key().clone()).collect()
    }

    /// Bounds what is kept. A cell that a remembered token holds stays.
    pub fn tidy(&self, now: Monotonic) {
        self.0.retain(|_, cell| {
            let told = cell.current().as_ref().map(|set| set.looked_up_at).unwrap_or_default();
            let heard = cell.last_used().max(told);
            Arc::strong_count(cell) > 1 || now.since(heard) < FORGET_AFTER
        });
    }
}
