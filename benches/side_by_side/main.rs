//! `make bench`: tenantgate and what it is held against, side by side in one run. Loopback only.
//!
//! With the name of a section (`checks`, ...) runs only that.

#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "and prints it")]

#[path = "../common/mod.rs"]
mod common;

mod checks;
mod empty;
mod envoy;
mod growth;
mod inside;
mod load;
mod parts;
mod process;
mod provider;
mod report;
mod tokens;

/// The argument that makes this program the empty handler.
pub const EMPTY_HANDLER: &str = "empty-handler";
/// Beside it: on a runtime of one thread.
pub const SINGLE_THREAD: &str = "single-thread";
/// The argument that makes it one point of the growth table.
pub const GROWTH_POINT: &str = "growth-point";
/// The argument that makes it time the bare signature.
pub const BARE_SIGNATURE: &str = "bare-signature";

const SECTIONS: [(&str, fn()); 9] = [
    ("decision", parts::run),
    ("checks", checks::run),
    ("in-flight", checks::in_flight),
    ("envoy", envoy::run),
    ("inside", inside::run),
    ("mints", tokens::mints),
    ("cold", tokens::cold),
    ("growth", growth::run),
    ("memory", growth::memory),
];

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [EMPTY_HANDLER] => empty::serve(false),
        [EMPTY_HANDLER, SINGLE_THREAD] => empty::serve(true),
        [GROWTH_POINT, what, size, file] => {
            growth::point(what, size.parse().expect("a number"), file.as_ref());
        }
        [BARE_SIGNATURE, message] => println!("{}", tokens::bare_signature(message)),
        ref wanted => {
            process::pin_generator();
            sections(wanted);
        }
    }
}

fn sections(wanted: &[&str]) {
    let known = |name: &&&str| SECTIONS.iter().any(|(section, _)| section == *name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        panic!("{unknown} is no section; there are {:?}", SECTIONS.map(|(name, _)| name));
    }
    report::machine("before");
    let before = report::Ticks::now();
    for (name, run) in SECTIONS {
        if wanted.is_empty() || wanted.contains(&name) {
            run();
        }
    }
    report::machine("\nafter");
    let stolen = report::Ticks::now().stolen_since(&before);
    println!("the host took {stolen:.1} % of the processors' time meanwhile");
}
