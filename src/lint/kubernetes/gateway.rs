//! Envoy Gateway.

use crate::lint::Report;
use crate::lint::node::Node;
use crate::lint::rules::{self, Removed};

use super::{Kind, Resource, coverage, of_kind};

pub fn lint(report: &mut Report, resources: &[Resource]) {
    for resource in resources {
        let node = resource.node();
        let spec = node.get("spec");
        match resource.kind {
            Kind::SecurityPolicy if coverage::asks(resource) => {
                ext_auth(report, &spec.get("extAuth"));
                companions(report, resources, &spec);
            }
            Kind::ClientTrafficPolicy => client_traffic(report, &spec),
            Kind::EnvoyProxy => proxy(report, &spec),
            Kind::BackendTrafficPolicy => backend_traffic(report, &spec),
            Kind::BackendTlsPolicy => backend_tls(report, &spec),
            Kind::EnvoyExtensionPolicy => extension(report, &spec),
            Kind::EnvoyPatchPolicy => {
                let cure = "lint a config dump of the running Envoy";
                report.warning(&spec, "patches are not read", "they may change anything", cure);
            }
            Kind::HttpRoute => route_filters(report, &spec),
            _ => {}
        }
        rules::remote_modules(report, &spec);
    }
    coverage::lint(report, resources);
}

fn ext_auth(report: &mut Report, at: &Node) {
    let open = at.get("failOpen");
    if open.is_true() {
        let why = "every request passes unchecked while tenantgate cannot be asked, and also while \
                   this policy is invalid";
        report.error(&open, "fails open", why, "set failOpen: false");
    }
    let status = at.get("statusOnError");
    let cure = "set statusOnError: 503 (Envoy Gateway 1.8)";
    rules::status_on_error(report, &status, status.number(), cure);
    rules::timeout(report, &at.get("timeout"), "10s", "set timeout: 500ms");
    let names: Vec<String> =
        at.get("headersToExtAuth").texts().iter().map(|name| name.to_lowercase()).collect();
    let cure = "set headersToExtAuth: [authorization, x-request-id]";
    rules::sent_headers(report, &at.get("headersToExtAuth"), &names, cure);
    rules::body(report, &at.get("bodyToExtAuth"));
    rules::route_may_change(report, &at.get("recomputeRoute"));
    let grpc = at.get("grpc");
    if !grpc.exists() {
        let why = "tenantgate speaks gRPC only: every check fails";
        report.error(at, "no `grpc`", why, "name tenantgate's Service in grpc.backendRefs");
        return;
    }
    if !grpc.get("backendRef").exists() && grpc.get("backendRefs").items().is_empty() {
        let why = "every request is answered 500";
        report.error(&grpc, "no backend", why, "name tenantgate's Service in backendRefs");
    }
    let settings = grpc.get("backendSettings");
    let breaker = settings.get("circuitBreaker");
    let limits = ["maxConnections", "maxPendingRequests", "maxParallelRequests"];
    let limits: Vec<Node> = match breaker.exists() {
        true => limits.iter().map(|key| breaker.get(key)).collect(),
        false => vec![breaker],
    };
    rules::capacity(report, &limits, "raise backendSettings.circuitBreaker, to 65536 say");
    let health = settings.at("healthCheck.active.type");
    if health.text() != Some("GRPC") {
        let why = "Envoy does not see that tenantgate is gone before requests fail";
        let cure = "set healthCheck.active.type: GRPC";
        report.warning(&health, "no gRPC health check", why, cure);
    }
    rules::outlier_detection(report, &settings.at("healthCheck.passive"));
}

/// What the policy cannot say itself.
fn companions(report: &mut Report, resources: &[Resource], spec: &Node) {
    let has = |kind| of_kind(resources, kind).next().is_some();
    let cure = "give its file too, or write one";
    if !has(Kind::ClientTrafficPolicy) {
        let why = "by default clients' own x-tenantgate-… headers and unescaped slashes pass";
        report.warning(spec, "no ClientTrafficPolicy among these files", why, cure);
    }
    if !has(Kind::EnvoyProxy) {
        let why = "the default access log has the path, so the tenant code";
        report.warning(spec, "no EnvoyProxy among these files", why, cure);
    }
    let secured = |name: Option<&str>| {
        of_kind(resources, Kind::BackendTlsPolicy).any(|policy| {
            let targets = policy.node().at("spec.targetRefs").items();
            targets.iter().any(|target| target.get("name").text() == name)
        })
    };
    let grpc = spec.at("extAuth.grpc");
    let mut backends = grpc.get("backendRefs").items();
    backends.extend(Some(grpc.get("backendRef")).filter(Node::exists));
    for backend in backends {
        let kind = backend.get("kind").text().unwrap_or("Service");
        if kind == "Service" && !secured(backend.get("name").text()) {
            let why = "tokens and tenant codes cross the network in the clear";
            let cure = "add one, with listen.check.tls in tenantgate";
            report.warning(&backend, "no BackendTLSPolicy for the check", why, cure);
        }
    }
}

