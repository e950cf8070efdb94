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
mod tests;
