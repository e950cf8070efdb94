//! The lines that field paths such as `apis[0].routes[1].path` name. Values lose their lines when
//! they are read, so that a text with problems is walked a second time to tell them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScanError};

use super::Problem;

/// Appends `(FILE:LINE)` to every problem with a field of `file`.
pub(crate) fn place(mut problems: Vec<Problem>, file: &Path) -> Vec<Problem> {
    let shown = file.display().to_string();
    let Ok(text) = std::fs::read_to_string(file) else { return problems };
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let lines = lines_of(&text, &fields);
    for (problem, line) in problems.iter_mut().zip(lines) {
        // A problem of the text as a whole names the file already.
        if let Some(line) = line
            && !problem.field.starts_with(&shown)
        {
            let _ = write!(problem.message, " ({shown}:{line})");
        }
    }
    problems
}

/// For each field the line of its key or list item, or of the nearest one around it that is there.
/// All are `None` in a text that is not YAML.
fn lines_of(text: &str, fields: &[&str]) -> Vec<Option<usize>> {
    let mut lines: HashMap<&str, Option<usize>> =
        fields.iter().flat_map(|field| around(field)).map(|path| (path, None)).collect();
    if walk(text, &mut lines).is_err() {
        return vec![None; fields.len()];
    }
    let nearest = |field: &&str| around(field).find_map(|path| lines[path]);
    fields.iter().map(nearest).collect()
}

/// A field path and those of everything around it, the innermost first, the document (empty) last.
fn around(field: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(field), |path| {
        (!path.is_empty()).then(|| &path[..path.rfind(['.', '[']).unwrap_or(0)])
    })
}

/// A list or mapping that is open.
struct Open {
    /// The length of its own path.
    path: usize,
    kind: Kind,
}

enum Kind {
    List { next: usize },
    Mapping { key_read: bool },
}

/// Fills in the lines of the paths that are there.
fn walk(text: &str, lines: &mut HashMap<&str, Option<usize>>) -> Result<(), ScanError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut path = String::new();
    let mut open: Vec<Open> = Vec::new();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next?;
        if matches!(event, Event::SequenceEnd | Event::MappingEnd) {
            open.pop();
        }
        if !event.is_node() {
            continue;
        }
        match open.last_mut() {
            None => {}
            Some(Open { path: own, kind: Kind::List { next } }) => {
                path.truncate(*own);
                let _ = write!(path, "[{next}]");
                *next += 1;
            }
            // The path was set at the key.
            Some(Open { kind: Kind::Mapping { key_read: key_read @ true }, .. }) => {
                *key_read = false;
            }
            Some(Open { path: own, kind: Kind::Mapping { key_read } }) => {
                // No file of ours has keys that are not plain text.
                let Some((key, _)) = event.scalar() else { return Ok(()) };
                path.truncate(*own);
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                *key_read = true;
            }
        }
        if let Some(line) = lines.get_mut(path.as_str()) {
            line.get_or_insert(span.start.line());
        }
        let kind = match event {
            Event::SequenceStart(..) => Kind::List { next: 0 },
            Event::MappingStart(..) => Kind::Mapping { key_read: false },
            _ => continue,
        };
        open.push(Open { path: path.len(), kind });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# The gate.
issuer:
  # How long.
  token_ttl: soon
apis:
  - name: oda   # the first
    routes:
      - path: /a
      - methods: [GET,
          POST]
        path: /b
  - { name: other,
      'routes': [
        { path: /c }, { \"path\": /d,
          public: 5 } ] }
last: 1
";

    fn line_of(text: &str, field: &str) -> Option<usize> {
        lines_of(text, &[field])[0]
    }

    #[test]
    fn a_field_is_found_where_its_key_or_item_stands() {
        for (field, line) in [
            ("issuer", 2),
            ("issuer.token_ttl", 4),
            ("apis", 5),
            ("apis[0]", 6),
            ("apis[0].routes[0].path", 8),
            ("apis[0].routes[1]", 9),
            ("apis[0].routes[1].methods[1]", 10),
            ("apis[0].routes[1].path", 11),
            ("apis[1].name", 12),
            ("apis[1].routes", 13),
            ("apis[1].routes[1].path", 14),
            ("apis[1].routes[1].public", 15),
            ("last", 16),
        ] {
            assert_eq!(line_of(TEXT, field), Some(line), "{field}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_told_by_what_is_around_it() {
        for (field, line) in [
            ("listen", 2),
            ("issuer.tenant_claim.form", 2),
            ("apis[0].routes[0].methods", 8),
            ("apis[7].name", 5),
            ("last.deeper", 16),
        ] {
            assert_eq!(line_of(TEXT, field), Some(line), "{field}");
        }
    }

    #[test]
    fn several_fields_are_found_at_once_in_their_order() {
        let fields = ["last", "apis[0].name", "last"];
        assert_eq!(lines_of(TEXT, &fields), [Some(16), Some(6), Some(16)]);
    }

    #[test]
    fn what_stands_behind_an_alias_is_told_by_the_alias() {
        let text = "a: &x { b: 1 }\nc: *x\nd: [*x,\n  { e: &y 5 }]\n";
        let fields = ["a.b", "c.b", "d[0].b", "d[1].e"];
        assert_eq!(lines_of(text, &fields), [Some(1), Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn what_is_not_yaml_has_no_lines() {
        for text in ["", "# nothing", "a: [", "a: 1\n b: {", "\"\\q", "\0", "*x", "a: *x"] {
            assert_eq!(line_of(text, "b.c[0]"), None, "{text:?}");
        }
    }

    #[test]
    fn odd_keys_and_fields_do_no_harm() {
        for text in ["? [a]\n: b\nc: 1", "{ {a: 1}: 2 }", "a.b: 1\n\"[\": 2", "[[], [[]]]"] {
            for field in ["", "a.b", "[", "[0].x", "..", "ä[", "]"] {
                assert!(line_of(text, field).is_some(), "{text:?} {field}");
            }
        }
    }
}
