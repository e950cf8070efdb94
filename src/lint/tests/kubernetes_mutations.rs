use super::*;
use Severity::{Error, Warning};

type Mutation = (&'static str, &'static str, &'static str, Severity, &'static str);

const ENVOY_GATEWAY: &[Mutation] = &[
    ("securitypolicy", "failOpen: false", "failOpen: true", Error, "spec.extAuth.failOpen"),
    ("securitypolicy", "statusOnError: 503", "", Error, "spec.extAuth.statusOnError"),
    (
        "securitypolicy",
        "statusOnError: 503",
        "statusOnError: 403",
        Error,
        "spec.extAuth.statusOnError",
    ),
    ("securitypolicy", "timeout: 500ms", "", Error, "spec.extAuth.timeout"),
    ("securitypolicy", "timeout: 500ms", "timeout: 10s", Error, "spec.extAuth.timeout"),
    ("securitypolicy", "timeout: 500ms", "timeout: 50ms", Warning, "spec.extAuth.timeout"),
    (
        "securitypolicy",
        "headersToExtAuth: [authorization, x-request-id]",
        "",
        Warning,
        "spec.extAuth.headersToExtAuth",
    ),
    (
        "securitypolicy",
        "headersToExtAuth: [authorization, x-request-id]",
        "headersToExtAuth: [cookie]",
        Error,
        "spec.extAuth.headersToExtAuth",
    ),
    (
        "securitypolicy",
        "timeout: 500ms",
        "timeout: 500ms\n    bodyToExtAuth: { maxRequestBytes: 1024 }",
        Warning,
        "bodyToExtAuth",
    ),
    (
        "securitypolicy",
        "timeout: 500ms",
        "timeout: 500ms\n    recomputeRoute: true",
        Error,
        "recomputeRoute",
    ),
    ("securitypolicy", "    grpc:\n", "    http:\n", Error, "spec.extAuth"),
    ("securitypolicy", "- { name: tenantgate, port: 9191 }", "", Error, "spec.extAuth.grpc"),
    (
        "securitypolicy",
        "maxPendingRequests: 65536",
        "maxPendingRequests: 64",
        Warning,
        "maxPendingRequests",
    ),
    ("securitypolicy", "circuitBreaker: {", "unknown: {", Warning, "circuitBreaker"),
    ("securitypolicy", "type: GRPC", "type: TCP", Warning, "healthCheck.active.type"),
    ("securitypolicy", "sectionName: api", "sectionName: apis", Error, "sectionName"),
    ("securitypolicy", ", sectionName: api", "", Error, "rules[token]"),
    (
        "securitypolicy",
        "name: reports, sectionName",
        "name: other, sectionName",
        Warning,
        "targetRefs",
    ),
    (
        "securitypolicy",
        "namespace: gates\nspec:",
        "namespace: gates\nstatus: { ancestors: [{ conditions: [{ type: Accepted, status: \
         \"False\" }] }] }\nspec:",
        Error,
        "status.ancestors",
    ),
    (
        "clienttrafficpolicy",
        "escapedSlashesAction: RejectRequest",
        "",
        Warning,
        "escapedSlashesAction",
    ),
    (
        "clienttrafficpolicy",
        "escapedSlashesAction: RejectRequest",
        "escapedSlashesAction: KeepUnchanged",
        Error,
        "escapedSlashesAction",
    ),
    (
        "clienttrafficpolicy",
        "disableMergeSlashes: false",
        "disableMergeSlashes: true",
        Error,
        "disableMergeSlashes",
    ),
    (
        "clienttrafficpolicy",
        "withUnderscoresAction: DropHeader",
        "withUnderscoresAction: Allow",
        Error,
        "withUnderscoresAction",
    ),
    (
        "clienttrafficpolicy",
        "- { type: Prefix, value: x-tenantgate- }",
        "",
        Error,
        "earlyRequestHeaders",
    ),
    (
        "clienttrafficpolicy",
        "type: Prefix, value",
        "type: Suffix, value",
        Error,
        "earlyRequestHeaders",
    ),
    ("clienttrafficpolicy", "- x-original-url\n", "\n", Warning, "earlyRequestHeaders"),
    ("envoyproxy", "accessLog:", "metrics:", Error, "telemetry.accessLog"),
    (
        "envoyproxy",
        "method: \"%REQ(:METHOD)%\"",
        "path: \"%REQ(:PATH)%\"",
        Error,
        "format.json.path",
    ),
    ("envoyproxy", "        - format:\n", "        - no_format:\n", Error, "accessLog.settings"),
    ("envoyproxy", "file: { path: /dev/stdout }", "als: {}", Error, "sinks"),
    (
        "envoyproxy",
        "    accessLog:\n",
        "    tracing: {}\n    accessLog:\n",
        Error,
        "telemetry.tracing",
    ),
    (
        "envoyproxy",
        "spec:\n",
        "spec:\n  filterOrder: [{ name: envoy.filters.http.ratelimit, before: \
         envoy.filters.http.ext_authz }]\n",
        Warning,
        "filterOrder",
    ),
    (
        "envoyproxy",
        "spec:\n",
        "spec:\n  dynamicModules: [{ name: x, source: { type: Remote, remote: {} } }]\n",
        Error,
        "dynamicModules",
    ),
    (
        "httproute",
        "path: { type: Exact, value: /oauth2/token }",
        "path: { type: PathPrefix, value: /oauth2/token }",
        Error,
        "rules[token]",
    ),
    (
        "httproute",
        "path: { type: Exact, value: /oauth2/token }",
        "path: { type: Exact, value: /reports }",
        Error,
        "rules[token]",
    ),
    ("httproute", "    - name: api\n", "    - name: apis\n", Error, "sectionName"),
    (
        "httproute",
        "    - name: api\n",
        "    - name: other\n      matches: [{ path: { value: /other } }]\n    - name: api\n",
        Error,
        "rules[other]",
    ),
    (
        "httproute",
        "    - name: api\n",
        "    - name: api\n      filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { \
         remove: [X-Tenantgate-Client-Id] } }]\n",
        Error,
        "requestHeaderModifier",
    ),
    (
        "httproute",
        "    - name: api\n",
        "    - name: api\n      filters: [{ type: ExternalAuth, externalAuth: { forwardBody: {} } \
         }]\n",
        Warning,
        "externalAuth.forwardBody",
    ),
    ("quota", "spec:\n", "spec:\n  httpUpgrade: [{ type: websocket }]\n", Warning, "httpUpgrade"),
    (
        "quota",
        "    type: Local\n",
        "    global: { rules: [{ limit: { fromMetadata: { namespace: other } } }] }\n    type: \
         Global\n",
        Warning,
        "fromMetadata.namespace",
    ),
    ("backendtlspolicy", "hostname: tenantgate.gates.svc", "", Error, "spec.validation"),
    ("backendtlspolicy", "caCertificateRefs:", "subjectAltNames:", Error, "spec.validation"),
    ("backendtlspolicy", "kind: BackendTLSPolicy", "kind: Other", Warning, "grpc.backendRefs"),
];

