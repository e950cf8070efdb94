use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, TextEncoder,
};

use super::declared::{Declared, counter, counters, gauge, gauges, histogram, register};
use crate::domain::{DenyReason, Meter};

/// Everything that `/metrics` shows, declared once with its help text. Label values are names from
/// the config or from our own enums, never anything that a caller sends.
#[expect(missing_docs, reason = "`new` describes each for those who scrape it")]
pub struct Metrics {
    registry: Declared,
    decisions: IntCounterVec,
    shadow_decisions: IntCounterVec,
    issuer_decisions: IntCounterVec,
    pub decision_seconds: Histogram,
    pub token_requests: IntCounterVec,
    pub lookups: IntCounterVec,
    pub lookup_seconds: Histogram,
    pub lookup_retries: IntCounter,
    pub tokens_nearly_full: IntCounter,
    pub lookups_shared: IntCounter,
    pub grants_lost: IntCounter,
    pub grants_emptied: IntCounter,
    pub mass_withdrawals: IntCounter,
    pub active_clients: IntGauge,
    pub refresh_load: Gauge,
    pub dropped_tenant_codes: IntCounter,
    pub callout_token_requests: IntCounterVec,
    pub callout_token_expiry: Gauge,
    pub cache_hits: IntCounterVec,
    pub cache_misses: IntCounterVec,
    pub cache_entries: IntGaugeVec,
    pub cache_bytes: IntGaugeVec,
    pub signing_key_created: Gauge,
    pub jwks_refreshes: IntCounterVec,
    pub jwks_last_success: GaugeVec,
    pub jwks_keys_skipped: IntCounterVec,
    pub reloads: IntCounterVec,
    pub last_reload_ok: IntGauge,
    pub source_ok: IntGaugeVec,
    pub source_last_success: GaugeVec,
    pub task_restarts: IntCounterVec,
    pub clients: IntGauge,
    /// 1 for every API in shadow mode.
    pub shadow_mode: IntGaugeVec,
    pub probing: IntCounter,
    pub throttled: IntCounterVec,
    pub log_lines_dropped: IntCounter,
    pub audit_lines_dropped: IntCounter,
    pub spans_dropped: IntCounter,
    pub pairing_findings: IntGaugeVec,
    pub connections: IntGaugeVec,
    pub connections_limit: IntGaugeVec,
    pub connections_closed: IntCounterVec,
    pub certificate_expiry: GaugeVec,
    pub certificate_ok: IntGaugeVec,
    pub check_messages_refused: IntCounterVec,
    pub panics: IntCounterVec,
}

/// How the state is doing. Only where there is one.
#[expect(missing_docs, reason = "`Metrics::state` describes each")]
pub struct StateGauges {
    pub age: Gauge,
    pub ok: IntGauge,
    pub withdrawals: IntGauge,
    pub differences: IntCounter,
}

/// One API's counters, resolved once, so that a decision touches no lock and no label.
pub struct ApiCounters {
    allowed: IntCounter,
    denied: Vec<IntCounter>,
    shadowed: Vec<IntCounter>,
}

impl Meter for ApiCounters {
    fn allowed(&self) {
        self.allowed.inc();
    }

    fn denied(&self, reason: DenyReason) {
        self.denied[reason as usize].inc();
    }

    fn shadowed(&self, reason: DenyReason) {
        self.shadowed[reason as usize].inc();
    }
}

/// One issuer's counters.
pub struct IssuerCounters {
    allowed: IntCounter,
    denied: IntCounter,
    shadowed: IntCounter,
}

impl Meter for IssuerCounters {
    fn allowed(&self) {
        self.allowed.inc();
    }

    fn denied(&self, _: DenyReason) {
        self.denied.inc();
    }

    fn shadowed(&self, _: DenyReason) {
        self.shadowed.inc();
    }
}

