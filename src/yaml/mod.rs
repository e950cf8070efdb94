//! YAML text -> a raw type, with every problem of the text at once. A value that does not fit
//! the schema becomes null and an unknown key is dropped, so that the rest can be read and
//! its problems be reported too.

#[cfg(feature = "cli")]
pub mod docs;
mod field;
pub mod locate;
pub mod schema;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

pub use field::Field;

use self::schema::{PathStep, Rest};
use crate::domain::Problem;

/// What could be read, and what was wrong with the rest.
pub struct Checked<T> {
    /// `None`: not even the outline could be read, which is so only where a `T` needs more than
    /// [`Field`]s. Broken values are [`Field::Broken`] in it.
    pub value: Option<T>,
    /// The document as written.
    pub document: Value,
    pub problems: Vec<Problem>,
}

pub fn unreadable(field: &str, error: &std::io::Error) -> Problem {
    Problem::new(field, format!("cannot be read ({error})"), "correct the path or its permissions")
}

pub fn check<T: DeserializeOwned + JsonSchema>(file: &str, text: &str) -> Checked<T> {
    let options = serde_saphyr::options! {
        // `no` and `off` stay text: only `true` and `false` are what they look like.
        strict_booleans: true,
        // Its size is the operator's own business: a registry may hold a million clients.
        budget: None,
    };
    let document: Value = match serde_saphyr::from_str_with_options(text, options) {
        Ok(document) => document,
        Err(error) => {
            let problems = vec![not_yaml(file, error.without_snippet())];
            return Checked { value: None, document: Value::Null, problems };
        }
    };
    let mut problems = Vec::new();
    let mut rest = document.clone();
    for finding in schema::findings(&schema::of::<T>(), &document) {
        cut(&mut rest, &finding.path, finding.rest);
        problems.push(problem_at(file, &finding.path, finding.message));
    }
    // Of a document that is not a mapping there is nothing more to say.
    let value = match document {
        Value::Object(_) => deserialize(file, &mut rest, &mut problems),
        _ => None,
    };
    Checked { value, document, problems }
}

fn problem_at(file: &str, path: &[PathStep], message: String) -> Problem {
    let field = if path.is_empty() { file.to_owned() } else { schema::field(path) };
    Problem { field, message }
}

fn not_yaml(file: &str, error: &serde_saphyr::Error) -> Problem {
    let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column()));
    let (wrong, cure) = match error {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map(|key| format!(" `{key}`")).unwrap_or_default();
            (format!("the key{key} appears a second time"), "keep one of them")
        }
        _ => {
            let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            (
                format!("not valid YAML: {}", text.replace('\n', " ")),
                "correct this line or the one before it",
            )
        }
    };
    Problem::new(format!("{file}{}", place.unwrap_or_default()), wrong, cure)
}

/// What a schema cannot say (a number too large for its type, say) is found here, one at a time.
fn deserialize<T: DeserializeOwned>(
    file: &str,
    document: &mut Value,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    loop {
        let error = match serde_path_to_error::deserialize(&*document) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let path: Vec<PathStep> = error.path().iter().filter_map(step).collect();
        if !cut(document, &path, Rest::Broken) {
            // A missing or broken value that `T` cannot do without has been reported by its schema.
            if problems.is_empty() {
                let message = format!("cannot be read ({}); correct it", error.inner());
                problems.push(problem_at(file, &path, message));
            }
            return None;
        }
        problems.push(problem_at(
            file,
            &path,
            "out of range or of the wrong kind; correct it".to_owned(),
        ));
    }
}

fn step(segment: &Segment) -> Option<PathStep> {
    match segment {
        Segment::Seq { index } => Some(PathStep::Index(*index)),
        Segment::Map { key } => Some(PathStep::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// Whether anything changed.
fn cut(document: &mut Value, path: &[PathStep], rest: Rest) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
    let holder = way.iter().try_fold(document, |value, step| match step {
        PathStep::Key(key) => value.get_mut(key),
        PathStep::Index(index) => value.get_mut(index),
    });
    match (holder, last, rest) {
        (Some(Value::Object(object)), PathStep::Key(key), Rest::UnknownKey) => {
            object.remove(key).is_some()
        }
        (Some(holder), last, Rest::Broken) => {
            let value = match last {
                PathStep::Key(key) => holder.get_mut(key),
                PathStep::Index(index) => holder.get_mut(index),
            };
            value.is_some_and(|value| !std::mem::take(value).is_null())
        }
        _ => false,
    }
}

#[cfg(test)]
pub mod tests;
