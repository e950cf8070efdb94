//! Which routes are checked: all that lead to the API, and none that a client asks for a token.

use crate::lint::Report;
use crate::lint::node::Node;
use crate::lint::rules;

use super::filter::{Check, Kind};
use super::{EnvoyConfig, type_of};

/// The route tables of a connection manager that are in the file.
fn tables<'a>(config: &EnvoyConfig<'a>, manager: &Node<'a>) -> Vec<Node<'a>> {
    let inline = manager.get("route_config");
    if inline.exists() {
        return vec![inline];
    }
    let name = manager.at("rds.route_config_name").text();
    let named = |table: &&Node| table.get("name").text() == name;
    config.route_tables.iter().filter(named).cloned().collect()
}

/// Whether anything is sent on to a cluster, or may be.
pub fn forwards<'a>(config: &EnvoyConfig<'a>, manager: &Node<'a>) -> bool {
    let tables = tables(config, manager);
    let sends = |table: &Node| {
        let hosts = table.get("virtual_hosts").items();
        let mut routes = hosts.iter().flat_map(|host| host.get("routes").items());
        hosts.iter().any(|host| host.get("matcher").exists())
            || routes.any(|route| route.get("route").exists())
    };
    tables.is_empty() || tables.iter().any(sends)
}

pub fn lint<'a>(
    report: &mut Report,
    config: &EnvoyConfig<'a>,
    manager: &Node<'a>,
    checks: &[Check],
) {
    let tables = tables(config, manager);
    if tables.is_empty() {
        let why = "whether a route switches the check off cannot be seen";
        let cure = "lint a config dump of the running Envoy";
        report.warning(manager, "its routes are not in this file", why, cure);
    }
    for table in &tables {
        own_headers(report, table);
        for host in table.get("virtual_hosts").items() {
            own_headers(report, &host);
            if host.get("matcher").exists() {
                let why = "whether a route in it is checked cannot be seen";
                let cure = "use `routes`, or look at it by hand";
                report.warning(&host.get("matcher"), "a matcher tree is not read", why, cure);
            }
            for route in host.get("routes").items() {
                let above = [table.clone(), host.clone()];
                one_route(report, &above, &route, checks);
            }
        }
    }
}

fn one_route(report: &mut Report, above: &[Node; 2], route: &Node, checks: &[Check]) {
    own_headers(report, route);
    for upgrade in route.at("route.upgrade_configs").items() {
        let enabled = upgrade.get("enabled");
        if !enabled.exists() || enabled.is_true() {
            rules::websocket(report, &upgrade);
        }
    }
    // An answer of Envoy's own, or a redirect: nothing reaches the API.
    if !route.get("route").exists() {
        return;
    }
    let [table, host] = above;
    let levels = vec![table.clone(), host.clone(), route.clone()];
    let weighted = route.at("route.weighted_clusters.clusters").items();
    let mut ways: Vec<Vec<Node>> = weighted
        .into_iter()
        .map(|cluster| levels.iter().cloned().chain([cluster]).collect())
        .collect();
    if ways.is_empty() {
        ways.push(levels);
    }
    for way in ways {
        let states: Vec<State> = checks.iter().map(|check| state(report, check, &way)).collect();
        judge(report, route, &states);
    }
}

/// What the levels from the table to the route make of one filter.
struct State<'a> {
    on: bool,
    /// The setting that says so.
    by: Node<'a>,
}

fn state<'a>(report: &mut Report, check: &Check<'a>, way: &[Node<'a>]) -> State<'a> {
    let disabled = check.entry.get("disabled");
    let mut state = State { on: !disabled.is_true(), by: disabled };
    for level in way {
        let overrides = level.get("typed_per_filter_config").entries();
        let Some((_, own)) = overrides.into_iter().find(|(name, _)| *name == check.name) else {
            continue;
        };
        state = State { on: !own.get("disabled").is_true(), by: own.clone() };
        if check.kind == Kind::ExtAuthz && type_of(&own) == "ExtAuthzPerRoute" {
            other_settings(report, &own.get("check_settings"));
        }
    }
    state
}

fn other_settings(report: &mut Report, settings: &Node) {
    for key in ["grpc_service", "http_service"] {
        let service = settings.get(key);
        if service.exists() {
            let why = "somebody else decides about this route, with a time-out of its own";
            let cure = "take it out; context_extensions is all that a route needs";
            report.error(&service, "the route asks another service", why, cure);
        }
    }
    rules::body(report, &settings.get("with_request_body"));
}

fn judge(report: &mut Report, route: &Node, states: &[State]) {
    let path = route.at("match.path").text();
    let is_token = path.is_some_and(rules::is_token_path);
    let on = states.iter().find(|state| state.on);
    match (on, is_token) {
        (Some(_), true) => {
            let why = "a client that asks for a token has none yet, and is refused";
            let cure = "disable ext_authz on this exact path";
            report.error(route, "a token route is checked", why, cure);
        }
        (None, false) => {
            let at = states.first().map_or(route, |state| &state.by);
            let cure = "enable it; only exact token paths go unchecked, and what is public is a \
                        `public` route in tenantgate's config";
            report.error(at, "the check is off on a route", rules::UNCHECKED, cure);
        }
        _ => {}
    }
}

/// Routes take headers off after the check, so tenantgate's own.
fn own_headers(report: &mut Report, level: &Node) {
    let removed = level.get("request_headers_to_remove");
    if removed.texts().iter().any(|name| name.to_lowercase().starts_with(rules::OUR_PREFIX)) {
        let why = "it runs after the check and takes tenantgate's own header";
        let cure = "remove it in early_header_mutation_extensions instead";
        report.error(&removed, "tenantgate's headers are removed", why, cure);
    }
    for header in level.get("request_headers_to_add").items() {
        let name = header.at("header.key").text().unwrap_or_default().to_lowercase();
        if name.starts_with(rules::OUR_PREFIX) {
            let why = "the API takes it for tenantgate's word";
            report.error(&header, "sets a header of tenantgate", why, "take it out");
        }
    }
}