const ISTIO: &[Mutation] = &[
    ("meshconfig", "failOpen: false", "failOpen: true", Error, "envoyExtAuthzGrpc.failOpen"),
    ("meshconfig", "statusOnError: \"503\"", "", Error, "envoyExtAuthzGrpc.statusOnError"),
    ("meshconfig", "timeout: 0.5s", "", Error, "envoyExtAuthzGrpc.timeout"),
    (
        "meshconfig",
        "timeout: 0.5s",
        "timeout: 0.5s\n        clearRouteCache: true",
        Error,
        "clearRouteCache",
    ),
    (
        "meshconfig",
        "timeout: 0.5s",
        "timeout: 0.5s\n        includeRequestBodyInCheck: {}",
        Warning,
        "includeRequestBodyInCheck",
    ),
    (
        "meshconfig",
        "envoyExtAuthzGrpc:",
        "envoyExtAuthzHttp:",
        Error,
        "extensionProviders[tenantgate]",
    ),
    ("meshconfig", "    - name: tenantgate\n", "    - name: other\n", Error, "spec.provider.name"),
    (
        "meshconfig",
        "method: \"%REQ(:METHOD)%\"",
        "path: \"%REQ(:PATH)%\"",
        Error,
        "logFormat.labels.path",
    ),
    ("meshconfig", "logFormat:", "format:", Error, "logFormat"),
    ("meshconfig", "accessLogFile: \"\"", "accessLogFile: /dev/stdout", Error, "accessLogFormat"),
    (
        "meshconfig",
        "normalization: MERGE_SLASHES",
        "normalization: BASE",
        Error,
        "pathNormalization",
    ),
    (
        "meshconfig",
        "pathNormalization: { normalization: MERGE_SLASHES }",
        "",
        Error,
        "pathNormalization",
    ),
    ("meshconfig", "maxPathTagLength: 1", "maxPathTagLength: 0", Error, "maxPathTagLength"),
    (
        "meshconfig",
        "  defaultConfig:\n",
        "  defaultConfig:\n    connectionSettings: { profile: EDGE }\n",
        Warning,
        "connectionSettings",
    ),
    (
        "meshconfig",
        "  defaultConfig:\n",
        "  defaultConfig:\n    connectionSettings: { httpPathWithEscapedSlashesAction: \
         KEEP_UNCHANGED }\n",
        Error,
        "httpPathWithEscapedSlashesAction",
    ),
    ("authorizationpolicy", "action: CUSTOM", "action: DENY", Warning, "meshConfig"),
    ("authorizationpolicy", "provider: { name: tenantgate }", "", Error, "spec.provider.name"),
    ("authorizationpolicy", "- /oauth2/jwks", "- /oauth2/*", Error, "notPaths"),
    ("authorizationpolicy", "- /oauth2/jwks", "- /reports", Error, "notPaths"),
    ("authorizationpolicy", "notPaths:", "paths:", Error, "operation.paths"),
    (
        "authorizationpolicy",
        "notPaths:",
        "methods: [GET]\n            notPaths:",
        Error,
        "operation.methods",
    ),
    ("authorizationpolicy", "    - to:\n", "    - when: [{ key: a }]\n      to:\n", Error, "when"),
    ("authorizationpolicy", "  rules:\n", "  rules:\n    - {}\n", Warning, "rules"),
    ("authorizationpolicy", "  rules:\n", "  no_rules:\n", Error, "rules"),
    (
        "authorizationpolicy",
        "metadata:\n",
        "metadata:\n  annotations: { istio.io/dry-run: \"true\" }\n",
        Error,
        "annotations.istio.io/dry-run",
    ),
    ("telemetry", "name: gate-access-log", "name: envoy", Error, "providers"),
    (
        "telemetry",
        "spec:\n",
        "spec:\n  tracing: [{ customTags: { p: { header: { name: \":path\" } } } }]\n",
        Error,
        "customTags",
    ),
    (
        "envoyfilter",
        "path_with_escaped_slashes_action: REJECT_REQUEST",
        "",
        Error,
        "path_with_escaped_slashes_action",
    ),
    (
        "envoyfilter",
        "common_http_protocol_options: { headers_with_underscores_action: DROP_HEADER }",
        "",
        Error,
        "headers_with_underscores_action",
    ),
    (
        "envoyfilter",
        "- remove_on_match: { key_matcher: { prefix: x-tenantgate- } }",
        "",
        Error,
        "early_header_mutation_extensions",
    ),
    (
        "envoyfilter",
        "  configPatches:\n",
        "  configPatches:\n    - applyTo: HTTP_FILTER\n",
        Warning,
        "configPatches",
    ),
    ("envoyfilter", ".v3.HttpConnectionManager", ".v3.Other", Warning, "AuthorizationPolicy"),
    (
        "virtualservice",
        "http2MaxRequests: 65536",
        "http2MaxRequests: 100",
        Warning,
        "http2MaxRequests",
    ),
    (
        "virtualservice",
        "    connectionPool:\n",
        "    outlierDetection: {}\n    connectionPool:\n",
        Warning,
        "outlierDetection",
    ),
    (
        "virtualservice",
        "    connectionPool:\n",
        "    tls: { mode: DISABLE }\n    connectionPool:\n",
        Warning,
        "tls.mode",
    ),
];

