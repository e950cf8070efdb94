//! A connection manager in which a filter asks tenantgate.

use crate::lint::Report;
use crate::lint::node::Node;
use crate::lint::rules::{self, Removed};

use super::filter::{self, Check};
use super::{EnvoyConfig, is_value, logs, routes, type_of};

pub fn lint(report: &mut Report, config: &EnvoyConfig, manager: &Node) {
    let checks = filter::of_manager(manager);
    for check in &checks {
        filter::lint(report, config, check);
    }
    paths(report, manager);
    early_removal(report, manager);
    logs::lint(report, manager);
    order(report, manager, &checks);
    upgrades(report, manager, &checks);
    routes::lint(report, config, manager, &checks);
}

const AGREE: &str = "Envoy, tenantgate and the API may read one path in two ways";

fn paths(report: &mut Report, manager: &Node) {
    for key in ["normalize_path", "merge_slashes"] {
        let at = manager.get(key);
        if !at.is_true() {
            report.error(&at, "off", AGREE, &format!("set {key}: true"));
        }
    }
    escapes(report, manager);
}

pub fn escapes(report: &mut Report, manager: &Node) {
    let escaped = manager.get("path_with_escaped_slashes_action");
    let cure = "set path_with_escaped_slashes_action: REJECT_REQUEST";
    if is_value(&escaped, "UNESCAPE_AND_REDIRECT", 3.0) {
        let why = "clients are sent to a path that they did not ask for";
        report.warning(&escaped, "escaped slashes are unescaped", why, cure);
    } else if !is_value(&escaped, "REJECT_REQUEST", 2.0) {
        report.error(&escaped, "paths with escaped slashes are let through", AGREE, cure);
    }
    let underscores = manager.at("common_http_protocol_options.headers_with_underscores_action");
    let safe =
        is_value(&underscores, "DROP_HEADER", 2.0) || is_value(&underscores, "REJECT_REQUEST", 1.0);
    if !safe {
        let why = "many servers read x_tenantgate_client_id as x-tenantgate-client-id";
        let cure = "set headers_with_underscores_action: DROP_HEADER";
        report.error(&underscores, "names with underscores are let through", why, cure);
    }
}

pub fn early_removal(report: &mut Report, manager: &Node) {
    let at = manager.get("early_header_mutation_extensions");
    let mut removed = Removed::default();
    for extension in at.items() {
        for mutation in extension.at("typed_config.mutations").items() {
            let matcher = mutation.at("remove_on_match.key_matcher");
            let text = |node: Node| node.text().map(str::to_lowercase);
            removed.exact.extend(text(mutation.get("remove")));
            removed.exact.extend(text(matcher.get("exact")));
            removed.prefixes.extend(text(matcher.get("prefix")));
        }
    }
    let cure = "add early_header_mutation with remove_on_match: prefix x-tenantgate-";
    removed.judge(report, &at, cure);
}

/// Before the check: nothing that wants its answer. After it: nothing that may change the path.
fn order(report: &mut Report, manager: &Node, checks: &[Check]) {
    let Some(first) = checks.iter().map(|check| check.position).min() else { return };
    for (position, entry) in manager.get("http_filters").items().iter().enumerate() {
        let typed = entry.get("typed_config");
        let kind = type_of(&typed);
        let limits = matches!(kind, "RateLimit" | "LocalRateLimit" | "RBAC");
        if position < first && limits && !for_mesh(&typed) {
            let why = "it does not see the client that tenantgate names";
            let cure = "move it behind ext_authz, if it is meant to";
            report.warning(entry, "comes before the check", why, cure);
        }
        let code = matches!(kind, "Lua" | "LuaPerRoute" | "ExternalProcessor" | "Wasm");
        let foreign = kind == "DynamicModuleFilter" && filter_is_foreign(&typed);
        let mutates = kind == "HeaderMutation" && names_path(&typed);
        if position > first && (code || foreign || mutates) {
            let why = "it can change the path that was checked";
            report.warning(entry, "comes after the check", why, "move it before ext_authz");
        }
    }
}

/// Istio's own RBAC filter decides there whether the check is made.
fn for_mesh(typed: &Node) -> bool {
    typed.get("shadow_rules").exists() || typed.get("shadow_rules_stat_prefix").exists()
}

fn filter_is_foreign(typed: &Node) -> bool {
    typed.get("filter_name").text() != Some("tenantgate")
}

fn names_path(typed: &Node) -> bool {
    typed.all_texts().iter().any(|text| text.text() == Some(":path"))
}

fn upgrades(report: &mut Report, manager: &Node, checks: &[Check]) {
    for upgrade in manager.get("upgrade_configs").items() {
        let enabled = upgrade.get("enabled");
        if enabled.exists() && !enabled.is_true() {
            continue;
        }
        rules::websocket(report, &upgrade);
        let filters = upgrade.get("filters");
        let kept = |entry: &Node| {
            let name = entry.get("name").text();
            checks.iter().any(|check| Some(check.name) == name)
        };
        if !filters.items().is_empty() && !filters.items().iter().any(kept) {
            let cure = "add ext_authz to them too";
            let what = "upgraded requests have filters of their own, without the check";
            report.error(&filters, what, rules::UNCHECKED, cure);
        }
    }
}
