//! (a) The check listener against the empty handler.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use prost::Message as _;

use super::load::{Expect, Load, Requests};
use super::process::{Server, wait_for_file};
use super::provider;
use super::report::{Table, median, median_ratio, percentile};
use crate::common::{Installation, PATH, TENANTS, check_request};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const ROUNDS: usize = 9;
const CLOSED: Duration = Duration::from_millis(800);
const OPEN: Duration = Duration::from_millis(1200);
const UNDER_WAY: usize = 64;

/// A running tenantgate with its addresses.
pub struct Tenantgate {
    pub server: Server,
    pub check: SocketAddr,
    pub token: SocketAddr,
    pub installation: Installation,
}

impl Tenantgate {
    pub fn start(further_config: &str) -> Self {
        let lookup = provider::start();
        let installation = Installation::new(&lookup.to_string(), further_config);
        let (config, ports) = (installation.file("tenantgate.yaml"), installation.file("ports"));
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let arguments = ["serve", "--config", &text(&config), "--ports-file", &text(&ports)];
        let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tenantgate")), &arguments);
        let ports: BTreeMap<String, Option<String>> =
            serde_json::from_str(&wait_for_file(&ports)).expect("the ports file is JSON");
        let address = |name: &str| {
            let bound = ports[name].as_ref().expect("a listener of the config");
            bound.parse().expect("an address")
        };
        Self { check: address("check"), token: address("token"), server, installation }
    }
}

pub fn start_empty() -> (Server, SocketAddr) {
    let this = std::env::current_exe().expect("the program's own path");
    Server::start_printing(&this, &[super::EMPTY_HANDLER])
}

fn start_single_threaded() -> (Server, SocketAddr) {
    let this = std::env::current_exe().expect("the program's own path");
    Server::start_printing(&this, &[super::EMPTY_HANDLER, super::SINGLE_THREAD])
}

pub fn checks(messages: &[Vec<u8>]) -> Requests {
    Requests::grpc(CHECK, messages)
}

/// What a server answers to a warm check: all later answers must be the same bytes.
pub fn learn(address: SocketAddr, requests: &Requests) -> Expect {
    let answer =
        Load { address, requests, expect: Expect::Ok }.answer().expect("the server answers");
    let response = CheckResponse::decode(&answer[5..]).expect("a CheckResponse");
    assert_eq!(response.status.expect("a status").code, 0, "the check is allowed");
    Expect::Body(answer)
}

#[derive(Default)]
struct Figures {
    per_second: Vec<f64>,
    cpu_busy: Vec<f64>,
    cpu_half: Vec<f64>,
    latencies: [Vec<f64>; 3],
}