fn assert_all_found(path: &str, mutations: &[Mutation]) {
    let good = kubernetes(&folder(path)).unwrap();
    for (name, from, to, severity, place) in mutations {
        println!("{name}: {from} -> {to}");
        let mut files = folder(path);
        let name = format!("{path}/{name}.yaml");
        let file = files.iter_mut().find(|file| file.name == name).unwrap();
        *file = spoilt(file, from, to);
        assert_found(&good, &kubernetes(&files).unwrap(), *severity, place);
    }
}

#[test]
fn every_mutation_of_the_envoy_gateway_samples_is_found() {
    assert_all_found("deploy/envoy-gateway", ENVOY_GATEWAY);
}

#[test]
fn every_mutation_of_the_istio_samples_is_found() {
    assert_all_found("deploy/istio", ISTIO);
}

fn with(path: &str, more: &str) -> Report {
    let mut files = folder(path);
    files.push(File { name: "more.yaml".to_owned(), text: more.to_owned() });
    kubernetes(&files).unwrap()
}

/// A route owner's policy, even an empty one, replaces the platform's.
#[test]
fn a_policy_that_switches_the_check_off_is_found() {
    let policy = |target: &str, more: &str| {
        format!(
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nmetadata: {{ name: \
             other, namespace: gates }}\nspec:\n  targetRefs: [{{ kind: {target} }}]\n{more}"
        )
    };
    let ours = folder("deploy/envoy-gateway");
    let bound = ", kind: HTTPRoute, name: reports, sectionName: api";
    let to_gateway = |more: &str| {
        let mut files: Vec<File> = ours
            .iter()
            .map(|file| match file.name.ends_with("/securitypolicy.yaml") {
                true => spoilt(file, bound, ", kind: Gateway, name: reports"),
                false => File { name: file.name.clone(), text: file.text.clone() },
            })
            .collect();
        files.push(File { name: "more.yaml".to_owned(), text: more.to_owned() });
        errors(&kubernetes(&files).unwrap()).join("\n")
    };
    // The platform's policy is bound to the Gateway, and an empty one to the token rule: as it
    // should be.
    let token = policy("HTTPRoute, name: reports, sectionName: token", "");
    assert_eq!(to_gateway(&token), "");
    let api = policy("HTTPRoute, name: reports, sectionName: api", "  cors: {}\n");
    assert!(to_gateway(&format!("{token}---\n{api}")).contains("wins on a rule"));
    let route = policy("HTTPRoute, name: reports", "");
    assert!(to_gateway(&format!("{token}---\n{route}")).contains("wins on a rule"));
    let merged = policy("HTTPRoute, name: reports", "  mergeType: StrategicMerge\n");
    assert_eq!(to_gateway(&format!("{token}---\n{merged}")), "");
}

