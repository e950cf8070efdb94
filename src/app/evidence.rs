use std::sync::Arc;

use crate::config::Audit;
use crate::domain::Problem;
use crate::engine::{Engine, StartError};
use crate::telemetry::traces::Traces;
use crate::telemetry::{AuditStream, Rotation};

/// Opens the stream of issuances and denials, if the config has one, and begins to count.
pub fn open(engine: &Engine) -> Result<(), StartError> {
    let config = engine.config();
    if engine.state().is_some() {
        let _ = engine.gate.ledger.usage.set(Arc::default());
    }
    if let Some(collector) = &config.traces {
        let dropped = engine.metrics.spans_dropped.clone();
        let traces = Traces::new(collector.as_str(), dropped).map_err(|error| {
            let message = format!("{error}; check the URL of the collector");
            let field = "telemetry.traces.otlp_grpc".to_owned();
            StartError::from(vec![Problem { field, message }])
        })?;
        let _ = engine.gate.ledger.traces.set(Arc::new(traces));
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
    let _ = engine.gate.ledger.audit.set(Arc::new(stream));
    Ok(())
}

/// Sends the last spans.
pub async fn end_traces(engine: &Engine) {
    if let Some(traces) = engine.gate.ledger.traces.get().cloned() {
        // It blocks, for a bounded time.
        let _ = tokio::task::spawn_blocking(move || traces.end()).await;
    }
}