pub fn run() {
    let tenantgate = Tenantgate::start("");
    let (empty, empty_address) = start_empty();
    let message = check_request(PATH, &tenantgate.installation.token(1, TENANTS));
    let size = message.len();
    let requests = checks(&[message]);
    let contenders = [
        ("empty handler", &empty, empty_address),
        ("tenantgate", &tenantgate.server, tenantgate.check),
    ];
    let loads = contenders.map(|(_, _, address)| {
        let expect = learn(address, &requests);
        Load { address, requests: &requests, expect }
    });
    let closed = |load: &Load<'_>| {
        load.closed_loop(UNDER_WAY, usize::MAX, CLOSED).expect("a closed-loop round")
    };
    // Warms both up, and tells what half load is.
    let saturated = loads.each_ref().map(|load| closed(load).per_second());
    let rate = saturated[0].min(saturated[1]) / 2.0;

    let mut figures = [Figures::default(), Figures::default()];
    for round in 0..ROUNDS {
        // Who goes first changes, so that neither always follows the other.
        for at in [round % 2, 1 - round % 2] {
            let (server, load, figures) = (contenders[at].1, &loads[at], &mut figures[at]);
            let before = server.cpu();
            let throughput = closed(load);
            let cpu = server.cpu() - before;
            figures.per_second.push(throughput.per_second());
            figures.cpu_busy.push(micros(cpu) / throughput.completed as f64);

            let before = server.cpu();
            let latencies = load.open_loop(rate, OPEN).expect("an open-loop round");
            let cpu = server.cpu() - before;
            figures.cpu_half.push(micros(cpu) / latencies.len() as f64);
            let mut latencies: Vec<f64> = latencies.into_iter().map(micros).collect();
            latencies.sort_by(f64::total_cmp);
            for (share, kept) in [0.5, 0.99, 0.999].into_iter().zip(&mut figures.latencies) {
                kept.push(percentile(&latencies, share));
            }
        }
    }

    let columns =
        ["checks/s", "CPU us/check", "CPU us/check, half load", "p50 us", "p99 us", "p99.9 us"];
    let mut table = Table::new("check", "Check listener against the empty handler", &columns);
    let figures = figures.map(|figures| {
        let [p50, p99, p999] = figures.latencies;
        [figures.per_second, figures.cpu_busy, figures.cpu_half, p50, p99, p999]
    });
    for (contender, figures) in contenders.iter().zip(&figures) {
        table.row(contender.0, &figures.clone().map(|figure| Some(median(figure))));
    }
    let ratio = |(ours, base): (&Vec<f64>, &Vec<f64>)| Some(median_ratio(ours, base));
    let ratios: Vec<_> = figures[1].iter().zip(&figures[0]).map(ratio).collect();
    table.row("ratio", &ratios);
    table.note(format!(
        "Medians of {ROUNDS} interleaved rounds, ratios those within a round; one connection; a \
         CheckRequest of {size} bytes. checks/s and CPU with \
         {UNDER_WAY} requests under way; latency at {rate:.0} evenly spaced checks/s, half of what \
         the slower one can do."
    ));
    table.publish();
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The CPU of a check by how many are under way, against both empty handlers.
pub fn in_flight() {
    let tenantgate = Tenantgate::start("");
    let (multi, multi_address) = start_empty();
    let (single, single_address) = start_single_threaded();
    let message = check_request(PATH, &tenantgate.installation.token(1, TENANTS));
    let requests = checks(&[message]);
    let contenders = [
        (&tenantgate.server, tenantgate.check),
        (&single, single_address),
        (&multi, multi_address),
    ];
    let loads = contenders.map(|(_, address)| {
        let expect = learn(address, &requests);
        Load { address, requests: &requests, expect }
    });
    let columns = [
        "CPU us/check",
        "of empty, one thread",
        "of empty, several",
        "checks/s",
        "of empty, one thread",
        "of empty, several",
    ];
    let mut table = Table::new("in-flight", "Check listener by requests under way", &columns);
    for under_way in [1, 8, 64] {
        let mut cpu = [const { Vec::new() }; 3];
        let mut per_second = [const { Vec::new() }; 3];
        for round in 0..ROUNDS {
            for turn in 0..contenders.len() {
                let at = (turn + round) % contenders.len();
                let before = contenders[at].0.cpu();
                let done = loads[at].closed_loop(under_way, usize::MAX, CLOSED);
                let done = done.expect("a closed-loop round");
                let spent = contenders[at].0.cpu() - before;
                cpu[at].push(micros(spent) / done.completed as f64);
                per_second[at].push(done.per_second());
            }
        }
        let row = [&cpu, &per_second].map(|figures| {
            let ratio = |base: usize| median_ratio(&figures[0], &figures[base]);
            [median(figures[0].clone()), ratio(1), ratio(2)]
        });
        table.row(
            format!("{under_way} under way"),
            &row.concat().into_iter().map(Some).collect::<Vec<_>>(),
        );
    }
    table.note(format!(
        "Medians of {ROUNDS} interleaved rounds, ratios those within a round; one connection, one \
         core. The empty handlers are tonic's, on a `current_thread` and on a multi-thread runtime."
    ));
    table.publish();
}
