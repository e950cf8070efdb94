//! Runs as many warm checks as it is told. `instructions.py` counts their instructions with callgrind.

#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;

use common::{Installation, PATH, TENANTS, check_request};
use tenantgate::serve::CheckService;

fn main() {
    // Cargo adds `--bench`; without a number, as in `cargo bench`, one check shows that it works.
    let checks = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1);
    let installation = Installation::new("127.0.0.1:9", "");
    let message = check_request(PATH, &installation.token(0, TENANTS));
    let service = installation.typical_service();
    // The token is verified and remembered.
    black_box(service.check(&message));
    counted_checks(&service, &message, checks);
}

/// Callgrind counts what happens in here, by this name.
#[inline(never)]
fn counted_checks(service: &CheckService, message: &[u8], checks: usize) {
    for _ in 0..checks {
        black_box(service.check(black_box(message)));
    }
}
