//! What a connection manager writes about requests: access logs and spans.

use crate::lint::Report;
use crate::lint::node::Node;
use crate::lint::rules;

use super::type_of;

pub fn lint(report: &mut Report, manager: &Node) {
    for log in manager.get("access_log").items() {
        access_log(report, &log);
    }
    for filter in manager.get("http_filters").items() {
        for log in filter.at("typed_config.upstream_log").items() {
            access_log(report, &log);
        }
    }
    let tracing = manager.get("tracing");
    if tracing.exists() {
        let length = tracing.get("max_path_tag_length");
        if length.number() != Some(0.0) {
            rules::spans(report, &length, "set max_path_tag_length: 0");
        }
        rules::span_tags(report, &tracing.get("custom_tags"));
    }
}

fn access_log(report: &mut Report, log: &Node) {
    let typed = log.get("typed_config");
    let formats: &[&str] = match type_of(&typed) {
        "HttpGrpcAccessLogConfig" => return rules::logs_all(report, &typed),
        "OpenTelemetryAccessLogConfig" => &["body", "attributes"],
        "FileAccessLog" | "StdoutAccessLog" | "StderrAccessLog" => {
            &["log_format", "format", "json_format", "typed_json_format"]
        }
        // What else there is says nothing of the path by itself.
        _ => return rules::log_format(report, &typed),
    };
    let formats: Vec<Node> = formats.iter().map(|key| typed.get(key)).collect();
    if !formats.iter().any(Node::exists) {
        rules::default_format(report, &typed, "set log_format without the path");
    }
    for format in formats {
        rules::log_format(report, &format);
    }
}
