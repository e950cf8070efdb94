//! The filter that asks: ext_authz over gRPC, or tenantgate itself as a dynamic module.

use crate::lint::Report;
use crate::lint::node::Node;
use crate::lint::rules;

use super::{EnvoyConfig, cluster, type_of};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ExtAuthz,
    Module,
}

/// A filter of a connection manager that decides about requests.
pub struct Check<'a> {
    pub kind: Kind,
    pub name: &'a str,
    /// The entry of `http_filters`.
    pub entry: Node<'a>,
    /// Its place among the filters.
    pub position: usize,
}

pub fn of_manager<'a>(manager: &Node<'a>) -> Vec<Check<'a>> {
    let filters = manager.get("http_filters").items();
    let check = |(position, entry): (usize, &Node<'a>)| {
        let kind = kind_of(entry)?;
        let name = entry.get("name").text().unwrap_or_default();
        Some(Check { kind, name, entry: entry.clone(), position })
    };
    filters.iter().enumerate().filter_map(check).collect()
}

fn kind_of(entry: &Node) -> Option<Kind> {
    let typed = entry.get("typed_config");
    let kind = type_of(&typed);
    if kind == "DynamicModuleFilter" {
        let ours = typed.get("filter_name").text() == Some("tenantgate");
        return ours.then_some(Kind::Module);
    }
    // Settings that come by discovery have no type here.
    let name = entry.get("name").text().unwrap_or_default();
    let discovered = entry.get("config_discovery").exists() && name.contains("ext_authz");
    (kind == "ExtAuthz" || discovered).then_some(Kind::ExtAuthz)
}

pub fn lint(report: &mut Report, config: &EnvoyConfig, check: &Check) {
    if check.kind == Kind::Module {
        return;
    }
    if check.entry.get("config_discovery").exists() {
        let why = "what it does when the check fails cannot be seen here";
        let cure = "write them into the listener, or look at the discovered config by hand";
        report.warning(&check.entry, "its settings come by discovery", why, cure);
        return;
    }
    let typed = check.entry.get("typed_config");
    let grpc = typed.get("grpc_service");
    if !grpc.exists() {
        let why = "tenantgate speaks gRPC only: every check fails";
        report.error(&typed, "no `grpc_service`", why, "name tenantgate's cluster in envoy_grpc");
        return;
    }
    rules::fail_open(report, &typed.get("failure_mode_allow"), "set failure_mode_allow: false");
    let shadow = typed.get("shadow_mode");
    if shadow.is_true() {
        let why = "every request passes, whatever tenantgate answers";
        let cure = "take it out; tenantgate's own `shadow` of an API tries rules out and records";
        report.error(&shadow, "nothing is enforced", why, cure);
    }
    enabled(report, &typed);
    let code = typed.at("status_on_error.code");
    let named = match code.text() {
        Some("ServiceUnavailable") => Some(503.0),
        Some("InternalServerError") => Some(500.0),
        Some("BadGateway") => Some(502.0),
        Some("GatewayTimeout") => Some(504.0),
        Some(_) => Some(0.0),
        None => code.number(),
    };
    let named = named.filter(|_| code.exists());
    if named == Some(0.0) {
        let why = "clients take it for lost access, or do not try again";
        let cure = "set status_on_error: { code: ServiceUnavailable }";
        report.error(&code, "a failed check does not answer 503", why, cure);
    } else {
        let cure = "set status_on_error: { code: ServiceUnavailable }";
        rules::status_on_error(report, &code, named, cure);
    }
    rules::timeout(report, &grpc.get("timeout"), "200ms", "set grpc_service.timeout: 0.5s");
    headers(report, &typed);
    rules::body(report, &typed.get("with_request_body"));
    rules::route_may_change(report, &typed.get("clear_route_cache"));
    let version = typed.get("transport_api_version");
    if version.text().is_some_and(|version| version != "V3" && version != "AUTO") {
        let why = "tenantgate speaks v3 only: every check fails";
        report.error(&version, "not the v3 API", why, "set transport_api_version: V3");
    }
    let name = grpc.at("envoy_grpc.cluster_name");
    if name.exists() {
        cluster::lint(report, config, &name);
    }
}

/// Whether the check is made for every request.
fn enabled(report: &mut Report, typed: &Node) {
    let fraction = typed.get("filter_enabled");
    let denied = typed.at("deny_at_disable.default_value").is_true();
    if fraction.exists() {
        let share = fraction.get("default_value");
        let of = match share.get("denominator").text() {
            Some("TEN_THOUSAND") => 10_000.0,
            Some("MILLION") => 1_000_000.0,
            _ => match share.get("denominator").number() {
                Some(1.0) => 10_000.0,
                Some(2.0) => 1_000_000.0,
                _ => 100.0,
            },
        };
        let all = share.get("numerator").number().is_some_and(|number| number >= of);
        let cure = "take filter_enabled out";
        if !all && !denied {
            let what = "the check is made for a part of the requests";
            report.error(&fraction, what, "the others reach the API unchecked", cure);
        } else if fraction.get("runtime_key").exists() {
            let why = "a change at run time, which no review sees, switches it off";
            report.warning(&fraction, "a runtime key decides about the check", why, cure);
        }
    }
    let metadata = typed.get("filter_enabled_metadata");
    if metadata.exists() && !denied {
        let filter = metadata.get("filter").text().unwrap_or_default();
        if filter == "envoy.filters.http.rbac" {
            let what = "the check is made where an AuthorizationPolicy (CUSTOM) says so";
            let cure = "lint that policy: only exact token paths may be left out";
            report.warning(&metadata, what, "what its rules leave out is unchecked", cure);
        } else {
            let what = "the check depends on metadata of the request";
            let cure = "take filter_enabled_metadata out";
            report.error(&metadata, what, rules::UNCHECKED, cure);
        }
    }
}

fn headers(report: &mut Report, typed: &Node) {
    let at = typed.get("allowed_headers");
    let names: Vec<String> = at
        .get("patterns")
        .items()
        .iter()
        .flat_map(|pattern| {
            let text = ["exact", "prefix", "suffix", "contains"].map(|kind| pattern.get(kind));
            let regex = pattern.at("safe_regex.regex");
            text.into_iter().chain([regex]).filter_map(|text| text.text()).map(str::to_lowercase)
        })
        .collect();
    let fits = |pattern: &Node| {
        let prefix = pattern.get("prefix").text();
        prefix.is_some_and(|prefix| "authorization".starts_with(&prefix.to_lowercase()))
            || [pattern.get("suffix"), pattern.get("contains"), pattern.get("safe_regex")]
                .iter()
                .any(Node::exists)
    };
    let cure = "set allowed_headers to authorization and x-request-id";
    // Whether a pattern lets `authorization` through is left to its author.
    let mut names = names;
    if at.get("patterns").items().iter().any(fits) {
        names.push("authorization".to_owned());
    }
    rules::sent_headers(report, &at, &names, cure);
}
