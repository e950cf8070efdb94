//! Runs as many warm checks as it is told. `instructions.py` counts their instructions with
//! callgrind.

#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;

use bytes::Bytes;
use common::{Installation, PATH, TENANTS, check_request};
use tenantgate::gate::Gate;
use tenantgate::serve::check;

fn main() {
    // Cargo adds `--bench`; without a number, as in `cargo bench`, one check shows that it works.
    let checks = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1);
    let installation = Installation::new("127.0.0.1:9", "");
    let message = Bytes::from(check_request(PATH, &installation.token(0, TENANTS)));
    let gate = installation.typical_gate();
    // The token is verified and remembered.
    black_box(check(&gate, message.clone()));
    counted_checks(&gate, &message, checks);
}

/// Callgrind counts what happens in here, by this name.
#[inline(never)]
fn counted_checks(gate: &Gate, message: &Bytes, checks: usize) {
    for _ in 0..checks {
        black_box(check(gate, black_box(message.clone())));
    }
}
