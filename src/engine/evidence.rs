//! Who used what, and who was refused: kept for those who ask later.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::gate::Counted;
use crate::state::{StoreError, UsageRow};

/// How often what was counted is stored.
const STORE: Duration = Duration::from_secs(30);
/// Rows of one write.
const BATCH: usize = 500;

impl Engine {
    pub(super) fn run_evidence(self: &Arc<Self>, stop: &CancellationToken) {
        if self.gate.ledger.usage.get().is_none() {
            return;
        }
        let engine = Arc::clone(self);
        self.tasks.spawn("usage", stop.clone(), move || {
            let engine = Arc::clone(&engine);
            async move {
                loop {
                    tokio::time::sleep(STORE).await;
                    if let Err(error) = engine.store_usage().await {
                        tracing::warn!(%error, "the counts of use are not stored yet");
                    }
                }
            }
        });
    }

    /// Stores what was counted since the last time. What cannot be stored is kept.
    pub async fn store_usage(&self) -> Result<(), StoreError> {
        let (Some(state), Some(usage)) = (self.state(), self.gate.ledger.usage.get()) else {
            return Ok(());
        };
        let taken = usage.take();
        for (number, rows) in taken.chunks(BATCH).enumerate() {
            let stored: Vec<UsageRow> = rows.iter().map(row).collect();
            if let Err(error) = state.store().add_usage(&stored).await {
                usage.give_back(&taken[number * BATCH..]);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Brings the figures of the stream up to date.
    pub fn measure_evidence(&self) {
        if let Some(stream) = self.gate.ledger.audit.get() {
            let dropped = &self.metrics.audit_lines_dropped;
            dropped.inc_by(stream.dropped_lines().saturating_sub(dropped.get()));
        }
    }
}

fn row(counted: &Counted) -> UsageRow {
    UsageRow {
        hour: counted.hour,
        issuer: counted.issuer.clone(),
        client: counted.client.clone(),
        reference: counted.tenant.clone(),
        outcome: counted.outcome.to_owned(),
        count: counted.count,
        first: counted.first,
        last: counted.last,
    }
}
