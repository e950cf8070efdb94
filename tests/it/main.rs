#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests are outside of #[test]"
)]

mod agreement;
mod app;
mod fuzz_replay;
mod mint_limits;
mod operations_page;
#[path = "../support/provider.rs"]
#[expect(dead_code, reason = "the lookups' tests in src/ use all of it")]
mod provider;
mod redaction;
mod reference;
mod rooms;
mod security_table;
mod state;
#[path = "../../fuzz/targets.rs"]
mod targets;
mod wish;
#[path = "../support/world.rs"]
mod world;
