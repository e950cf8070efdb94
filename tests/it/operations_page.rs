//! Holds `docs/operations.md` to the code: whatever a log line or a metric calls a cause has a row
//! there with its cure.

use std::fs;
use std::path::Path;

use tenantgate::domain::DenyReason;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The first cells of the tables between a text and the next heading or table head.
fn rows<'p>(page: &'p str, after: &str) -> Vec<&'p str> {
    let (_, rest) = page.split_once(after).unwrap_or_else(|| panic!("no {after:?}"));
    let table = rest.split_once("\n|---").map_or("", |(_, table)| table);
    let lines = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    lines
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect()
}

/// The names that a function of an enum gives to its variants.
fn names(source: &str, after: &str) -> Vec<String> {
    let (_, rest) = source.split_once(after).unwrap_or_else(|| panic!("no {after:?}"));
    let body = rest.split_once("\n    }\n").map_or(rest, |(body, _)| body);
    let arms = body.split("=> \"").skip(1);
    arms.map(|arm| arm.split('"').next().unwrap_or_default().to_owned()).collect()
}

fn check(mut named: Vec<String>, rows: &[&str]) {
    named.sort_unstable();
    named.dedup();
    let mut shown: Vec<&str> = rows.to_vec();
    shown.sort_unstable();
    assert!(named.len() > 4, "only {named:?} were read");
    assert_eq!(named, shown, "left: the code, right: docs/operations.md");
}

#[test]
fn every_denial_reason_has_its_cure() {
    let page = read("docs/operations.md");
    let named = DenyReason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    check(named, &rows(&page, "\n## Denial reasons\n"));
}

#[test]
fn every_outcome_has_its_cure() {
    let page = read("docs/operations.md");
    let also = |more: &[&str], names: Vec<String>| {
        names.into_iter().chain(more.iter().map(|&name| name.to_owned())).collect()
    };
    let code = |file: &str, function: &str| names(&read(file), function);
    let of = |after: &str| rows(&page, after);
    check(
        also(&["issued"], code("src/token/error.rs", "fn code(self)")),
        &of("\n## Token requests\n"),
    );
    check(
        code("src/token/refusal.rs", "fn as_str(self)"),
        &of("\nOnly the log has the `cause`:\n"),
    );
    let lookup = read("src/lookup/unavailable.rs");
    let (outcomes, token) = lookup.split_once("pub enum CalloutTokenError").unwrap();
    check(
        also(&["granted", "denied"], names(outcomes, "fn as_str(&self)")),
        &of("\n## Lookup outcomes\n"),
    );
    check(
        also(&["issued"], names(token, "fn as_str(&self)")),
        &of("\nOutcomes of `tenantgate_callout_token_requests_total`"),
    );
    check(
        also(&["ok"], code("src/keys/remote.rs", "fn outcome(&self)")),
        &of("\nOutcomes of `tenantgate_jwks_refreshes_total`"),
    );
}

#[test]
fn what_is_missing_is_found() {
    let page =
        "\n## A\n\n| x | y |\n|---|---|\n| `a` | 1 |\n| `b` | 2 |\n\n| z |\n|---|\n| `c` |\n";
    assert_eq!(rows(page, "\n## A\n"), ["a", "b"]);
    assert_eq!(
        names("fn f() {\n A => \"a\",\n B | C => \"b\",\n    }\n D => \"d\"", "fn f"),
        ["a", "b"]
    );
}
