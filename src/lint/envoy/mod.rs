//! Envoy's own config: a config dump (`/config_dump` of the admin listener) or a bootstrap.

mod cluster;
mod filter;
mod logs;
pub mod manager;
mod routes;

use serde_json::Value;

use super::Report;
use super::node::Node;
use super::rules;

pub const EXPECTED: &str =
    "expected one config dump (with `configs`) or one bootstrap (with `static_resources`)";

/// Protobuf's JSON has two spellings of a field's name: all become the one of the documentation.
pub fn with_field_names(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(with_field_names).collect(),
        Value::Object(object) => {
            let entry = |(key, value)| (field_name(key), with_field_names(value));
            Value::Object(object.into_iter().map(entry).collect())
        }
        other => other,
    }
}

fn field_name(key: String) -> String {
    let letters = key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !letters || !key.starts_with(|c: char| c.is_ascii_lowercase()) {
        return key;
    }
    let mut name = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// The `@type` of a `typed_config`, without its package.
fn type_of<'a>(typed: &Node<'a>) -> &'a str {
    let url = typed.get("@type").text().unwrap_or_default();
    url.rsplit(['.', '/']).next().unwrap_or_default()
}

/// Everything of the document that hangs together.
pub struct EnvoyConfig<'a> {
    listeners: Vec<Node<'a>>,
    clusters: Vec<Node<'a>>,
    route_tables: Vec<Node<'a>>,
}

/// `Err`: the document is none of Envoy's.
pub fn lint(report: &mut Report, document: &Node) -> Result<(), String> {
    let config = parts(document).ok_or_else(|| EXPECTED.to_owned())?;
    rules::remote_modules(report, document);
    let mut managers = Vec::new();
    for listener in &config.listeners {
        // A mesh's own calls to others: nobody's requests come in there.
        if listener.get("traffic_direction").text() != Some("OUTBOUND") {
            find_managers(listener, &mut managers);
        }
    }
    let asks = |manager: &Node| !filter::of_manager(manager).is_empty();
    if !managers.iter().any(asks) {
        let what = "no filter asks tenantgate";
        let cure = "add envoy.filters.http.ext_authz to its http_filters";
        report.error(document, what, rules::UNCHECKED, cure);
        return Ok(());
    }
    for manager in &managers {
        if asks(manager) {
            manager::lint(report, &config, manager);
        } else if routes::forwards(&config, manager) {
            let cure = "add the filter ext_authz, if what it routes to is the API";
            report.warning(manager, "no filter asks tenantgate here", rules::UNCHECKED, cure);
        }
    }
    Ok(())
}

fn parts<'a>(document: &Node<'a>) -> Option<EnvoyConfig<'a>> {
    let mut config = EnvoyConfig { listeners: vec![], clusters: vec![], route_tables: vec![] };
    if document.get("static_resources").value().is_object() {
        config.listeners = document.at("static_resources.listeners").items();
        config.clusters = document.at("static_resources.clusters").items();
        return Some(config);
    }
    let dumps = document.get("configs").items();
    for dump in &dumps {
        match type_of(dump) {
            "ListenersConfigDump" => {
                let fixed = dump.get("static_listeners").items();
                config.listeners.extend(fixed.iter().map(|one| one.get("listener")));
                let dynamic = dump.get("dynamic_listeners").items();
                config.listeners.extend(dynamic.iter().map(|one| one.at("active_state.listener")));
            }
            "ClustersConfigDump" => {
                for list in ["static_clusters", "dynamic_active_clusters"] {
                    let clusters = dump.get(list).items();
                    config.clusters.extend(clusters.iter().map(|one| one.get("cluster")));
                }
            }
            "RoutesConfigDump" => {
                for list in ["static_route_configs", "dynamic_route_configs"] {
                    let tables = dump.get(list).items();
                    config.route_tables.extend(tables.iter().map(|one| one.get("route_config")));
                }
            }
            _ => {}
        }
    }
    (!dumps.is_empty()).then_some(config)
}

fn find_managers<'a>(listener: &Node<'a>, found: &mut Vec<Node<'a>>) {
    let mut chains = listener.get("filter_chains").items();
    chains.push(listener.get("default_filter_chain"));
    for filter in chains.iter().flat_map(|chain| chain.get("filters").items()) {
        let typed = filter.get("typed_config");
        if type_of(&typed) == "HttpConnectionManager" {
            found.push(typed);
        }
    }
}

/// One value of an enum, by its name or its number.
fn is_value(node: &Node, name: &str, number: f64) -> bool {
    node.text() == Some(name) || node.number() == Some(number)
}
