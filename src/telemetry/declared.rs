//! A registry that knows what has been declared in it, also where nothing has been counted yet.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

pub const PREFIX: &str = "tenantgate";

pub struct Declared {
    pub registry: Registry,
    rows: Mutex<Vec<String>>,
}

impl Declared {
    pub fn new() -> Self {
        let registry = Registry::new_custom(Some(PREFIX.into()), None)
            .unwrap_or_else(|error| unreachable!("the prefix is a valid name: {error}"));
        Self { registry, rows: Mutex::default() }
    }

    /// The rows of a table in Markdown: name, type, labels, meaning.
    pub fn table(&self) -> String {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        rows.sort();
        rows.concat()
    }

    fn note(&self, collector: &impl Collector) {
        let families = collector.collect();
        let kind = match families.first().map(|family| family.get_field_type()) {
            Some(MetricType::COUNTER) => "counter",
            Some(MetricType::HISTOGRAM) => "histogram",
            _ => "gauge",
        };
        for described in collector.desc() {
            let mut labels: Vec<_> = described.variable_labels.iter().map(String::as_str).collect();
            labels.extend(described.const_label_pairs.iter().map(|pair| pair.name()));
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let mut row = String::new();
            let _ = writeln!(
                row,
                "| `{PREFIX}_{}` | {kind} | {} | {} |",
                described.fq_name,
                labels.join(", "),
                described.help
            );
            self.rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
        }
    }
}

pub fn register<C: Collector + Clone + 'static>(
    declared: &Declared,
    collector: prometheus::Result<C>,
) -> C {
    collector
        .and_then(|collector| {
            declared.registry.register(Box::new(collector.clone()))?;
            declared.note(&collector);
            Ok(collector)
        })
        .unwrap_or_else(|error| unreachable!("names are constants and registered once: {error}"))
}

pub fn counter(declared: &Declared, name: &str, help: &str) -> IntCounter {
    register(declared, IntCounter::new(name, help))
}

pub fn counters(declared: &Declared, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(declared, IntCounterVec::new(Opts::new(name, help), labels))
}

pub fn gauge(declared: &Declared, name: &str, help: &str) -> Gauge {
    register(declared, Gauge::new(name, help))
}

pub fn gauges(declared: &Declared, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(declared, IntGaugeVec::new(Opts::new(name, help), labels))
}

pub fn histogram(declared: &Declared, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(
        declared,
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())),
    )
}
