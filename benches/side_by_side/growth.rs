//! (d) What a check costs, and how much memory the process takes, as an installation grows. Every point
//! is measured in a process of its own, so that its memory is its own too.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tenantgate::authz::Snapshot;
use tenantgate::domain::{
    Attributes, Client, ClientBook, ClientId, Credential, CredentialDigest, ScopeSet,
};
use tenantgate::serve::CheckService;
use tenantgate::telemetry::Metrics;

use super::checks::{Tenantgate, checks, micros};
use super::load::{Expect, Load};
use super::process::{output_of, own_resident_mib};
use super::report::{Table, median};
use crate::common::{CLIENT, Installation, PATH, TENANTS, check_request};

/// Batches of a point; their median counts.
const BATCHES: usize = 4_000;
const BATCH: usize = 16;
/// Different tokens of a point that is not about tokens.
const FEW_TOKENS: usize = 16;

const RANGES: [(&str, &[usize]); 4] = [
    ("clients", &[10, 1_000, 100_000, 1_000_000]),
    ("routes", &[1, 10, 100, 1_000]),
    ("tenants", &[1, 10, 100, 300]),
    ("tokens", &[1, 1_000, 100_000, 1_000_000]),
];

pub fn run() {
    let columns =
        ["smallest us", "us", "us ", "largest us", "ratio", "smallest MiB", "largest MiB"];
    let mut table =
        Table::new("growth", "Growth: CPU of a warm check, and resident memory", &columns);
    for (what, sizes) in RANGES {
        let points: Vec<Point> = sizes.iter().map(|size| Point::of_child(what, *size)).collect();
        let (first, last) = (&points[0], &points[points.len() - 1]);
        let mut figures: Vec<_> = points.iter().map(|point| Some(point.micros)).collect();
        figures.push(Some(last.micros / first.micros));
        figures.extend([Some(first.mib), Some(last.mib)]);
        let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
        table.row(format!("{what}: {}", sizes.join(", ")), &figures);
    }
    table.note("In process, without gRPC, decoding and reply included; 16 tokens in turn where the row is not about tokens.");
    table.publish();
}

struct Point {
    micros: f64,
    mib: f64,
}

impl Point {
    fn of_child(what: &str, size: usize) -> Self {
        let this = std::env::current_exe().expect("the program's own path");
        let printed = output_of(&this, &[super::GROWTH_POINT, what, &size.to_string()]);
        let mut figures =
            printed.split_whitespace().map(|figure| figure.parse().expect("a figure"));
        let mut next = || figures.next().expect("two figures");
        Self { micros: next(), mib: next() }
    }
}

/// One point, in its own process: prints microseconds a check and MiB.
pub fn point(what: &str, size: usize) {
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
    let service = service(&installation, snapshot, metrics);
    let (tokens, tenants) = (of("tokens", FEW_TOKENS), of("tenants", TENANTS));
    let messages = warmed(&installation, &service, tokens, tenants);
    assert_eq!(service.cache.len(), tokens, "every token is cached");
    let mut messages = messages.iter().cycle();
    let batch = |_| {
        // A request that comes from a socket is in the CPU's cache; what is remembered may not be.
        let arrived: Vec<Vec<u8>> = messages.by_ref().take(BATCH).cloned().collect();
        let started = Instant::now();
        for message in &arrived {
            black_box(service.check(message));
        }
        micros(started.elapsed()) / BATCH as f64
    };
    println!("{} {}", median((0..BATCHES).map(batch).collect()), own_resident_mib());
}

/// A cache large enough for every token of the range.
fn service(installation: &Installation, snapshot: Snapshot, metrics: Metrics) -> CheckService {
    installation.service(snapshot, metrics, 2 << 30)
}

/// One check of each of so many tokens; signing and verifying a million of them takes all cores. Keeps
/// the requests of some, spread over all, so that memory shows the cache and not the bench.
fn warmed(
    installation: &Installation,
    service: &CheckService,
    tokens: usize,
    tenants: usize,
) -> Vec<Vec<u8>> {
    const KEPT: usize = 20_000;
    let step = tokens.div_ceil(KEPT);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = |start| {
            move || {
                let mut kept = Vec::new();
                for at in (start..tokens).step_by(threads) {
                    let message = check_request(PATH, &installation.token(at, tenants));
                    service.check(&message);
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
        id: ClientId::parse(id).expect("a client id"),
        approved: true,
        developer_active: true,
        credentials: vec![Credential {
            digest: CredentialDigest::Sha256(CredentialDigest::sha256_of(id)),
            active: true,
            expires_at: None,
        }],
        scopes: ScopeSet::parse("reports.read").expect("a scope"),
        static_grants: None,
        token_ttl: None,
        apis: None,
        attributes: Attributes::new(),
    };
    (1..count).map(|at| client(&format!("client-{at}"))).chain([client(CLIENT)]).collect()
}

const TOKENS_IN_MEMORY: usize = 100_000;
const TENANTS_IN_MEMORY: usize = 10;

/// The memory of the real process: idle, with many cached tokens, and with more than the cache holds.
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
