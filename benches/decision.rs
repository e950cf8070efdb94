//! Microbenches of one warm decision and of its parts, without gRPC. Prints first how often a warm decision
//! allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use divan::Bencher;
use divan::black_box;
use tenantgate::authz::path::CheckedPath;
use tenantgate::authz::{Authorizer, CheckInput, HeaderValue, Headers};
use tenantgate::domain::Holder;

#[path = "common/mod.rs"]
mod common;

use common::{CLIENT, ISSUER, Installation, PATH, TENANTS, check_request};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what each thread asks for.
struct Counting;

#[expect(unsafe_code, reason = "there is no other way to see allocations")]
// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let (installation, message) = typical();
    let service = installation.typical_service();
    service.check(&message);
    let before = ALLOCATIONS.get();
    black_box(service.check(&message));
    println!(
        "allocations of a warm check, decoding and reply included: {}",
        ALLOCATIONS.get() - before
    );
    divan::main();
}

fn typical() -> (Installation, Vec<u8>) {
    // Nobody is looked up: the service is given its grants.
    let installation = Installation::new("127.0.0.1:9", "");
    let message = check_request(PATH, &installation.token(0, TENANTS));
    (installation, message)
}

/// Decoding, decision, metrics, and the reply's bytes.
#[divan::bench]
fn warm_check(bencher: Bencher<'_, '_>) {
    let (installation, message) = typical();
    let service = installation.typical_service();
    service.check(&message);
    bencher.bench(|| service.check(black_box(&message)));
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
    let service = installation.typical_service();
    service.check(&message);
    let headers = OneHeader(format!("Bearer {}", installation.token(0, TENANTS)));
    let input =
        CheckInput { profile: None, method: "GET", target: PATH.as_bytes(), headers: &headers };
    let snapshot = service.snapshot.load();
    let authorizer = Authorizer {
        snapshot: &snapshot,
        cache: &service.cache,
        grants: &*service.grants,
        probes: &service.probes,
        now: service.clock.now(),
    };
    assert!(authorizer.decide(&input, &mut ()).verdict.is_ok());
    bencher.bench_local(|| authorizer.decide(black_box(&input), &mut ()).verdict.is_ok());
}

/// As `warm_check`, refused: the tenant is not in the token.
#[divan::bench]
fn warm_denial(bencher: Bencher<'_, '_>) {
    let (installation, _) = typical();
    let service = installation.typical_service();
    let path = PATH.replace("T0", "T9");
    let message = check_request(&path, &installation.token(0, TENANTS));
    service.check(&message);
    bencher.bench(|| service.check(black_box(&message)));
}

/// A token never seen before, with its signature.
#[divan::bench]
fn cold_check(bencher: Bencher<'_, '_>) {
    let (installation, message) = typical();
    bencher
        .with_inputs(|| installation.typical_service())
        .bench_values(|service| service.check(black_box(&message)));
}

#[divan::bench]
fn path_rule(bencher: Bencher<'_, '_>) {
    bencher.bench(|| CheckedPath::parse(black_box(PATH.as_bytes())).is_ok());
}

#[divan::bench]
fn token_digest(bencher: Bencher<'_, '_>) {
    let (installation, _) = typical();
    let token = installation.token(0, TENANTS);
    let digest =
        |token: &str| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    bencher.bench(|| digest(black_box(&token)));
}

#[divan::bench]
fn tenant_digest(bencher: Bencher<'_, '_>) {
    let (installation, _) = typical();
    let holder = Holder { issuer: ISSUER, client: CLIENT };
    bencher.bench(|| installation.loaded.digester.current(holder, black_box("T0")));
}
