//! What `fuzz_targets/` runs; `tests/it/` holds the rest.

pub mod targets;
#[path = "../tests/support/world.rs"]
pub mod world;
