//! Sent to an OTLP collector. Off unless the config says so; a span is made only where the caller's
//! trace is sampled. No tenant, token, secret or path is in one.

use std::fmt;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    FutureExt as _, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData};
use prometheus::IntCounter;

use super::Past;
use crate::domain::Timestamp;

const NAME: &str = "tenantgate";
/// For one batch; a collector that is away costs nobody a request.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long the last spans may hold up the end.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Where spans go.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// `dropped` counts spans that no collector took. Needs a runtime around it.
    pub fn new(endpoint: &str, dropped: IntCounter) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder().with_tonic();
        let exporter = exporter.with_endpoint(endpoint).with_timeout(TIMEOUT).build()?;
        let resource = Resource::builder()
            .with_service_name(NAME)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
            .with_batch_exporter(Counting { exporter, dropped })
            .with_resource(resource)
            .build();
        let tracer = provider.tracer(NAME);
        // For the spans of lookups, which begin far from here.
        global::set_tracer_provider(provider.clone());
        Ok(Self { provider, tracer })
    }

    /// Makes a span of what is over already.
    pub fn record(&self, parent: &Parent, past: Past) {
        let builder = self.tracer.span_builder(past.name).with_kind(SpanKind::Server);
        let builder = builder.with_start_time(system_time(past.start));
        let context = Context::new().with_remote_span_context(parent.0.clone());
        let mut span = self.tracer.build_with_context(builder, &context);
        let attributes = past.attributes.into_iter();
        span.set_attributes(attributes.map(|(name, value)| KeyValue::new(name, value)));
        span.end_with_timestamp(system_time(past.end));
    }

    /// Work whose spans, and those of what it leads to, are the caller's. `outcome` names what came
    /// of it.
    pub async fn around<T>(
        &self,
        parent: &Parent,
        name: &'static str,
        work: impl Future<Output = T>,
        outcome: impl FnOnce(&T) -> &'static str,
    ) -> T {
        let context = Context::new().with_remote_span_context(parent.0.clone());
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server);
        let span = self.tracer.build_with_context(builder, &context);
        finish(Context::new().with_span(span), work, outcome).await
    }

    /// Sends what is left. Blocks for a short while.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans may not have been sent");
        }
    }
}

/// A child of the span that this work belongs to, if there is one.
pub async fn child<T>(
    name: &'static str,
    work: impl Future<Output = T>,
    outcome: impl FnOnce(&T) -> &'static str,
) -> T {
    let current = Context::current();
    if !current.span().span_context().is_sampled() {
        return work.await;
    }
    let tracer = global::tracer(NAME);
    let builder = tracer.span_builder(name).with_kind(SpanKind::Client);
    let span = tracer.build_with_context(builder, &current);
    finish(current.with_span(span), work, outcome).await
}

async fn finish<T>(
    context: Context,
    work: impl Future<Output = T>,
    outcome: impl FnOnce(&T) -> &'static str,
) -> T {
    let done = work.with_context(context.clone()).await;
    let outcome = outcome(&done);
    let span = context.span();
    span.set_attribute(KeyValue::new("tenantgate.outcome", outcome));
    span.set_status(Status::Unset);
    span.end();
    done
}

/// Work that goes on elsewhere stays part of the trace that it belongs to.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.with_current_context()
}

/// What the server that is asked gets to see of the trace. `None`: there is none, or it is not
/// sampled.
pub fn outgoing() -> Option<String> {
    let current = Context::current();
    let span = current.span();
    let context = span.span_context();
    context.is_sampled().then(|| format!("00-{}-{}-01", context.trace_id(), context.span_id()))
}

/// The span of a caller whose trace is sampled.
#[derive(Clone, Debug)]
pub struct Parent(SpanContext);

impl Parent {
    /// Reads a `traceparent` (W3C Trace Context, section 3.2). `None`: it is none, or not sampled.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = str::from_utf8(header).ok()?.trim();
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let fits = version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
        let known = version != "ff" && (version != "00" || parts.next().is_none());
        if !fits || !known || ![version, trace, span, flags].into_iter().all(lower) {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let context = SpanContext::new(trace, span, flags, true, TraceState::default());
        (context.is_valid() && context.is_sampled()).then_some(Self(context))
    }
}

/// An exporter that counts what it could not send.
struct Counting {
    exporter: SpanExporter,
    dropped: IntCounter,
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(f)
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let done = self.exporter.export(batch).await;
        if done.is_err() {
            self.dropped.inc_by(count);
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(time.nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sampled_traceparent_is_a_parent() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(Parent::parse(good.as_bytes()).is_some());
        assert!(
            Parent::parse(good.replace("00-4", "01-4").as_bytes()).is_some(),
            "a later version"
        );
        assert!(Parent::parse((good.replace("00-4", "01-4") + "-more").as_bytes()).is_some());
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert!(Parent::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(outgoing(), None);
    }
}
