//! Istio.

use crate::lint::Report;
use crate::lint::envoy::manager;
use crate::lint::node::Node;
use crate::lint::rules;

use super::{Kind, Resource, authorization, of_kind};

pub fn lint(report: &mut Report, resources: &[Resource]) {
    for resource in resources {
        let node = resource.node();
        let spec = node.get("spec");
        match resource.kind {
            Kind::MeshConfig => mesh(report, &node),
            Kind::Telemetry => telemetry(report, &spec),
            Kind::ProxyConfig => connection_settings(report, &spec.get("connectionSettings")),
            Kind::DestinationRule => destination(report, resources, &spec),
            Kind::PeerAuthentication => {
                let mode = spec.at("mtls.mode");
                if matches!(mode.text(), Some("PERMISSIVE" | "DISABLE")) {
                    let why = "any pod that reaches tenantgate can ask it, in the clear";
                    report.warning(&mode, "plain text is accepted", why, "set mode: STRICT");
                }
            }
            Kind::EnvoyFilter => envoy_filter(report, &spec),
            _ => {}
        }
    }
    authorization::lint(report, resources);
}

/// The providers that ask over gRPC.
pub fn providers(resources: &[Resource]) -> Vec<Node<'_>> {
    let meshes = of_kind(resources, Kind::MeshConfig);
    meshes.flat_map(|mesh| mesh.node().get("extensionProviders").items()).collect()
}

fn mesh(report: &mut Report, mesh: &Node) {
    for provider in mesh.get("extensionProviders").items() {
        let grpc = provider.get("envoyExtAuthzGrpc");
        if grpc.exists() {
            check_provider(report, &grpc);
        }
        let file = provider.get("envoyFileAccessLog");
        if file.exists() {
            format_of(report, &file.get("logFormat"));
        }
        let otel = provider.get("envoyOtelAls");
        if otel.exists() {
            format_of(report, &otel.get("logFormat"));
        }
        let als = provider.get("envoyHttpAls");
        if als.exists() {
            rules::logs_all(report, &als);
        }
    }
    let log = mesh.get("accessLogFile");
    if log.text().is_some_and(|path| !path.is_empty()) {
        format_of(report, &mesh.get("accessLogFormat"));
    }
    let paths = mesh.at("pathNormalization.normalization");
    if !matches!(paths.text(), Some("MERGE_SLASHES" | "DECODE_AND_MERGE_SLASHES")) {
        let why = "by default // stays, and the API may read it otherwise than tenantgate";
        let cure = "set pathNormalization: { normalization: MERGE_SLASHES }";
        report.error(&paths, "slashes are not merged", why, cure);
    }
    let length = mesh.at("defaultConfig.tracing.maxPathTagLength");
    let traces = mesh.at("defaultConfig.tracing").exists() || mesh.get("enableTracing").is_true();
    if traces && length.number() != Some(1.0) {
        let cure = "set defaultConfig.tracing.maxPathTagLength: 1 (0 is ignored)";
        rules::spans(report, &length, cure);
    }
    rules::span_tags(report, &mesh.at("defaultConfig.tracing.customTags"));
    let settings = mesh.at("defaultConfig.connectionSettings");
    if settings.exists() {
        connection_settings(report, &settings);
    }
}

fn check_provider(report: &mut Report, at: &Node) {
    rules::fail_open(report, &at.get("failOpen"), "set failOpen: false");
    rules::timeout(report, &at.get("timeout"), "600s", "set timeout: 0.5s");
    let status = at.get("statusOnError");
    let cure = "set statusOnError: \"503\"";
    rules::status_on_error(report, &status, status.number(), cure);
    rules::body(report, &at.get("includeRequestBodyInCheck"));
    rules::route_may_change(report, &at.get("clearRouteCache"));
    let why = "Istio has no list for gRPC: cookies and the like go to tenantgate too";
    let cure = "keep the mesh's TLS on between the two";
    report.warning(at, "every header is sent to the check", why, cure);
}

fn format_of(report: &mut Report, format: &Node) {
    let written = format.text().is_some_and(|text| !text.is_empty())
        || ["text", "labels"].iter().any(|key| format.get(key).exists());
    if written {
        rules::log_format(report, format);
    } else {
        rules::default_format(report, format, "give it a format without the path");
    }
}

