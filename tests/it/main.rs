mod agreement;
mod app;
mod fuzz_replay;
mod mint_limits;
mod redaction;
mod reference;
mod rooms;
mod security_table;
mod state;
#[path = "../../fuzz/targets.rs"]
mod targets;
mod world;
