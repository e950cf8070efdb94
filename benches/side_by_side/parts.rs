//! Microbenches of one warm decision and of its parts, without gRPC, and how often it allocates.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use divan::{Bencher, Divan, black_box};
use mimalloc::MiMalloc;
use tenantgate::authz::path::CheckedPath;
use tenantgate::authz::{Authorizer, CheckInput, HeaderValue, Headers};
use tenantgate::domain::Holder;
use tenantgate::gate::Gate;
use tenantgate::serve::check;

use super::report::Table;
use super::tokens::each;
use crate::common::{CLIENT, ISSUER, Installation, PATH, TENANTS, check_request};

const CALLS: usize = 400_000;

static COUNTING: AtomicBool = AtomicBool::new(false);
thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The allocator of the server under test, so that the empty handler has the same. Counts only when
/// asked.
struct Counting;

#[expect(unsafe_code, reason = "there is no other way to see allocations")]
// SAFETY: hands everything to that allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(Ordering::Relaxed) {
            ALLOCATIONS.with(|count| count.set(count.get() + 1));
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        unsafe { MiMalloc.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(call: impl FnOnce()) -> f64 {
    let before = ALLOCATIONS.get();
    COUNTING.store(true, Ordering::Relaxed);
    call();
    COUNTING.store(false, Ordering::Relaxed);
    (ALLOCATIONS.get() - before) as f64
}

pub fn run() {
    let (installation, message) = typical();
    let gate = installation.typical_gate();
    check(&gate, message.clone());
    let mut table = Table::new("decision", "A warm decision", &["us", "allocations"]);
    let once = || drop(black_box(check(&gate, black_box(message.clone()))));
    decide(&installation, &gate, |decision| {
        let row = [Some(each(CALLS, decision)), Some(allocations(decision))];
        table.row("the decision alone", &row);
    });
    let row = [Some(each(CALLS, once)), Some(allocations(once))];
    table.row("decoding, metrics and reply included", &row);
    table.note("In process, without gRPC; a token with 3 tenants.");
    table.publish();
    println!("\n## Its parts\n");
    Divan::default().run_benches();
}

fn typical() -> (Installation, Bytes) {
    // Nobody is looked up: the gate is given its grants.
    let installation = Installation::new("127.0.0.1:9", "");
    let message = check_request(PATH, &installation.token(0, TENANTS));
    (installation, message.into())
}

/// Decoding, decision, metrics, and the reply's bytes.
#[divan::bench]
fn warm_check(bencher: Bencher<'_, '_>) {
    let (installation, message) = typical();
    let gate = installation.typical_gate();
    check(&gate, message.clone());
    bencher.bench(|| check(&gate, black_box(message.clone())));
}

struct OneHeader(String);

impl Headers for OneHeader {
    fn get(&self, name: &str) -> HeaderValue<'_> {
        if name == "authorization" {
            HeaderValue::One(self.0.as_bytes())
        } else {
            HeaderValue::Missing
        }
    }
}

/// The decision alone, without the wire's formats.
#[divan::bench]
fn warm_decision(bencher: Bencher<'_, '_>) {
    let (installation, message) = typical();
    let gate = installation.typical_gate();
    check(&gate, message.clone());
    decide(&installation, &gate, |decision| bencher.bench_local(decision));
}

/// Hands over one warm decision, to be made as often as wanted.
fn decide(installation: &Installation, gate: &Gate, with: impl FnOnce(&dyn Fn())) {
    let headers = OneHeader(format!("Bearer {}", installation.token(0, TENANTS)));
    let input =
        CheckInput { profile: None, method: "GET", target: PATH.as_bytes(), headers: &headers };
    let snapshot = gate.snapshot.load();
    let authorizer = Authorizer {
        snapshot: &snapshot,
        cache: &gate.cache,
        grants: &*gate.grants,
        probes: Some(&gate.probes),
        now: gate.clock.moment(),
    };
    assert_eq!(authorizer.decide(&input, &mut ()).denied(), None);
    with(&|| {
        black_box(authorizer.decide(black_box(&input), &mut ()).denied());
    });
}

/// As `warm_check`, refused: the tenant is not in the token.
#[divan::bench]
fn warm_denial(bencher: Bencher<'_, '_>) {
    let (installation, _) = typical();
    let gate = installation.typical_gate();
    let path = PATH.replace("T0", "T9");
    let message = Bytes::from(check_request(&path, &installation.token(0, TENANTS)));
    check(&gate, message.clone());
    bencher.bench(|| check(&gate, black_box(message.clone())));
}

/// A token never seen before, with its signature.
#[divan::bench]
fn cold_check(bencher: Bencher<'_, '_>) {
    let (installation, message) = typical();
    bencher
        .with_inputs(|| installation.typical_gate())
        .bench_values(|gate| check(&gate, black_box(message.clone())));
}

#[divan::bench]
fn path_rule(bencher: Bencher<'_, '_>) {
    bencher.bench(|| CheckedPath::parse(black_box(PATH.as_bytes())).is_ok());
}

#[divan::bench]
fn token_digest(bencher: Bencher<'_, '_>) {
    let (installation, _) = typical();
    let token = installation.token(0, TENANTS);
    let cache = installation.typical_gate().cache;
    bencher.bench(|| cache.digest(black_box(token.as_bytes())));
}

#[divan::bench]
fn tenant_digest(bencher: Bencher<'_, '_>) {
    let (installation, _) = typical();
    let holder = Holder { issuer: ISSUER, client: CLIENT };
    bencher.bench(|| installation.inputs.digester().current(holder, black_box("T0")));
}