fn connection_settings(report: &mut Report, at: &Node) {
    let edge = at.get("profile").text() == Some("EDGE");
    let escaped = at.get("httpPathWithEscapedSlashesAction");
    let cure = "set httpPathWithEscapedSlashesAction: REJECT_REQUEST";
    match escaped.text() {
        Some("REJECT_REQUEST") => {}
        None | Some("UNESCAPE_AND_REDIRECT") if edge || escaped.exists() => {
            let why = "clients are sent to a path that they did not ask for";
            report.warning(&escaped, "escaped slashes are unescaped", why, cure);
        }
        _ => {
            let why = "Envoy, tenantgate and the API may read one path in two ways";
            report.error(&escaped, "escaped slashes are let through", why, cure);
        }
    }
    let underscores = at.get("httpHeadersWithUnderscoresAction");
    let safe = matches!(underscores.text(), Some("REJECT_REQUEST" | "DROP_HEADER" | "REJECT"));
    if !safe && (underscores.exists() || !edge) {
        let why = "many servers read x_tenantgate_client_id as x-tenantgate-client-id";
        let cure = "set httpHeadersWithUnderscoresAction: REJECT_REQUEST";
        report.error(&underscores, "names with underscores are let through", why, cure);
    }
}

fn telemetry(report: &mut Report, spec: &Node) {
    for log in spec.get("accessLogging").items() {
        for provider in log.get("providers").items() {
            // The built-in one writes the mesh's default format.
            if provider.get("name").text() == Some("envoy") {
                let cure = "name a provider with a format of its own";
                rules::default_format(report, &provider, cure);
            }
        }
    }
    for tracing in spec.get("tracing").items() {
        rules::span_tags(report, &tracing.get("customTags"));
    }
}

fn destination(report: &mut Report, resources: &[Resource], spec: &Node) {
    let host = spec.get("host").text().unwrap_or_default();
    let ours = providers(resources).iter().any(|provider| {
        let service = provider.at("envoyExtAuthzGrpc.service").text().unwrap_or_default();
        let service = service.rsplit('/').next().unwrap_or_default();
        service == host || service.split('.').next() == Some(host)
    });
    if !ours && !host.starts_with("tenantgate") {
        return;
    }
    let policy = spec.get("trafficPolicy");
    let http = policy.at("connectionPool.http");
    let limits = match http.exists() {
        true => vec![http.get("http2MaxRequests"), http.get("http1MaxPendingRequests")],
        false => vec![http],
    };
    let cure = "raise connectionPool.http.http2MaxRequests and http1MaxPendingRequests";
    rules::capacity(report, &limits, cure);
    rules::outlier_detection(report, &policy.get("outlierDetection"));
    let mode = policy.at("tls.mode");
    if mode.text() == Some("DISABLE") {
        let why = "tokens and tenant codes cross the network in the clear";
        report.warning(&mode, "no TLS to the check", why, "set mode: ISTIO_MUTUAL");
    }
}

/// The patches of the connection manager that an EnvoyFilter makes.
pub fn manager_patches<'a>(spec: &Node<'a>) -> Vec<Node<'a>> {
    let patches = spec.get("configPatches").items();
    let typed = patches.iter().map(|patch| patch.at("patch.value.typed_config"));
    typed.filter(is_manager).collect()
}

fn is_manager(typed: &Node) -> bool {
    let kind = typed.get("@type").text();
    kind.is_some_and(|kind| kind.ends_with(".HttpConnectionManager"))
}

fn envoy_filter(report: &mut Report, spec: &Node) {
    rules::remote_modules(report, spec);
    for patch in spec.get("configPatches").items() {
        if patch.get("applyTo").text() == Some("HTTP_FILTER") {
            let why = "a filter after the check can change the path that was checked";
            let cure = "lint a config dump of the gateway's Envoy";
            report.warning(&patch, "a filter is patched", why, cure);
        }
    }
    for typed in manager_patches(spec) {
        // Only what the patch sets: the rest is Istio's.
        manager::escapes(report, &typed);
        manager::early_removal(report, &typed);
    }
}
