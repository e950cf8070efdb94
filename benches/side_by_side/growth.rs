//! (d) What a check costs, and how much memory the process takes, as an installation grows. Every
//! point is a process of its own, so that its memory is its own too.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tenantgate::authz::Snapshot;
use tenantgate::config::ListenAddress;
use tenantgate::domain::{Client, ClientBook, ClientId, Credential, CredentialDigest, ScopeSet};
use tenantgate::gate::Gate;
use tenantgate::lifecycle::Readiness;
use tenantgate::serve::{
    CheckEdge, CheckServer, Connections, Entrance, Listener, MessageLimits, Patience, check,
    serve_check,
};
use tenantgate::telemetry::Metrics;

use super::checks::{Tenantgate, checks, learn, micros, start_empty};
use super::load::{Expect, Load, Requests};
use super::process::{Server, move_to_server_core, own_resident_mib};
use super::report::{Table, median, median_ratio};
use crate::common::{CLIENT, Installation, PATH, TENANTS, check_request};

/// Rounds at the listener, with requests under way all the time.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(600);
const UNDER_WAY: usize = 64;
/// Batches in process; their median counts.
const BATCHES: usize = 4_000;
const BATCH: usize = 16;
/// Different tokens of a point that is not about tokens.
const FEW_TOKENS: usize = 16;

const RANGES: [(&str, [usize; 4]); 4] = [
    ("clients", [10, 1_000, 100_000, 1_000_000]),
    ("routes", [1, 10, 100, 1_000]),
    (TENANTS_RANGE, [1, 10, 100, 300]),
    ("tokens", [1, 1_000, 100_000, 1_000_000]),
];
/// The one that makes requests longer, for the empty handler too.
const TENANTS_RANGE: &str = "tenants";

pub fn run() {
    let columns =
        ["smallest us", "us", "us ", "largest us", "ratio", "smallest MiB", "largest MiB"];
    let title = "Growth: CPU of a warm check at the listener, and resident memory";
    let mut table = Table::new("growth", title, &columns);
    let title = "Growth: a warm check in process";
    let mut in_process = Table::new("growth_in_process", title, &columns[..5]);
    for (what, sizes) in RANGES {
        let points = sizes.map(|size| Point::start(what, size));
        let name = format!("{what}: {}", sizes.map(|size| size.to_string()).join(", "));
        let mib = [Some(points[0].mib), Some(points[3].mib)];
        let servers = points.each_ref().map(|point| (&point.server, point.address));
        table.row(&name, &[&cpu_of_checks(&points, servers)[..], &mib].concat());
        if what == TENANTS_RANGE {
            let (empty, address) = start_empty();
            let cpu = cpu_of_checks(&points, [(&empty, address); 4]);
            table.row("the same requests, empty handler", &[&cpu[..], &[None, None]].concat());
        }
        let alone = points.each_ref().map(|point| point.in_process);
        let ratio = alone[3] / alone[0];
        in_process.row(name, &[&alone.map(Some)[..], &[Some(ratio)]].concat());
    }
    let tokens = format!("{FEW_TOKENS} tokens in turn where the row is not about tokens");
    table.note(format!(
        "Medians of {ROUNDS} interleaved rounds, ratios those within a round; {UNDER_WAY} requests \
         under way; {tokens}."
    ));
    in_process.note(format!("Without gRPC; decoding and reply included; {tokens}."));
    table.publish();
    in_process.publish();
}

/// CPU microseconds a check of the four points, and the ratio of the last to the first.
fn cpu_of_checks(points: &[Point; 4], servers: [(&Server, SocketAddr); 4]) -> [Option<f64>; 5] {
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for ((point, (server, address)), figures) in points.iter().zip(servers).zip(&mut figures) {
            let requests = &point.requests;
            let expect = learn(address, requests);
            let load = Load { address, requests, expect };
            let before = server.cpu();
            let done = load.closed_loop(UNDER_WAY, usize::MAX, ROUND).expect("a round");
            figures.push(micros(server.cpu() - before) / done.completed as f64);
        }
    }
    let ratio = median_ratio(&figures[3], &figures[0]);
    let [a, b, c, d] = figures.map(median);
    [a, b, c, d, ratio].map(Some)
}

struct Point {
    server: Server,
    address: SocketAddr,
    /// Microseconds of a check in process.
    in_process: f64,
    mib: f64,
    requests: Requests,
}

impl Point {
    fn start(what: &str, size: usize) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = file.path().to_str().expect("a plain path");
        let arguments = [super::GROWTH_POINT, what, &size.to_string(), path];
        let (server, line) = Server::start_self(&arguments);
        let [in_process, mib, address] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("the point {what} {size} says {line:?}");
        };
        Self {
            server,
            address: address.parse().expect("an address"),
            in_process: in_process.parse().expect("a figure"),
            mib: mib.parse().expect("a figure"),
            requests: checks(&unpacked(&fs::read(path).expect("its requests"))),
        }
    }
}

