use super::*;
use Severity::{Error, Warning};

const SAMPLE: &str = "envoy/envoy.yaml";

/// One place of the sample, what it becomes, and what is found where.
const MUTATIONS: &[(&str, &str, Severity, &str)] = &[
    ("failure_mode_allow: false", "failure_mode_allow: true", Error, "failure_mode_allow"),
    ("failure_mode_allow: false", "failure_mode_allow: yes", Error, "failure_mode_allow"),
    ("failure_mode_allow: false", "failureModeAllow: true", Error, "failure_mode_allow"),
    ("failure_mode_allow: false", "shadow_mode: true", Error, "shadow_mode"),
    ("status_on_error: { code: ServiceUnavailable }", "", Error, "status_on_error"),
    (
        "status_on_error: { code: ServiceUnavailable }",
        "status_on_error: { code: Forbidden }",
        Error,
        "status_on_error",
    ),
    (
        "status_on_error: { code: ServiceUnavailable }",
        "status_on_error: { code: 403 }",
        Error,
        "status_on_error",
    ),
    (
        "status_on_error: { code: ServiceUnavailable }",
        "status_on_error: { code: 500 }",
        Warning,
        "status_on_error",
    ),
    ("timeout: 0.5s", "timeout: 10s", Error, "grpc_service.timeout"),
    ("timeout: 0.5s", "timeout: 0s", Error, "grpc_service.timeout"),
    ("timeout: 0.5s", "timeout: soon", Error, "grpc_service.timeout"),
    ("timeout: 0.5s", "timeout: 0.05s", Warning, "grpc_service.timeout"),
    ("timeout: 0.5s", "", Warning, "grpc_service.timeout"),
    (
        "envoy_grpc: { cluster_name: tenantgate-check }",
        "envoy_grpc: { cluster_name: other }",
        Error,
        "cluster_name",
    ),
    ("grpc_service:", "http_service:", Error, "typed_config"),
    ("- exact: authorization", "- exact: cookie", Error, "allowed_headers"),
    (
        "- exact: authorization",
        "- exact: authorization\n                          - exact: cookie",
        Warning,
        "allowed_headers",
    ),
    ("allowed_headers:", "disallowed_headers:", Warning, "allowed_headers"),
    ("clear_route_cache: false", "clear_route_cache: true", Error, "clear_route_cache"),
    (
        "clear_route_cache: false",
        "with_request_body: { max_request_bytes: 8192 }",
        Warning,
        "with_request_body",
    ),
    ("transport_api_version: V3", "transport_api_version: V2", Error, "transport_api_version"),
    (
        "clear_route_cache: false",
        "filter_enabled: { default_value: { numerator: 50 } }",
        Error,
        "filter_enabled",
    ),
    (
        "clear_route_cache: false",
        "filter_enabled: { default_value: { numerator: 100, denominator: TEN_THOUSAND } }",
        Error,
        "filter_enabled",
    ),
    (
        "clear_route_cache: false",
        "filter_enabled: { runtime_key: off, default_value: { numerator: 100 } }",
        Warning,
        "filter_enabled",
    ),
    (
        "clear_route_cache: false",
        "filter_enabled_metadata: { filter: x }",
        Error,
        "filter_enabled_metadata",
    ),
    (
        "- name: envoy.filters.http.ext_authz\n",
        "- name: envoy.filters.http.ext_authz\n                    disabled: true\n",
        Error,
        "envoy.filters.http.ext_authz].disabled",
    ),
    (
        "- name: envoy.filters.http.ext_authz\n",
        "- name: envoy.filters.http.ext_authz\n                    config_discovery: {}\n",
        Warning,
        "envoy.filters.http.ext_authz]",
    ),
    ("normalize_path: true", "normalize_path: false", Error, "normalize_path"),
    ("normalize_path: true", "", Error, "normalize_path"),
    ("merge_slashes: true", "", Error, "merge_slashes"),
    (
        "path_with_escaped_slashes_action: REJECT_REQUEST",
        "",
        Error,
        "path_with_escaped_slashes_action",
    ),
    (
        "path_with_escaped_slashes_action: REJECT_REQUEST",
        "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
        Error,
        "path_with_escaped_slashes_action",
    ),
    (
        "path_with_escaped_slashes_action: REJECT_REQUEST",
        "path_with_escaped_slashes_action: 3",
        Warning,
        "path_with_escaped_slashes_action",
    ),
    ("headers_with_underscores_action: DROP_HEADER", "", Error, "headers_with_underscores_action"),
    (
        "- remove_on_match: { key_matcher: { prefix: x-tenantgate- } }",
        "",
        Error,
        "early_header_mutation_extensions",
    ),
    (
        "key_matcher: { prefix: x-tenantgate- }",
        "key_matcher: { prefix: x-tenantgate-client }",
        Error,
        "early_header_mutation_extensions",
    ),
    ("- remove: x-original-url\n", "\n", Warning, "early_header_mutation_extensions"),
    ("method: \"%REQ(:METHOD)%\"", "path: \"%REQ(:PATH)%\"", Error, "json_format.path"),
    (
        "method: \"%REQ(:METHOD)%\"",
        "url: \"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%\"",
        Error,
        "json_format.url",
    ),
    ("method: \"%REQ(:METHOD)%\"", "path: \"%PATH(NQ)%\"", Error, "json_format.path"),
    ("method: \"%REQ(:METHOD)%\"", "token: \"%REQ(AUTHORIZATION)%\"", Error, "json_format.token"),
    ("log_format:", "no_format:", Error, "access_log[envoy.access_loggers.stdout]"),
    (
        "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        Error,
        "access_log",
    ),
    ("stat_prefix: public", "tracing: {}", Error, "tracing.max_path_tag_length"),
    (
        "stat_prefix: public",
        "tracing: { max_path_tag_length: 256 }",
        Error,
        "tracing.max_path_tag_length",
    ),
    (
        "stat_prefix: public",
        "tracing: { max_path_tag_length: 0, custom_tags: [{ tag: p, request_header: { name: \
         \":path\" } }] }",
        Error,
        "custom_tags",
    ),
    (
        "stat_prefix: public",
        "upgrade_configs: [{ upgrade_type: websocket }]",
        Warning,
        "upgrade_configs",
    ),
    (
        "stat_prefix: public",
        "upgrade_configs: [{ upgrade_type: websocket, filters: [{ name: x }] }]",
        Error,
        "upgrade_configs[0].filters",
    ),
    (
        "match: { prefix: / }",
        "match: { prefix: / }\n                          typed_per_filter_config: *unchecked",
        Error,
        "routes[api]",
    ),
    (
        "match: { prefix: / }",
        "match: { prefix: / }\n                          typed_per_filter_config: { \
         envoy.filters.http.ext_authz: { \"@type\": \
         type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true } }",
        Error,
        "routes[api]",
    ),
    (
        "domains: [\"*\"]",
        "domains: [\"*\"]\n                      typed_per_filter_config: { \
         envoy.filters.http.ext_authz: { disabled: true } }",
        Error,
        "virtual_hosts[public]",
    ),
    ("match: { path: /oauth2/token }", "match: { prefix: /oauth2/token }", Error, "routes[token]"),
    ("match: { path: /oauth2/jwks }", "match: { path: /oda/apis }", Error, "routes[jwks]"),
    (
        "envoy.filters.http.ext_authz:\n                              \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n\
         \x20                             disabled: true",
        "envoy.filters.http.ext_authz:\n                              \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n\
         \x20                             check_settings: {}",
        Error,
        "routes[token]",
    ),
    (
        "match: { prefix: / }",
        "match: { prefix: / }\n                          typed_per_filter_config: { \
         envoy.filters.http.ext_authz: { \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, \
         check_settings: { grpc_service: {} } } }",
        Error,
        "check_settings.grpc_service",
    ),
    (
        "match: { prefix: / }",
        "match: { prefix: / }\n                          request_headers_to_remove: \
         [x-tenantgate-client-id]",
        Error,
        "request_headers_to_remove",
    ),
    (
        "match: { prefix: / }",
        "match: { prefix: / }\n                          request_headers_to_add: [{ header: { key: \
         x-tenantgate-client-id, value: a } }]",
        Error,
        "request_headers_to_add",
    ),
    (
        "route: { cluster: api, timeout: 15s }",
        "route: { cluster: api, upgrade_configs: [{ upgrade_type: websocket }] }",
        Warning,
        "routes[api].route.upgrade_configs",
    ),
    (
        "route: { cluster: api, timeout: 15s }",
        "route: { weighted_clusters: { clusters: [{ name: api, typed_per_filter_config: *unchecked \
         }] } }",
        Error,
        "weighted_clusters",
    ),
    (
        "thresholds:\n          - { priority: DEFAULT, max_connections: 65536, \
         max_pending_requests: 65536, max_requests: 65536 }",
        "thresholds: []",
        Warning,
        "circuit_breakers",
    ),
    ("max_requests: 65536", "max_requests: 100", Warning, "max_requests"),
    (
        "grpc_health_check: {}",
        "grpc_health_check: {}\n      outlier_detection: {}",
        Warning,
        "outlier_detection",
    ),
    ("health_checks:", "no_health_checks:", Warning, "clusters[tenantgate-check]"),
    (
        "explicit_http_config:\n            http2_protocol_options:",
        "explicit_http_config:\n            http_protocol_options:",
        Error,
        "clusters[tenantgate-check]",
    ),
    (
        "address: 127.0.0.1, port_value: 9191",
        "address: 10.0.0.7, port_value: 9191",
        Warning,
        "socket_address.address",
    ),
    (
        "- name: envoy.filters.http.router\n",
        "- name: lua\n                    typed_config: { \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua }\n                  - name: \
         envoy.filters.http.router\n",
        Warning,
        "http_filters[lua]",
    ),
    (
        "- name: envoy.filters.http.buffer\n",
        "- name: limit\n                    typed_config: { \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit \
         }\n                  - name: envoy.filters.http.buffer\n",
        Warning,
        "http_filters[limit]",
    ),
    (
        "- name: envoy.filters.http.buffer\n",
        "- name: remote\n                    typed_config: { dynamic_module_config: { module: { \
         remote: { sha256: a } } } }\n                  - name: envoy.filters.http.buffer\n",
        Error,
        "module.remote",
    ),
    ("route_config:\n", "rds:\n", Warning, "typed_config"),
    (
        "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz\n",
        "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors\n",
        Error,
        "envoy.yaml",
    ),
];