#[test]
fn lists_of_kubectl_and_other_kinds() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: \
                gateway.envoyproxy.io/v1alpha1\n  \
                kind: SecurityPolicy\n  metadata: { name: a }\n  spec: { extAuth: { failOpen: \
                true, \
                grpc: {} } }\n- apiVersion: v1\n  kind: Service\n  metadata: { name: b }\n";
    let file = File { name: "list.yaml".to_owned(), text: list.to_owned() };
    let report = kubernetes(&[file]).unwrap();
    let line = "error list.yaml:SecurityPolicy/a.spec.extAuth.failOpen: fails open, ";
    assert!(errors(&report).iter().any(|error| error.starts_with(line)), "{report:#?}");
    assert_eq!(report.skipped[0].place, "list.yaml:Service/b");
}

#[test]
fn files_without_anything_of_the_pairing_are_no_good_news() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: { name: b }\n".to_owned();
    let report = kubernetes(&[File { name: "service.yaml".to_owned(), text }]).unwrap();
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].severity, Warning);
}

#[test]
fn an_istio_operator_and_istiods_own_map() {
    let mesh = "extensionProviders: [{ name: t, envoyExtAuthzGrpc: { failOpen: true } }]";
    let operator = format!(
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {{ name: i \
         }}\nspec:\n  \
         meshConfig: {{ {mesh} }}\n"
    );
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: istio }}\ndata:\n  mesh: |\n    \
         {mesh}\n"
    );
    for text in [operator, map, mesh.to_owned()] {
        let report = kubernetes(&[File { name: "mesh.yaml".to_owned(), text }]).unwrap();
        let found = errors(&report).iter().any(|error| error.contains("failOpen: fails open"));
        assert!(found, "{report:#?}");
    }
}

#[test]
fn plain_text_within_the_mesh() {
    let peer = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: p }\n\
                spec: { mtls: { mode: PERMISSIVE } }\n";
    assert_found(
        &with("deploy/istio", "kind: Nothing"),
        &with("deploy/istio", peer),
        Warning,
        "mtls.mode",
    );
    let proxy = "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: { name: p \
                 }\n\
                 spec: { connectionSettings: { httpPathWithEscapedSlashesAction: REJECT_REQUEST } \
                 }\n";
    assert_found(
        &with("deploy/istio", "kind: Nothing"),
        &with("deploy/istio", proxy),
        Error,
        "httpHeadersWithUnderscoresAction",
    );
}
