//! Which rules of an HTTPRoute are checked, by the policy that wins: the rule's, the route's, the
//! listener's, the Gateway's.

use crate::lint::Report;
use crate::lint::node::Node;
use crate::lint::rules;

use super::{Kind, Resource, of_kind};

/// What a policy can be bound to.
struct Target<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    section: Option<&'a str>,
    labels: Node<'a>,
}

pub fn lint(report: &mut Report, resources: &[Resource]) {
    let policies: Vec<&Resource> = of_kind(resources, Kind::SecurityPolicy).collect();
    for route in of_kind(resources, Kind::HttpRoute) {
        one_route(report, resources, &policies, route);
    }
    for policy in &policies {
        targets_exist(report, resources, policy);
    }
}

fn one_route(report: &mut Report, all: &[Resource], policies: &[&Resource], route: &Resource) {
    let spec = route.node().get("spec");
    let rules: Vec<(Node, Option<&Resource>)> = spec
        .get("rules")
        .items()
        .into_iter()
        .map(|rule| {
            let policy = winner(all, policies, route, &rule);
            (rule, policy)
        })
        .collect();
    let checks = |policy: &Option<&Resource>| policy.is_some_and(asks);
    let any_checked = rules.iter().any(|(_, policy)| checks(policy));
    for (rule, policy) in &rules {
        match (checks(policy), is_token_rule(rule)) {
            (true, true) => {
                let why = "a client that asks for a token has none yet, and is refused";
                let cure = "bind the policy to the rule of the API (sectionName)";
                report.error(rule, "a token rule is checked", why, cure);
            }
            (false, false) if sends(rule) => unchecked(report, rule, *policy, any_checked),
            _ => {}
        }
    }
}

fn unchecked(report: &mut Report, rule: &Node, policy: Option<&Resource>, any_checked: bool) {
    let cure = "bind a SecurityPolicy with extAuth to it; only exact token paths go unchecked";
    match policy {
        Some(policy) => {
            let why = "it replaces the policy of the route or Gateway, so requests go unchecked";
            report.error(&policy.node(), "a policy without extAuth wins on a rule", why, cure);
        }
        None if any_checked => {
            report.error(rule, "no policy covers this rule", rules::UNCHECKED, cure);
        }
        None => {
            let what = "no policy among these files covers this rule";
            report.warning(rule, what, "unless another does, it is unchecked", cure);
        }
    }
}

pub fn asks(policy: &Resource) -> bool {
    policy.node().at("spec.extAuth").exists()
}

/// Whether a request can reach a backend by it.
fn sends(rule: &Node) -> bool {
    let redirect = |filter: &Node| filter.get("type").text() == Some("RequestRedirect");
    !rule.get("filters").items().iter().any(redirect)
}

fn is_token_rule(rule: &Node) -> bool {
    let exact = |one: &Node| {
        let path = one.get("path");
        path.get("type").text() == Some("Exact")
            && path.get("value").text().is_some_and(rules::is_token_path)
    };
    let matches = rule.get("matches").items();
    !matches.is_empty() && matches.iter().all(exact)
}

fn winner<'a>(
    all: &'a [Resource],
    policies: &[&'a Resource],
    route: &'a Resource,
    rule: &Node<'a>,
) -> Option<&'a Resource> {
    let (namespace, node) = (route.namespace(), route.node());
    let own = |section| Target {
        kind: "HTTPRoute",
        namespace,
        name: route.name(),
        section,
        labels: node.at("metadata.labels"),
    };
    let mut levels = Vec::new();
    levels.extend(rule.get("name").text().map(|name| own(Some(name))));
    levels.push(own(None));
    for parent in node.at("spec.parentRefs").items() {
        let name = parent.get("name").text().unwrap_or_default();
        let namespace = parent.get("namespace").text().unwrap_or(namespace);
        let gateway = of_kind(all, Kind::Gateway)
            .find(|gateway| gateway.name() == name && gateway.namespace() == namespace);
        let labels = gateway
            .map_or_else(|| node.get("no labels"), |gateway| gateway.node().at("metadata.labels"));
        let section = parent.get("sectionName").text();
        let target =
            |section| Target { kind: "Gateway", namespace, name, section, labels: labels.clone() };
        levels.extend(section.map(|_| target(section)));
        levels.push(target(None));
    }
    let mut merged = None;
    for level in &levels {
        let Some(policy) = policies.iter().find(|policy| binds(policy, level)) else { continue };
        if asks(policy) || !policy.node().at("spec.mergeType").exists() {
            return Some(policy);
        }
        merged = Some(*policy);
    }
    merged
}

fn binds(policy: &Resource, target: &Target) -> bool {
    let spec = policy.node().get("spec");
    if policy.namespace() != target.namespace {
        return false;
    }
    let mut references = spec.get("targetRefs").items();
    references.push(spec.get("targetRef"));
    let named = references.iter().any(|reference| {
        reference.get("kind").text() == Some(target.kind)
            && reference.get("name").text() == Some(target.name)
            && reference.get("sectionName").text() == target.section
    });
    let selected = spec.get("targetSelectors").items().iter().any(|selector| {
        let labels = selector.get("matchLabels").entries();
        selector.get("kind").text() == Some(target.kind)
            && target.section.is_none()
            && labels.iter().all(|(key, value)| target.labels.get(key).text() == value.text())
    });
    named || selected
}

/// A policy that is bound to nothing checks nothing.
fn targets_exist(report: &mut Report, resources: &[Resource], policy: &Resource) {
    if !asks(policy) {
        return;
    }
    let spec = policy.node().get("spec");
    let mut references = spec.get("targetRefs").items();
    references.extend(Some(spec.get("targetRef")).filter(Node::exists));
    if references.is_empty() && spec.get("targetSelectors").items().is_empty() {
        let cure = "name the HTTPRoute and the rule in targetRefs";
        report.error(&spec, "the policy has no target", rules::UNCHECKED, cure);
    }
    for reference in references {
        let name = reference.get("name").text();
        let mut routes = of_kind(resources, Kind::HttpRoute).peekable();
        if reference.get("kind").text() != Some("HTTPRoute") || routes.peek().is_none() {
            continue;
        }
        let cure = "correct the name, or give its file too";
        let route = routes
            .find(|route| Some(route.name()) == name && route.namespace() == policy.namespace());
        let Some(route) = route else {
            let what = "its route is not among these files";
            report.warning(&reference, what, "a policy without a target checks nothing", cure);
            continue;
        };
        let section = reference.get("sectionName");
        let named = route.node().at("spec.rules").items();
        if section.exists() && !named.iter().any(|rule| rule.get("name").text() == section.text()) {
            let why = "the policy checks nothing";
            report.error(&section, "the route has no rule of this name", why, "correct the name");
        }
    }
}