impl Metrics {
    /// All at zero, in a registry of their own.
    #[expect(clippy::new_without_default, reason = "making one registers a whole registry")]
    pub fn new() -> Self {
        let registry = Declared::new();
        let metrics = Self {
            decisions: counters(
                &registry,
                "decisions_total",
                "Decisions by API and reason; the reason of an allowed request is `allowed`.",
                &["api", "reason"],
            ),
            shadow_decisions: counters(
                &registry,
                "shadow_denials_total",
                "Requests let pass only because their API is in shadow mode, by the reason that \
                 would have refused them.",
                &["api", "reason"],
            ),
            issuer_decisions: counters(
                &registry,
                "issuer_decisions_total",
                "Decisions on requests whose credential is good, by its issuer and outcome: \
                 `allowed`, `denied` or `shadowed`.",
                &["issuer", "outcome"],
            ),
            decision_seconds: histogram(
                &registry,
                "decision_duration_seconds",
                "Time of one decision, without gRPC.",
                &[1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2],
            ),
            token_requests: counters(
                &registry,
                "token_requests_total",
                "Requests to the token endpoint by outcome: `issued` or the OAuth error.",
                &["outcome"],
            ),
            lookups: counters(
                &registry,
                "lookups_total",
                "Lookups at the provider by outcome: `granted`, `denied`, or why it was \
                 unavailable.",
                &["outcome"],
            ),
            lookup_seconds: histogram(
                &registry,
                "lookup_duration_seconds",
                "Time of one lookup with all its tries.",
                &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            ),
            lookups_shared: counter(
                &registry,
                "lookups_shared_total",
                "Answers of other replicas' lookups that were taken instead of an own one.",
            ),
            lookup_retries: counter(
                &registry,
                "lookup_retries_total",
                "Tries of lookups after their first.",
            ),
            tokens_nearly_full: counter(
                &registry,
                "tokens_nearly_full_total",
                "Tokens that hold at least 80 % of the tenants that `issuer.max_tenants` allows.",
            ),
            grants_lost: counter(
                &registry,
                "grants_lost_total",
                "Tenants that clients had and that the lookup lists no more.",
            ),
            grants_emptied: counter(
                &registry,
                "grants_emptied_total",
                "Times that a client with grants had none after a lookup.",
            ),
            mass_withdrawals: counter(
                &registry,
                "mass_withdrawals_total",
                "Times that many clients lost all their grants within one refresh.",
            ),
            active_clients: {
                let help = "Clients that got a token or made a request within `max_age`, whose \
                            grants are kept fresh.";
                register(&registry, IntGauge::new("active_clients", help))
            },
            refresh_load: gauge(
                &registry,
                "refresh_load_ratio",
                "What the refresh of all active clients takes of its share of the lookups' \
                 concurrency; above 1 it falls behind.",
            ),
            dropped_tenant_codes: counter(
                &registry,
                "dropped_tenant_codes_total",
                "Codes in lookup answers that are not tenant codes; they are left out.",
            ),
            callout_token_requests: counters(
                &registry,
                "callout_token_requests_total",
                "Requests for the lookup's own OAuth token, by outcome: `issued`, or why there is \
                 none.",
                &["outcome"],
            ),
            callout_token_expiry: gauge(
                &registry,
                "callout_token_expiry_timestamp_seconds",
                "When the lookup's own OAuth token expires.",
            ),
            cache_hits: counters(
                &registry,
                "cache_hits_total",
                "Found in a cache: `tokens` (verified tokens) or `grants` (answers of lookups).",
                &["cache"],
            ),
            cache_misses: counters(
                &registry,
                "cache_misses_total",
                "Not found in a cache.",
                &["cache"],
            ),
            cache_entries: gauges(&registry, "cache_entries", "Entries in a cache.", &["cache"]),
            cache_bytes: gauges(&registry, "cache_bytes", "Estimated size of a cache.", &["cache"]),
            signing_key_created: gauge(
                &registry,
                "signing_key_created_timestamp_seconds",
                "When the key that signs new tokens was made.",
            ),
            jwks_refreshes: counters(
                &registry,
                "jwks_refreshes_total",
                "Fetches of other issuers' key sets, by issuer and outcome: `ok`, or why there is \
                 none.",
                &["issuer", "outcome"],
            ),
            jwks_last_success: {
                let opts = Opts::new(
                    "jwks_last_success_timestamp_seconds",
                    "When another issuer's key set was last fetched and understood.",
                );
                register(&registry, GaugeVec::new(opts, &["issuer"]))
            },
            jwks_keys_skipped: counters(
                &registry,
                "jwks_keys_skipped_total",
                "Keys in other issuers' key sets that are not used.",
                &["issuer"],
            ),
            reloads: counters(
                &registry,
                "config_reloads_total",
                "Reloads of config, clients, keys and secrets, by outcome: `ok` or `failed`.",
                &["outcome"],
            ),
            last_reload_ok: {
                let gauge = IntGauge::new(
                    "config_last_reload_successful",
                    "1 if the files on disk are what this process runs with, 0 if they are broken.",
                );
                register(&registry, gauge)
            },
            source_ok: gauges(
                &registry,
                "source_ok",
                "1 if all that a source (config, clients, signing_keys, issuer_keys:ISSUER, or the \
                 field of a secret) says is in force, 0 if it is broken or was never read.",
                &["source"],
            ),
            source_last_success: {
                let opts = Opts::new(
                    "source_last_success_timestamp_seconds",
                    "When what is in force was last known to be what the source says.",
                );
                register(&registry, GaugeVec::new(opts, &["source"]))
            },
            task_restarts: counters(
                &registry,
                "task_restarts_total",
                "Restarts of background tasks that panicked, by task.",
                &["task"],
            ),
            clients: {
                let gauge = IntGauge::new("clients", "Registered clients.");
                register(&registry, gauge)
            },
            shadow_mode: gauges(
                &registry,
                "shadow_mode",
                "1 while an API is in shadow mode: what would be denied passes.",
                &["api"],
            ),
            probing: counter(
                &registry,
                "tenant_probing_total",
                "Times that one client asked for many different foreign tenants within a window.",
            ),
            throttled: counters(
                &registry,
                "token_throttled_total",
                "Token requests refused for too many failures, by whose: `client` or `source`.",
                &["limit"],
            ),
            log_lines_dropped: counter(
                &registry,
                "log_lines_dropped_total",
                "Log lines dropped because the reader of the log did not keep up.",
            ),
            audit_lines_dropped: counter(
                &registry,
                "audit_lines_dropped_total",
                "Lines of the audit stream dropped because the disk or the reader did not keep up.",
            ),
            spans_dropped: counter(
                &registry,
                "spans_dropped_total",
                "Spans that the collector of traces did not take.",
            ),
            pairing_findings: gauges(
                &registry,
                "pairing_findings",
                "1 for what checks show of a gateway that is not set up as it should be: \
                 `no_request`, `body`, `all_headers`, `timeout_short`, `timeout_long` or `path`.",
                &["finding"],
            ),
            connections: gauges(
                &registry,
                "connections",
                "Open connections by listener.",
                &["listener"],
            ),
            connections_limit: gauges(
                &registry,
                "connections_limit",
                "Connections that a listener keeps open at most.",
                &["listener"],
            ),
            connections_closed: counters(
                &registry,
                "connections_closed_total",
                "Connections that were ended, by listener and why: `evicted` (idle, and others \
                 waited at the bound), `silent` (the peer did not begin), or `tls` (no handshake).",
                &["listener", "reason"],
            ),
            certificate_expiry: {
                let opts = Opts::new(
                    "certificate_expiry_timestamp_seconds",
                    "When the certificate that a listener shows expires.",
                );
                register(&registry, GaugeVec::new(opts, &["listener"]))
            },
            certificate_ok: gauges(
                &registry,
                "certificate_ok",
                "1 if a listener's certificate files on disk are what it shows, 0 if they are \
                 broken.",
                &["listener"],
            ),
            check_messages_refused: counters(
                &registry,
                "check_messages_refused_total",
                "Checks whose message did not arrive: `too_large`, `slow`, or `crowded` (too much \
                 is unfinished; answered with 503).",
                &["reason"],
            ),
            panics: counters(
                &registry,
                "handler_panics_total",
                "Requests answered with an error because their handler panicked, by listener.",
                &["listener"],
            ),
            registry,
        };
        let opts = Opts::new("build_info", "The running build.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(&metrics.registry, IntGauge::with_opts(opts)).set(1);
        metrics.last_reload_ok.set(1);
        // There from the start, so that a rate sees the first failure.
        for outcome in ["ok", "failed"] {
            metrics.reloads.with_label_values(&[outcome]);
        }
        metrics
    }

    /// The counters of one API of the config.
    pub fn api(&self, api: &str) -> ApiCounters {
        let of = |counters: &IntCounterVec| {
            DenyReason::ALL
                .iter()
                .map(|reason| counters.with_label_values(&[api, reason.as_str()]))
                .collect()
        };
        ApiCounters {
            allowed: self.decisions.with_label_values(&[api, "allowed"]),
            denied: of(&self.decisions),
            shadowed: of(&self.shadow_decisions),
        }
    }

    /// The counters of one issuer of the config.
    pub fn issuer(&self, issuer: &str) -> IssuerCounters {
        let of = |outcome| self.issuer_decisions.with_label_values(&[issuer, outcome]);
        IssuerCounters { allowed: of("allowed"), denied: of("denied"), shadowed: of("shadowed") }
    }

    /// Once a process, where there is a state.
    pub fn state(&self) -> StateGauges {
        let int = |name: &str, help: &str| register(&self.registry, IntGauge::new(name, help));
        StateGauges {
            age: gauge(
                &self.registry,
                "state_age_seconds",
                "How long ago this process last had everything that the state's database knows.",
            ),
            ok: int("state_ok", "1 if the state's database answered when it was last asked."),
            withdrawals: int("state_withdrawals", "Withdrawals by calls that are in force."),
            differences: counter(
                &self.registry,
                "state_differences_total",
                "Records that a full reading of the state found to differ from what was followed.",
            ),
        }
    }

    /// Of one decision, from its first step to the rendered answer.
    pub fn observe_decision(&self, took: Duration) {
        self.decision_seconds.observe(took.as_secs_f64());
    }

    /// Every metric as a row of a table for the documents, also those that only some configs have.
    pub fn table() -> String {
        let metrics = Self::new();
        metrics.state();
        metrics.registry.table()
    }

    /// The Prometheus text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.registry.gather();
        // Outside the registry, whose prefix the standard `process_` names must not get.
        families.extend(ProcessCollector::for_self().collect());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_decisions_build_and_process() {
        let metrics = Metrics::new();
        metrics.api("oda").denied(DenyReason::GrantsStale);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for line in [
            "tenantgate_decisions_total{api=\"oda\",reason=\"grants_stale\"} 1",
            "tenantgate_decisions_total{api=\"oda\",reason=\"allowed\"} 0",
            "tenantgate_build_info{version=",
            "process_resident_memory_bytes",
        ] {
            assert!(text.contains(line), "{line} missing in\n{text}");
        }
    }
}
