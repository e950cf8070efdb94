//! Istio's AuthorizationPolicies with the action CUSTOM: they say when tenantgate is asked.

use crate::lint::Report;
use crate::lint::node::Node;
use crate::lint::rules;

use super::{Kind, Resource, istio, of_kind};

pub fn lint(report: &mut Report, resources: &[Resource]) {
    let mut asked = false;
    for policy in of_kind(resources, Kind::AuthorizationPolicy) {
        let spec = policy.node().get("spec");
        if spec.get("action").text() != Some("CUSTOM") {
            report.skip(&policy.node(), "its action is not CUSTOM, so it asks no provider");
            continue;
        }
        asked = true;
        provider(report, resources, &spec);
        dry_run(report, &policy.node());
        covers(report, &spec.get("rules"));
        let patched = of_kind(resources, Kind::EnvoyFilter)
            .any(|filter| !istio::manager_patches(&filter.node().get("spec")).is_empty());
        if !patched {
            let why = "Istio has no setting that takes clients' x-tenantgate-… headers off";
            let cure = "give its file too, or write one with early_header_mutation_extensions";
            report.warning(&spec, "no EnvoyFilter for the gateway among these files", why, cure);
        }
    }
    let has_mesh = of_kind(resources, Kind::MeshConfig).next();
    let asks = istio::providers(resources)
        .iter()
        .any(|provider| provider.get("envoyExtAuthzGrpc").exists());
    if let Some(mesh) = has_mesh
        && asks
        && !asked
    {
        let cure = "give its file too, or write one with action: CUSTOM";
        let what = "no AuthorizationPolicy among these files asks a provider";
        report.warning(&mesh.node(), what, rules::UNCHECKED, cure);
    }
}

fn provider(report: &mut Report, resources: &[Resource], spec: &Node) {
    let name = spec.at("provider.name");
    let providers = istio::providers(resources);
    if !name.exists() {
        let why = "the rules deny every request";
        report.error(&name, "no provider", why, "name tenantgate's in provider.name");
        return;
    }
    if of_kind(resources, Kind::MeshConfig).next().is_none() {
        return;
    }
    match providers.iter().find(|provider| provider.get("name").text() == name.text()) {
        None => {
            let why = "the rules deny every request";
            let cure = "add it to meshConfig.extensionProviders, or correct the name";
            report.error(&name, "there is no such provider", why, cure);
        }
        Some(provider) if !provider.get("envoyExtAuthzGrpc").exists() => {
            let why = "tenantgate speaks gRPC only: every check fails";
            report.error(provider, "not envoyExtAuthzGrpc", why, "set envoyExtAuthzGrpc");
        }
        Some(_) => {}
    }
}

fn dry_run(report: &mut Report, policy: &Node) {
    let dry = policy.at("metadata.annotations").get("istio.io/dry-run");
    if dry.is_true() {
        let why = "a policy that is only tried out must not be what protects the API";
        let cure = "take the annotation out; tenantgate's own `shadow` tries rules out";
        report.error(&dry, "a dry run", why, cure);
    }
}

/// One rule that leaves out nothing but exact token paths is enough: rules add to each other.
fn covers(report: &mut Report, rules: &Node) {
    if rules.items().is_empty() {
        let cure = "add a rule with notPaths for the token routes";
        report.error(rules, "no rules, so no request is checked", rules::UNCHECKED, cure);
        return;
    }
    let everything =
        |rule: &&Node| ["from", "to", "when"].iter().all(|key| rule.get(key).items().is_empty());
    if let Some(rule) = rules.items().iter().find(everything) {
        let why = "a client that asks for a token has none yet, and is refused";
        let cure = "leave the exact token paths out with notPaths";
        report.warning(rule, "token routes are checked too", why, cure);
        return;
    }
    let mut found: Vec<Vec<(Node, &str)>> = rules.items().iter().map(left_out).collect();
    found.sort_by_key(Vec::len);
    // The rule that leaves out least.
    for (at, what) in found.into_iter().next().unwrap_or_default() {
        let cure = "one rule must leave out nothing but exact token paths (notPaths)";
        report.error(&at, what, "what it leaves out reaches the API unchecked", cure);
    }
}

fn left_out<'a>(rule: &Node<'a>) -> Vec<(Node<'a>, &'static str)> {
    let mut found = Vec::new();
    for key in ["from", "when"] {
        if !rule.get(key).items().is_empty() {
            found.push((rule.get(key), "only some requests are checked"));
        }
    }
    let mut ways: Vec<_> = rule.get("to").items().iter().map(|to| operation(to)).collect();
    ways.sort_by_key(Vec::len);
    found.extend(ways.into_iter().next().unwrap_or_default());
    found
}

fn operation<'a>(to: &Node<'a>) -> Vec<(Node<'a>, &'static str)> {
    let mut found = Vec::new();
    for (key, value) in to.get("operation").entries() {
        match key {
            "notPaths" => {
                for path in value.items() {
                    if !path.text().is_some_and(rules::is_token_path) {
                        found.push((path, "not an exact token path"));
                    }
                }
            }
            // The gateway's own hosts and ports: the rest is not this API.
            "hosts" | "ports" => {}
            _ => found.push((value, "only some requests are checked")),
        }
    }
    found
}
