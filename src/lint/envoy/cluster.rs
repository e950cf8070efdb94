//! The cluster of the check.

use crate::lint::Report;
use crate::lint::node::Node;
use crate::lint::rules;

use super::EnvoyConfig;

pub fn lint(report: &mut Report, config: &EnvoyConfig, name: &Node) {
    let wanted = name.text();
    let found = config.clusters.iter().find(|cluster| cluster.get("name").text() == wanted);
    let Some(cluster) = found else {
        let why = "every check fails";
        report.error(
            name,
            "there is no such cluster in this file",
            why,
            "add it, or correct the name",
        );
        return;
    };
    http2(report, cluster);
    capacity(report, cluster);
    if cluster.get("health_checks").items().is_empty() {
        let why = "Envoy does not see that tenantgate is gone before requests fail";
        let cure = "add health_checks with grpc_health_check: {}";
        report.warning(cluster, "no health check", why, cure);
    }
    rules::outlier_detection(report, &cluster.get("outlier_detection"));
    transport(report, cluster);
}

fn http2(report: &mut Report, cluster: &Node) {
    let options = cluster.get("typed_extension_protocol_options").entries();
    let speaks = |(_, options): &(&str, Node)| {
        options.at("explicit_http_config.http2_protocol_options").exists()
            || options.get("auto_config").exists()
    };
    if !options.iter().any(speaks) && !cluster.get("http2_protocol_options").exists() {
        let why = "gRPC needs HTTP/2: every check fails";
        let cure = "set explicit_http_config: { http2_protocol_options: {} }";
        report.error(cluster, "the check's cluster speaks HTTP/1.1", why, cure);
    }
}

fn capacity(report: &mut Report, cluster: &Node) {
    let breakers = cluster.get("circuit_breakers");
    let thresholds = breakers.get("thresholds").items();
    let normal = |threshold: &&Node| {
        let priority = threshold.get("priority");
        !priority.exists() || super::is_value(&priority, "DEFAULT", 0.0)
    };
    let limits = match thresholds.iter().find(normal) {
        Some(threshold) => {
            vec![threshold.get("max_requests"), threshold.get("max_pending_requests")]
        }
        None => vec![breakers],
    };
    rules::capacity(report, &limits, "raise circuit_breakers, to 65536 say");
}

/// Plain text is for this machine.
fn transport(report: &mut Report, cluster: &Node) {
    if cluster.get("transport_socket").exists() {
        return;
    }
    let groups = cluster.at("load_assignment.endpoints").items();
    let endpoints = groups.iter().flat_map(|group| group.get("lb_endpoints").items());
    for endpoint in endpoints {
        let address = endpoint.at("endpoint.address.socket_address.address");
        let Some(host) = address.text() else { continue };
        let local = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !local {
            let why = "tokens and tenant codes cross the network in the clear";
            let cure = "add a transport_socket with TLS, and listen.check.tls in tenantgate";
            report.warning(&address, "the check goes elsewhere without TLS", why, cure);
        }
    }
}