#[test]
fn every_mutation_of_the_sample_is_found() {
    let sample = file(SAMPLE);
    let good = envoy(&sample).unwrap();
    assert_eq!(good.findings, [], "the sample itself");
    for (from, to, severity, place) in MUTATIONS {
        println!("{from} -> {to}");
        let bad = envoy(&spoilt(&sample, from, to)).unwrap();
        assert_found(&good, &bad, *severity, place);
    }
}

/// The same config as Envoy prints it while it runs.
fn dump_of(sample: &File) -> File {
    let bootstrap = documents::read(sample).unwrap().swap_remove(0);
    let listener = &bootstrap["static_resources"]["listeners"][0];
    let mut listener = listener.clone();
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let mut table = manager.as_object_mut().unwrap().remove("route_config").unwrap();
    table["name"] = "public".into();
    manager["rds"] = serde_json::json!({"route_config_name": "public"});
    let clusters = bootstrap["static_resources"]["clusters"].as_array().unwrap();
    let clusters: Vec<Value> =
        clusters.iter().map(|cluster| serde_json::json!({ "cluster": cluster })).collect();
    let kind = |name: &str| format!("type.googleapis.com/envoy.admin.v3.{name}");
    let dump = serde_json::json!({"configs": [
        {"@type": kind("BootstrapConfigDump"), "bootstrap": {}},
        {"@type": kind("ClustersConfigDump"), "dynamic_active_clusters": clusters},
        {"@type": kind("ListenersConfigDump"), "dynamic_listeners": [
            {"name": "public", "active_state": {"listener": listener}},
        ]},
        {"@type": kind("RoutesConfigDump"), "dynamic_route_configs": [{"route_config": table}]},
        {"@type": kind("SecretsConfigDump")},
    ]});
    File { name: "dump.json".to_owned(), text: dump.to_string() }
}

