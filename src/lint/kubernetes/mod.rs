//! Resources of Kubernetes: Envoy Gateway with the Gateway API, and Istio. They are read together,
//! because what one leaves out may be in another.

mod authorization;
mod coverage;
mod gateway;
mod istio;

use serde_json::Value;

use super::node::Node;
use super::{File, Report, documents, envoy};

const EXPECTED: &str = "expected resources of Kubernetes (with `apiVersion` and `kind`), or \
                        Istio's \
                        `meshConfig`";

const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Where a resource's checks are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    SecurityPolicy,
    ClientTrafficPolicy,
    EnvoyProxy,
    BackendTrafficPolicy,
    EnvoyExtensionPolicy,
    EnvoyPatchPolicy,
    HttpRoute,
    BackendTlsPolicy,
    Gateway,
    MeshConfig,
    AuthorizationPolicy,
    PeerAuthentication,
    Telemetry,
    ProxyConfig,
    DestinationRule,
    EnvoyFilter,
    /// Envoy's own bootstrap in a ConfigMap.
    Bootstrap,
    Other,
}

fn kind_of(group: &str, kind: &str) -> Kind {
    match (group, kind) {
        (ENVOY_GATEWAY, "SecurityPolicy") => Kind::SecurityPolicy,
        (ENVOY_GATEWAY, "ClientTrafficPolicy") => Kind::ClientTrafficPolicy,
        (ENVOY_GATEWAY, "EnvoyProxy") => Kind::EnvoyProxy,
        (ENVOY_GATEWAY, "BackendTrafficPolicy") => Kind::BackendTrafficPolicy,
        (ENVOY_GATEWAY, "EnvoyExtensionPolicy") => Kind::EnvoyExtensionPolicy,
        (ENVOY_GATEWAY, "EnvoyPatchPolicy") => Kind::EnvoyPatchPolicy,
        (GATEWAY_API, "HTTPRoute") => Kind::HttpRoute,
        (GATEWAY_API, "BackendTLSPolicy") => Kind::BackendTlsPolicy,
        (GATEWAY_API, "Gateway") => Kind::Gateway,
        ("security.istio.io", "AuthorizationPolicy") => Kind::AuthorizationPolicy,
        ("security.istio.io", "PeerAuthentication") => Kind::PeerAuthentication,
        ("telemetry.istio.io", "Telemetry") => Kind::Telemetry,
        ("networking.istio.io", "ProxyConfig") => Kind::ProxyConfig,
        ("networking.istio.io", "DestinationRule") => Kind::DestinationRule,
        ("networking.istio.io", "EnvoyFilter") => Kind::EnvoyFilter,
        _ => Kind::Other,
    }
}

pub struct Resource {
    pub kind: Kind,
    file: String,
    title: String,
    value: Value,
}

impl Resource {
    pub fn node(&self) -> Node<'_> {
        Node::resource(&self.value, &self.file, &self.title)
    }

    pub fn name(&self) -> &str {
        self.node().at("metadata.name").text().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.node().at("metadata.namespace").text().unwrap_or("default")
    }
}

/// The resources of one file. `Err`: it has none.
pub fn resources(file: &str, read: Vec<Value>) -> Result<Vec<Resource>, String> {
    let mut found = Vec::new();
    for document in read {
        if document.get("kind").is_none() {
            let mesh = document.get("meshConfig").cloned().or_else(|| {
                let keys = ["extensionProviders", "pathNormalization", "defaultConfig"];
                keys.iter().any(|key| document.get(key).is_some()).then_some(document)
            });
            let value = mesh.ok_or_else(|| format!("{file}: {EXPECTED}"))?;
            let (file, title) = (file.to_owned(), "meshConfig".to_owned());
            found.push(Resource { kind: Kind::MeshConfig, file, title, value });
            continue;
        }
        // `kubectl get … -o yaml`
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match document.get("items").and_then(Value::as_array) {
            Some(items) if is_list => {
                found.extend(items.iter().cloned().map(|item| resource(file, item)));
            }
            _ => found.push(resource(file, document)),
        }
    }
    if found.is_empty() {
        return Err(format!("{file}: {EXPECTED}"));
    }
    Ok(found)
}

fn resource(file: &str, value: Value) -> Resource {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (text("kind").to_owned(), text("apiVersion"));
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = kind_of(group, &kind);
    let metadata = |key: &str| value.pointer(&format!("/metadata/{key}")).and_then(Value::as_str);
    let name = metadata("name").unwrap_or_default();
    let title = match metadata("namespace") {
        Some(namespace) => format!("{kind}/{namespace}/{name}"),
        None => format!("{kind}/{name}"),
    };
    let file = file.to_owned();
    let other = |kind, title, value| Resource { kind, file: file.clone(), title, value };
    match kind.as_str() {
        "IstioOperator" => {
            let mesh = value.pointer("/spec/meshConfig").cloned().unwrap_or_default();
            other(Kind::MeshConfig, format!("{title}.spec.meshConfig"), mesh)
        }
        "ConfigMap" if group.is_empty() => match embedded(&value) {
            Some((kind, key, inner)) => other(kind, format!("{title}.data[{key}]"), inner),
            None => other(Kind::Other, title, value),
        },
        _ => other(known, title, value),
    }
}

/// A config that a ConfigMap holds: istiod's mesh, or Envoy's bootstrap.
fn embedded(map: &Value) -> Option<(Kind, String, Value)> {
    map.get("data")?.as_object()?.iter().find_map(|(key, text)| {
        let text = text.as_str()?.to_owned();
        let mut read = documents::read(&File { name: key.clone(), text }).ok()?.into_iter();
        let inner = read.next()?;
        if key == "mesh" && inner.is_object() {
            return Some((Kind::MeshConfig, key.clone(), inner));
        }
        let inner = envoy::with_field_names(inner);
        inner.get("static_resources")?.is_object().then(|| (Kind::Bootstrap, key.clone(), inner))
    })
}

pub fn lint(report: &mut Report, resources: &[Resource]) {
    for resource in resources {
        let node = resource.node();
        match resource.kind {
            Kind::Other => report.skip(&node, "nothing of it concerns the check"),
            Kind::Bootstrap => {
                // It has what `envoy::lint` asks for.
                let _known = envoy::lint(report, &node);
            }
            _ => not_accepted(report, &node),
        }
    }
    if resources.iter().all(|resource| resource.kind == Kind::Other)
        && let Some(first) = resources.first()
    {
        let why = "so nothing is known about the pairing";
        let cure = "give it the resources of Envoy Gateway or Istio";
        report.warning(&first.node(), "none of the files concerns the check", why, cure);
    }
    gateway::lint(report, resources);
    istio::lint(report, resources);
}

/// What the controller says of it: `kubectl get -o yaml`.
fn not_accepted(report: &mut Report, node: &Node) {
    let (ancestors, parents) = (node.at("status.ancestors"), node.at("status.parents"));
    for place in ancestors.items().into_iter().chain(parents.items()) {
        for condition in place.get("conditions").items() {
            let kind = condition.get("type").text().unwrap_or_default();
            let refused = condition.get("status").text() == Some("False");
            if refused && matches!(kind, "Accepted" | "ResolvedRefs") {
                let why = "it is not in force as it is";
                let cure = "read the condition's message and correct the resource";
                report.error(&condition, format!("{kind} is False"), why, cure);
            }
        }
    }
}

fn of_kind(resources: &[Resource], kind: Kind) -> impl Iterator<Item = &Resource> {
    resources.iter().filter(move |resource| resource.kind == kind)
}
