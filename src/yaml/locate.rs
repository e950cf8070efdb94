//! The places that field paths such as `apis[0].routes[1].path` name. Values lose their
//! places when they are read, so that a text with problems is walked a second time to tell them.

use std::collections::HashMap;
use std::fmt::Write as _;
#[cfg(feature = "lookup")]
use std::path::Path;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScanError};

use crate::domain::Problem;

/// Appends `(FILE:LINE:COLUMN)` to every problem with a field of `file`.
#[cfg(feature = "lookup")]
pub fn place(problems: Vec<Problem>, file: &Path) -> Vec<Problem> {
    match std::fs::read_to_string(file) {
        Ok(text) => place_in(problems, &file.display().to_string(), &text),
        Err(_) => problems,
    }
}

/// The same for a file that has been read.
pub fn place_in(mut problems: Vec<Problem>, file: &str, text: &str) -> Vec<Problem> {
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let places = places_of(text, &fields);
    for (problem, place) in problems.iter_mut().zip(places) {
        // A problem of the text as a whole names the file already.
        if let Some((line, column)) = place
            && !problem.field.starts_with(file)
        {
            let _ = write!(problem.message, " ({file}:{line}:{column})");
        }
    }
    problems
}

/// Line and column, from 1.
type Spot = (usize, usize);

/// For each field the spot of its key or list item, or of the nearest one around it that is there.
/// All are `None` in a text that is not YAML.
fn places_of(text: &str, fields: &[&str]) -> Vec<Option<Spot>> {
    let mut spots: HashMap<&str, Option<Spot>> =
        fields.iter().flat_map(|field| around(field)).map(|path| (path, None)).collect();
    if walk(text, &mut spots).is_err() {
        return vec![None; fields.len()];
    }
    let nearest = |field: &&str| around(field).find_map(|path| spots[path]);
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

/// Fills in the spots of the paths that are there.
fn walk(text: &str, spots: &mut HashMap<&str, Option<Spot>>) -> Result<(), ScanError> {
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
        if let Some(spot) = spots.get_mut(path.as_str()) {
            spot.get_or_insert((span.start.line(), span.start.col() + 1));
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