#[test]
fn a_config_dump_is_read_like_a_bootstrap() {
    let sample = file(SAMPLE);
    let good = envoy(&dump_of(&sample)).unwrap();
    assert_eq!(good.findings, []);
    for (from, to, severity, _) in MUTATIONS {
        if from.starts_with("route_config") {
            continue;
        }
        println!("{from} -> {to}");
        let bad = envoy(&dump_of(&spoilt(&sample, from, to))).unwrap();
        assert_found(&good, &bad, *severity, "dump.json");
    }
}

/// Envoy Gateway: the filter is off but for the routes that ask for it.
#[test]
fn a_filter_that_routes_switch_on() {
    let name = "- name: envoy.filters.http.ext_authz\n";
    let off = format!("{name}                    disabled: true\n");
    let sample = spoilt(&file(SAMPLE), name, &off);
    let on = "match: { prefix: / }\n                          typed_per_filter_config: { \
              envoy.filters.http.ext_authz: { \"@type\": \
              type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {} } }";
    let report = envoy(&spoilt(&sample, "match: { prefix: / }", on)).unwrap();
    assert_eq!(errors(&report), [""; 0]);
}

#[test]
fn the_module_checks_as_well_as_the_filter() {
    let sample = file(SAMPLE);
    let start = sample.text.find("- name: envoy.filters.http.ext_authz\n").unwrap();
    let end = sample.text.find("- name: envoy.filters.http.router\n").unwrap();
    let filter = "- name: envoy.filters.http.ext_authz\n                    typed_config: { \
         \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter, \
         filter_name: tenantgate }\n                  ";
    let text = format!("{}{filter}{}", &sample.text[..start], &sample.text[end..]);
    let report = envoy(&File { name: "module.yaml".to_owned(), text }).unwrap();
    assert_eq!(errors(&report), [""; 0]);
}