fn client_traffic(report: &mut Report, spec: &Node) {
    let merge = spec.at("path.disableMergeSlashes");
    let why = "Envoy, tenantgate and the API may read one path in two ways";
    if merge.is_true() {
        report.error(&merge, "double slashes stay", why, "set disableMergeSlashes: false");
    }
    let escaped = spec.at("path.escapedSlashesAction");
    let cure = "set path.escapedSlashesAction: RejectRequest";
    match escaped.text() {
        Some("RejectRequest") => {}
        None | Some("UnescapeAndRedirect") => {
            let why = "clients are sent to a path that they did not ask for";
            report.warning(&escaped, "escaped slashes are unescaped", why, cure);
        }
        Some(_) => report.error(&escaped, "escaped slashes are let through", why, cure),
    }
    let underscores = spec.at("headers.withUnderscoresAction");
    if underscores.text() == Some("Allow") {
        let why = "many servers read x_tenantgate_client_id as x-tenantgate-client-id";
        let cure = "set withUnderscoresAction: DropHeader";
        report.error(&underscores, "names with underscores are let through", why, cure);
    }
    let early = spec.at("headers.earlyRequestHeaders");
    let mut removed = Removed::default();
    removed.exact.extend(early.get("remove").texts().iter().map(|name| (*name).to_owned()));
    for matcher in early.get("removeOnMatch").items() {
        let Some(value) = matcher.get("value").text() else { continue };
        match matcher.get("type").text() {
            Some("Prefix") => removed.prefixes.push(value.to_owned()),
            None | Some("Exact") => removed.exact.push(value.to_owned()),
            Some(_) => {}
        }
    }
    let cure = "set removeOnMatch: [{ type: Prefix, value: x-tenantgate- }] (Envoy Gateway 1.7)";
    removed.judge(report, &early, cure);
}

fn proxy(report: &mut Report, spec: &Node) {
    let log = spec.at("telemetry.accessLog");
    let cure = "set telemetry.accessLog.settings with a format without the path";
    let settings = log.get("settings").items();
    if settings.is_empty() && !log.get("disable").is_true() {
        rules::default_format(report, &log, cure);
    }
    for setting in settings {
        for sink in setting.get("sinks").items() {
            if sink.get("als").exists() {
                rules::logs_all(report, &sink);
            }
        }
        let format = setting.get("format");
        if format.get("text").exists() || format.get("json").exists() {
            rules::log_format(report, &format);
        } else {
            rules::default_format(report, &format, cure);
        }
    }
    let tracing = spec.at("telemetry.tracing");
    if tracing.exists() {
        rules::spans(report, &tracing, "take it out: Envoy Gateway cannot leave the path out");
    }
    order(report, &spec.get("filterOrder"));
}

const CHECK: &str = "envoy.filters.http.ext_authz";

/// By itself the check comes before the limits, and after nothing that changes a path.
fn order(report: &mut Report, at: &Node) {
    let wants_client = |name: Option<&str>| {
        name.is_some_and(|name| name.contains("ratelimit") || name.contains("rbac"))
    };
    for entry in at.items() {
        let (name, before, after) =
            (entry.get("name").text(), entry.get("before").text(), entry.get("after").text());
        let late = name == Some(CHECK) && wants_client(after);
        let early = before == Some(CHECK) && wants_client(name);
        if late || early {
            let why = "it does not see the client that tenantgate names";
            let cure = "leave ext_authz before it";
            report.warning(&entry, "a limit comes before the check", why, cure);
        }
    }
}

fn backend_traffic(report: &mut Report, spec: &Node) {
    for upgrade in spec.get("httpUpgrade").items() {
        rules::websocket(report, &upgrade);
    }
    for rule in spec.at("rateLimit.global.rules").items() {
        let namespace = rule.at("limit.fromMetadata.namespace");
        if namespace.exists() && namespace.text() != Some(CHECK) {
            let why = "tenantgate's quota is elsewhere, so the static limit holds";
            let cure = "set namespace: envoy.filters.http.ext_authz and key: quota";
            report.warning(&namespace, "not the check's metadata", why, cure);
        }
    }
}

fn backend_tls(report: &mut Report, spec: &Node) {
    let validation = spec.get("validation");
    let trusts = !validation.get("caCertificateRefs").items().is_empty()
        || validation.get("wellKnownCACertificates").exists();
    if !trusts || !validation.get("hostname").exists() {
        let why = "the policy is invalid: Envoy does not know whom it talks to";
        let cure = "set validation.hostname and validation.caCertificateRefs";
        report.error(&validation, "hostname or CA is missing", why, cure);
    }
}

fn extension(report: &mut Report, spec: &Node) {
    let others = ["lua", "extProc", "wasm"].map(|key| spec.get(key));
    let others = others.into_iter().filter(Node::exists);
    let modules = spec.get("dynamicModule").items();
    let modules =
        modules.into_iter().filter(|one| one.get("filterName").text() != Some("tenantgate"));
    for at in others.chain(modules) {
        let why = "it runs after the check and can change the path that was checked";
        let cure = "let it leave :path, :method and x-tenantgate-… alone";
        report.warning(&at, "an extension of the same requests", why, cure);
    }
}

fn route_filters(report: &mut Report, spec: &Node) {
    for rule in spec.get("rules").items() {
        for filter in rule.get("filters").items() {
            let modifier = filter.get("requestHeaderModifier");
            let mut names = modifier.get("remove").texts();
            for key in ["set", "add"] {
                let headers = modifier.get(key).items();
                names.extend(headers.iter().filter_map(|header| header.get("name").text()));
            }
            if names.iter().any(|name| name.to_lowercase().starts_with(rules::OUR_PREFIX)) {
                let why = "it runs after the check, and the API sees another client or none";
                let cure = "take it out; earlyRequestHeaders removes what clients send";
                report.error(&modifier, "tenantgate's headers are changed", why, cure);
            }
            if filter.get("type").text() == Some("ExternalAuth") {
                let auth = filter.get("externalAuth");
                let names: Vec<String> = auth
                    .at("grpc.allowedHeaders")
                    .texts()
                    .iter()
                    .map(|name| name.to_lowercase())
                    .collect();
                let cure = "set grpc.allowedHeaders: [authorization, x-request-id]";
                rules::sent_headers(report, &auth, &names, cure);
                rules::body(report, &auth.get("forwardBody"));
            }
        }
    }
}
