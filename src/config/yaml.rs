//! YAML text -> a raw type, with every problem of the text at once. A value that does not fit
//! the schema becomes null and an unknown key is dropped, so that the rest can be read and
//! its problems be reported too.

use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::Problem;
use super::schema::{self, Rest, Step};

/// What could be read, and what was wrong with the rest.
pub struct Checked<T> {
    /// `None`: not even the outline could be read. Where `T` has only optional fields, broken
    /// values are `None` in it.
    pub value: Option<T>,
    /// The document as written.
    pub document: Value,
    pub problems: Vec<Problem>,
}

/// Reads and checks a whole file.
pub fn read<T: DeserializeOwned + JsonSchema>(path: &Path) -> Result<T, Vec<Problem>> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| vec![unreadable(&file, &error)])?;
    parse(&file, &text)
}

/// `file` is the name that problems show where no field can be named.
pub fn parse<T: DeserializeOwned + JsonSchema>(file: &str, text: &str) -> Result<T, Vec<Problem>> {
    match check(file, text) {
        Checked { value: Some(value), problems, .. } if problems.is_empty() => Ok(value),
        Checked { problems, .. } => Err(problems),
    }
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
    // Of a document that is no mapping there is nothing more to say.
    let value = match document {
        Value::Object(_) => deserialize(file, &mut rest, &mut problems),
        _ => None,
    };
    Checked { value, document, problems }
}

fn problem_at(file: &str, path: &[Step], message: String) -> Problem {
    let field = if path.is_empty() { file.to_owned() } else { schema::field(path) };
    Problem { field, message }
}

fn not_yaml(file: &str, error: &serde_saphyr::Error) -> Problem {
    let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column()));
    let (wrong, cure) = match error {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map(|key| format!(" `{key}`")).unwrap_or_default();
            (format!("the key{key} stands here a second time"), "keep one of them")
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
        let path: Vec<Step> = error.path().iter().filter_map(step).collect();
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

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// Whether anything changed.
fn cut(document: &mut Value, path: &[Step], rest: Rest) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
    let holder = way.iter().try_fold(document, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    });
    match (holder, last, rest) {
        (Some(Value::Object(object)), Step::Key(key), Rest::UnknownKey) => {
            object.remove(key).is_some()
        }
        (Some(holder), last, Rest::Broken) => {
            let value = match last {
                Step::Key(key) => holder.get_mut(key),
                Step::Index(index) => holder.get_mut(index),
            };
            value.is_some_and(|value| !std::mem::take(value).is_null())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    #[schemars(extend("required" = ["name"]))]
    struct Garden {
        /// The name over the gate. Nobody reads on.
        name: Option<String>,
        size: Option<u8>,
        beds: Option<Vec<Option<Bed>>>,
        watering: Option<Watering>,
        labels: Option<BTreeMap<String, Option<Label>>>,
    }

    #[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Bed {
        plants: Option<u32>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        /// To eat.
        Vegetables,
        /// To look at.
        Flowers,
    }

    #[derive(Debug, Deserialize, Serialize, JsonSchema)]
    #[serde(untagged)]
    enum Watering {
        Never(Never),
        Planned(Bed),
    }

    #[derive(Debug, Deserialize, Serialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Never {
        Never,
    }

    #[derive(Debug, Deserialize, Serialize, JsonSchema)]
    #[serde(untagged)]
    enum Label {
        Text(String),
        Long(Bed),
    }

    fn lines(text: &str) -> Vec<String> {
        let problems = check::<Garden>("garden.yaml", text).problems;
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_fits_is_read() {
        let garden: Garden =
            parse("g", "name: a\nbeds: [{kind: flowers}]\nwatering: never").unwrap();
        assert_eq!(garden.beds.unwrap()[0].as_ref().unwrap().kind, Some(Kind::Flowers));
        assert!(matches!(garden.watering, Some(Watering::Never(Never::Never))));
    }

    #[test]
    fn each_kind_of_problem_names_its_field_and_the_cure() {
        for (text, line) in [
            ("name: a\nsizes: 1", "sizes: unknown key; did you mean `size`?"),
            ("size: 1", "name: missing; add it: The name over the gate"),
            ("name: 5", "name: must be a text; this is a number"),
            ("name:", "name: empty; give a text, or remove the key"),
            ("name: a\nbeds: {}", "beds: must be a list; this is a mapping"),
            (
                "name: a\nbeds: [{plants: many}]",
                "beds[0].plants: must be a whole number, at least 0; this is another text",
            ),
            (
                "name: a\nbeds: [{kind: flower}]",
                "beds[0].kind: must be `vegetables` or `flowers`; did you mean `flowers`?",
            ),
            (
                "name: a\nwatering: nevr",
                "watering: must be `never` or a mapping (key: value); did you mean `never`?",
            ),
            (
                "name: a\nwatering: {plants: []}",
                "watering.plants: must be a whole number, at least 0; this is a list",
            ),
            (
                "name: a\nwatering: {when: 5}",
                "watering.when: unknown key; remove it, known here are `kind`, `plants`",
            ),
            (
                "name: a\nlabels: {x: 5}",
                "labels.x: must be a text or a mapping (key: value); this is a number",
            ),
            (
                "name: a\nsize: 70000",
                "size: must be a whole number from 0 to 255; this is a number",
            ),
            ("name: a\nsize: 5.0", "size: out of range or of the wrong kind; correct it"),
            ("[]", "garden.yaml: must be a mapping (key: value); this is a list"),
            ("- name: a", "garden.yaml: must be a mapping (key: value); this is a list"),
            ("5", "garden.yaml: must be a mapping (key: value); this is a number"),
            ("", "garden.yaml: empty; give a mapping (key: value), or remove the key"),
        ] {
            assert_eq!(lines(text), [line], "{text}");
        }
    }

    #[test]
    fn text_that_is_not_yaml_is_told_with_line_and_column() {
        let twice = lines("name: a\nsize: 1\nname: b");
        assert_eq!(
            twice,
            ["garden.yaml:3:1: the key `name` stands here a second time; keep one of them"]
        );
        let broken = lines("name: [a\nsize: 1");
        assert_eq!(broken.len(), 1);
        assert!(broken[0].starts_with("garden.yaml:2:"), "{broken:?}");
    }

    #[test]
    fn the_sound_parts_of_a_broken_text_are_read() {
        let text = "nam: a\nbeds: [5, {plants: x, kind: flowers}]\nwatering: {plants: 3}";
        let checked = check::<Garden>("g", text);
        assert_eq!(checked.problems.len(), 4);
        let garden = checked.value.unwrap();
        let beds = garden.beds.unwrap();
        assert!(beds[0].is_none());
        assert_eq!(beds[1].as_ref().unwrap().kind, Some(Kind::Flowers));
        assert!(matches!(garden.watering, Some(Watering::Planned(Bed { plants: Some(3), .. }))));
    }

    #[test]
    fn values_never_show() {
        let texts = [
            "name: a\nbeds: [{kind: hunter2}]",
            "name: a\nbeds: hunter2",
            "name: [hunter2\nb: c",
            "name: a\nbeds: [{plants: hunter2, watering: \"hunter2\"}]",
            "name: \"hunter2\\q\"",
        ];
        for text in texts {
            let lines = lines(text).join("\n");
            assert!(!lines.is_empty() && !lines.contains("hunter2"), "{lines}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem() {
        let problems = read::<Garden>(Path::new("/nowhere/garden.yaml")).unwrap_err();
        assert_eq!(problems[0].field, "/nowhere/garden.yaml");
    }
}
