//! Holds `docs/security.md` to the source: a table that names a test which is gone promises
//! something that nobody checks.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every `file::test` in a text.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter_map(|quoted| quoted.split_once("::"));
    named.filter(|(file, _)| file.ends_with(".rs") || file.ends_with(".py")).collect()
}

fn has_test(source: &str, file: &str, test: &str) -> bool {
    let definition = match file.ends_with(".py") {
        true => format!("\ndef {test}("),
        false => format!("fn {test}("),
    };
    source.contains(&definition)
}

#[test]
fn every_row_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let mut sources: HashMap<&str, String> = HashMap::new();
    for (file, test) in named_tests(&page) {
        let read = || fs::read_to_string(root().join(file)).unwrap_or_default();
        let source = sources.entry(file).or_insert_with(read);
        assert!(has_test(source, file, test), "{file} has no test {test}");
    }
    let rows =
        page.lines().filter(|line| line.starts_with("| ")).filter(|l| !l.contains("| tests |"));
    let mut count = 0;
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert!(!named_tests(tests).is_empty(), "no test in: {row}");
        count += 1;
    }
    assert!(count > 60, "only {count} rows were read");
}

#[test]
fn what_is_missing_is_found() {
    assert_eq!(named_tests("| a | `b` | `x.rs::t`, `y.py::u` |"), [("x.rs", "t"), ("y.py", "u")]);
    assert!(!has_test("fn other() {}", "x.rs", "t") && has_test("async fn t() {}", "x.rs", "t"));
    assert!(!has_test("\ndef tt():", "y.py", "t") && has_test("\ndef t(world):", "y.py", "t"));
}