/// One point, in its own process: prints microseconds a check, MiB and the address on which it
/// serves until it is killed, and leaves its requests in a file.
pub fn point(what: &str, size: usize, file: &Path) {
    let of = |range, otherwise| if what == range { size } else { otherwise };
    let routes = (1..of("routes", 1)).fold(String::new(), |mut text, at| {
        let path = format!("/oda/apis/get/reports/kind{at}/tenant/{{tenant}}/devicedistribution");
        let _ =
            writeln!(text, "      - {{ path: '{path}', methods: [GET], scopes: [reports.read] }}");
        text
    });
    let installation = Installation::new("127.0.0.1:9", &routes);
    let metrics = Metrics::new();
    let mut snapshot = installation.snapshot(&metrics);
    snapshot.clients = Some(Arc::new(clients(of("clients", 1))));
    let gate = gate(&installation, snapshot, metrics);
    let (tokens, tenants) = (of("tokens", FEW_TOKENS), of(TENANTS_RANGE, TENANTS));
    let messages = warmed(&installation, &gate, tokens, tenants);
    assert_eq!(gate.cache.len(), tokens, "every token is cached");
    move_to_server_core();
    let in_process = in_process(&gate, &messages);
    fs::write(file, packed(&messages)).expect("the file that the parent made");
    drop(messages);
    serve(gate, in_process);
}

fn in_process(gate: &Gate, messages: &[Vec<u8>]) -> f64 {
    let mut messages = messages.iter().cycle();
    let batch = |_| {
        // A request that comes from a socket is in the CPU's cache; what is remembered may not be.
        let arrived = messages.by_ref().take(BATCH).cloned().map(Bytes::from);
        let arrived: Vec<_> = arrived.collect();
        let started = Instant::now();
        for message in arrived {
            black_box(check(gate, message));
        }
        micros(started.elapsed()) / BATCH as f64
    };
    median((0..BATCHES).map(batch).collect())
}

fn serve(gate: Gate, in_process: f64) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().expect("a thread");
    runtime.block_on(async {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let (listener, bound) = Listener::bind(&address).await.expect("a free port");
        println!("{in_process} {} {bound}", own_resident_mib());
        let server = CheckServer(Arc::new(gate));
        let connections = Connections::new("check", 64, Patience::default(), &Metrics::new());
        let limits = MessageLimits::new(1 << 20, 1 << 26, &Metrics::new());
        let edge = CheckEdge { check: server, limits, readiness: Readiness::default() };
        let entrance = Entrance { listener, tls: None, connections };
        serve_check(entrance, edge, std::future::pending()).await;
    });
}

/// Each message behind its length.
fn packed(messages: &[Vec<u8>]) -> Vec<u8> {
    let framed = |message: &Vec<u8>| [&(message.len() as u32).to_le_bytes(), &message[..]].concat();
    messages.iter().flat_map(framed).collect()
}

fn unpacked(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (message, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        messages.push(message.to_vec());
        bytes = rest;
    }
    messages
}

/// A cache large enough for every token of the range.
fn gate(installation: &Installation, snapshot: Snapshot, metrics: Metrics) -> Gate {
    installation.gate(snapshot, metrics, 2 << 30)
}

/// One check of each of so many tokens; signing and verifying a million of them takes all cores.
/// Keeps the requests of some, spread over all, so that memory shows the cache and not the bench.
fn warmed(installation: &Installation, gate: &Gate, tokens: usize, tenants: usize) -> Vec<Vec<u8>> {
    const KEPT: usize = 20_000;
    let step = tokens.div_ceil(KEPT);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = |start| {
            move || {
                let mut kept = Vec::new();
                for at in (start..tokens).step_by(threads) {
                    let message = check_request(PATH, &installation.token(at, tenants));
                    check(gate, message.clone());
                    if at % step == 0 {
                        kept.push(message);
                    }
                }
                kept
            }
        };
        let workers: Vec<_> = (0..threads).map(|start| scope.spawn(work(start))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    })
}

/// The bench's own client among so many.
fn clients(count: usize) -> ClientBook {
    let client = |id: &str| Client {
        approved: true,
        credentials: vec![Credential {
            digest: CredentialDigest::Sha256(CredentialDigest::sha256_of(id)),
            active: true,
            expires_at: None,
        }],
        scopes: ScopeSet::parse("reports.read").expect("a scope"),
        ..Client::new(ClientId::parse(id).expect("a client id"))
    };
    (1..count).map(|at| client(&format!("client-{at}"))).chain([client(CLIENT)]).collect()
}

const TOKENS_IN_MEMORY: usize = 100_000;
const TENANTS_IN_MEMORY: usize = 10;

/// The memory of the real process: idle, with many cached tokens, and with more than the cache
/// holds.
pub fn memory() {
    let tenantgate = Tenantgate::start("limits: { token_cache_bytes: 67108864 }\n");
    thread::sleep(Duration::from_millis(500));
    let idle = tenantgate.server.resident_mib();
    let message = |at| {
        let token = tenantgate.installation.token(at, TENANTS_IN_MEMORY);
        check_request(PATH, &token)
    };
    let messages: Vec<_> = (0..TOKENS_IN_MEMORY).map(message).collect();
    let requests = checks(&messages);
    let load = Load { address: tenantgate.check, requests: &requests, expect: Expect::Ok };
    load.closed_loop(64, TOKENS_IN_MEMORY, Duration::from_secs(60)).expect("the checks");
    let full = tenantgate.server.resident_mib();

    let mut table = Table::new("memory", "Resident memory of `tenantgate serve`", &["MiB"]);
    table.row("idle", &[Some(idle)]);
    table.row(
        format!("{TOKENS_IN_MEMORY} different tokens of {TENANTS_IN_MEMORY} tenants checked"),
        &[Some(full)],
    );
    table.publish();
}
