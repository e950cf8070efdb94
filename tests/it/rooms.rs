//! Holds `src/` to the table of rooms in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const HEADER: &str = "| room | holds | may use | must never name |";

struct Room {
    may_use: BTreeSet<String>,
    never_names: BTreeSet<String>,
}

type Table = BTreeMap<String, Room>;

/// The words in backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn parse_table(markdown: &str) -> Table {
    let after_header = markdown.split_once(HEADER).expect("the table of rooms").1;
    let rows = after_header.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [room, _holds, may_use, never_names] = cells[..] else { panic!("{row}") };
        let room = quoted(room).pop_first().expect(row);
        (room, Room { may_use: quoted(may_use), never_names: quoted(never_names) })
    })
    .collect()
}

/// The identifiers that follow `prefix`, such as the rooms after `crate::`.
fn names_after(source: &str, prefix: &str) -> BTreeSet<String> {
    let name = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_alphanumeric() || "_{*".contains(*c)).collect()
    };
    source.split(prefix).skip(1).map(name).collect()
}

/// Whether a path in `source` begins with this crate's name.
fn names_crate(source: &str, name: &str) -> bool {
    let path = format!("{name}::");
    source.match_indices(&path).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// Tests may start servers and runtimes that their room must not know; of other rooms they may
/// know no more than it does.
fn without_tests<'a>(file: &Path, source: &'a str) -> &'a str {
    let is_test = |part: &str| matches!(part, "tests" | "tests.rs" | "testing.rs");
    if file.iter().any(|part| part.to_str().is_some_and(is_test)) {
        return "";
    }
    source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

fn violations(room: &str, file: &Path, source: &str, table: &Table) -> Vec<String> {
    let shown = file.display();
    let Some(rules) = table.get(room) else {
        return vec![format!("{shown}: the room `{room}` is not in ARCHITECTURE.md; add a row")];
    };
    let mut used = names_after(source, "crate::");
    used.extend(names_after(source, "tenantgate::"));
    used.remove(room);
    let mut found = Vec::new();
    for other in used.difference(&rules.may_use) {
        found.push(format!("{shown}: `{room}` may not use `{other}`"));
    }
    for name in &rules.never_names {
        if names_crate(without_tests(file, source), name) {
            found.push(format!("{shown}: `{room}` must never name `{name}`"));
        }
    }
    found
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The room that a file belongs to: its folder below `src/`, or its name there.
fn room_of(file: &Path) -> String {
    let first = file.iter().next().unwrap();
    Path::new(first).file_stem().unwrap().to_str().unwrap().to_owned()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn architecture() -> Table {
    parse_table(&fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap())
}

/// Every source file below `src/` with its text, but for lib.rs, which names all rooms.
fn sources() -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        (file.strip_prefix(&src).unwrap().to_owned(), text)
    };
    let files = source_files(&src).into_iter().map(read);
    files.filter(|(file, _)| file != Path::new("lib.rs")).collect()
}

#[test]
fn every_room_keeps_to_its_row() {
    let table = architecture();
    let check = |(file, text): &(PathBuf, String)| violations(&room_of(file), file, text, &table);
    let found: Vec<String> = sources().iter().flat_map(check).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_row_is_a_room() {
    let rooms: BTreeSet<String> = sources().iter().map(|(file, _)| room_of(file)).collect();
    let rows: BTreeSet<String> = architecture().into_keys().collect();
    assert_eq!(rows, rooms);
}

#[test]
fn only_the_check_edge_knows_envoys_types() {
    let knows = |(_, text): &(PathBuf, String)| names_crate(text, "envoy_types");
    let files: Vec<PathBuf> = sources().into_iter().filter(knows).map(|(file, _)| file).collect();
    assert!(!files.is_empty());
    for file in files {
        assert!(file.starts_with("serve/check"), "{}", file.display());
    }
}

#[test]
fn what_breaks_a_rule_is_found() {
    let table = parse_table(&format!(
        "{HEADER}\n|---|---|---|---|\n| `authz` | deciding | `domain` | `tokio` |\n\nend"
    ));
    let found = |file: &str, source: &str| violations("authz", Path::new(file), source, &table);
    let good = "use crate::domain::Clock;\nuse crate::authz::Facts;\nuse my_tokio::x;";
    assert_eq!(found("authz/a.rs", good), [""; 0]);
    let in_test = "use crate::domain::Clock;\n#[cfg(test)]\nmod tests {\n use tokio::spawn;\n}";
    assert_eq!(found("authz/a.rs", in_test), [""; 0]);
    for bad in [
        "use crate::grants::Tenants;",
        "use crate::{domain, tenants};",
        "fn f() -> crate::serve::Bound {}",
        "use tokio::sync::Mutex;",
        "fn f() { tokio::spawn(g()) }",
        "#[cfg(test)]\nmod tests {\n use crate::grants::Tenants;\n}",
    ] {
        assert_eq!(found("authz/a.rs", bad).len(), 1, "{bad}");
    }
    assert_eq!(violations("new", Path::new("new.rs"), good, &table).len(), 1);
}
