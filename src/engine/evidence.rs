//! Who used what, and who was refused: kept for those who ask later.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Engine, StartError};
use crate::config::Audit;
use crate::domain::Problem;
use crate::gate::Counted;
use crate::state::{StoreError, UsageRow};
use crate::telemetry::traces::Traces;
use crate::telemetry::{AuditStream, Rotation};

/// How often what was counted is stored.
const STORE: Duration = Duration::from_secs(30);
/// Rows of one write.
const BATCH: usize = 500;

impl Engine {
    /// Opens the stream of issuances and denials, if the config has one, and begins to count.
    pub fn open_evidence(&self) -> Result<(), StartError> {
        let config = self.config();
        if self.state().is_some() {
            let _ = self.gate.ledger.usage.set(Arc::default());
        }
        if let Some(collector) = &config.traces {
            let dropped = self.metrics.spans_dropped.clone();
            let traces = Traces::new(collector.as_str(), dropped).map_err(|error| {
                let message = format!("{error}; check the URL of the collector");
                let field = "telemetry.traces.otlp_grpc".to_owned();
                StartError::from(vec![Problem { field, message }])
            })?;
            let _ = self.gate.ledger.traces.set(Arc::new(traces));
        }
        let stream = match &config.audit {
            None => return Ok(()),
            Some(Audit::Stdout) => AuditStream::to_stdout(),
            Some(Audit::File { path, max_bytes, keep }) => {
                let rotation = Rotation { max_bytes: *max_bytes, keep: *keep };
                AuditStream::to_file(path, rotation).map_err(|error| {
                    let message = format!(
                        "{} cannot be written ({error}); check the folder and its permissions",
                        path.display()
                    );
                    StartError::from(vec![Problem { field: "audit.file".to_owned(), message }])
                })?
            }
        };
        let _ = self.gate.ledger.audit.set(Arc::new(stream));
        Ok(())
    }

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

    /// Sends the last spans.
    pub async fn end_traces(&self) {
        if let Some(traces) = self.gate.ledger.traces.get().cloned() {
            // It blocks, for a bounded time.
            let _ = tokio::task::spawn_blocking(move || traces.end()).await;
        }
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
