//! What `fuzz_targets/` runs; `tests/it/` holds the rest.

pub mod targets;
#[path = "../tests/it/world.rs"]
pub mod world;
