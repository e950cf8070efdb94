//! JSON Schema out of the raw types, and its validator's errors as problems for people.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// The schema that editors use and that every file is held against.
pub fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .with_transform(RecursiveTransform(without_null))
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The raw types are full of `Option`, because a broken value becomes `None`; a file must not
/// say `null` for all that.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    let is_null = |value: &Value| value == "null" || value["type"] == "null";
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(options)) = object.get_mut("enum") {
        options.retain(|option| !option.is_null());
    }
    if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
        branches.retain(|branch| !is_null(branch));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
    // A section's default is what its keys say.
    if object.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
        object.remove("default");
    }
}

/// One place in a document: keys and indices from the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// `apis[0].routes[1].path`
pub fn field(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}

/// What is left of the value at the place of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The key is not known.
    UnknownKey,
    Missing,
    Broken,
}

#[derive(Debug)]
pub struct Finding {
    pub path: Vec<Step>,
    pub rest: Rest,
    /// `what is wrong; what to do`. Never a value of the file: it may be a secret.
    pub message: String,
}

/// Everything in `document` that does not fit `schema`.
pub fn findings(schema: &Value, document: &Value) -> Vec<Finding> {
    let validator = jsonschema::validator_for(schema).expect("a generated schema is valid");
    let mut found = Vec::new();
    for error in validator.iter_errors(document) {
        explain(schema, &error, &mut found);
    }
    found
}

fn explain(schema: &Value, error: &ValidationError<'_>, found: &mut Vec<Finding>) {
    let path = steps(error.instance_path());
    // The schema object whose keyword was not met.
    let rule = parent(error.schema_path()).and_then(|pointer| schema.pointer(pointer));
    let rule = rule.unwrap_or(&Value::Null);
    let instance = error.instance();
    let mut add = |path: Vec<Step>, rest, message| found.push(Finding { path, rest, message });
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            for key in unexpected {
                let path = path.iter().cloned().chain([Step::Key(key.clone())]).collect();
                add(path, Rest::UnknownKey, unknown_key(key, rule));
            }
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let path = path.into_iter().chain([Step::Key(key.to_owned())]).collect();
            add(path, Rest::Missing, missing(&rule["properties"][key]));
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            match fitting_branch(context, error.instance_path()) {
                Some(branch) => branch.iter().for_each(|error| explain(schema, error, found)),
                None => add(path, Rest::Broken, mismatch(schema, rule, instance)),
            }
        }
        _ => add(path, Rest::Broken, mismatch(schema, rule, instance)),
    }
}

/// The branch that the value was meant for: the one whose complaints lie deeper than the value
/// itself, or are about its keys.
fn fitting_branch<'a>(
    context: &'a [Vec<ValidationError<'static>>],
    at: &Location,
) -> Option<&'a [ValidationError<'static>]> {
    let about_inside = |error: &ValidationError<'_>| {
        error.instance_path() != at
            || matches!(
                error.kind(),
                ValidationErrorKind::AdditionalProperties { .. }
                    | ValidationErrorKind::Required { .. }
            )
    };
    context.iter().map(Vec::as_slice).find(|errors| errors.iter().all(about_inside))
}

fn unknown_key(key: &str, rule: &Value) -> String {
    let known: Vec<&String> =
        rule["properties"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
    let nearest = nearest(key, known.iter().map(|known| known.as_str()));
    match nearest {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => {
            let known: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
            format!("unknown key; remove it, known here are {}", known.join(", "))
        }
    }
}

fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

fn missing(property: &Value) -> String {
    let description = property["description"].as_str().unwrap_or_default();
    let first_sentence = description.split(". ").next().unwrap_or_default();
    match first_sentence.trim_end_matches('.') {
        "" => "missing; add it".to_owned(),
        sentence => format!("missing; add it: {}", sentence.replace('\n', " ")),
    }
}

fn mismatch(schema: &Value, rule: &Value, instance: &Value) -> String {
    let expected = expected(schema, rule);
    match instance {
        Value::Null => format!("empty; give {expected}, or remove the key"),
        Value::String(text) => match nearest(text, choices(schema, rule).into_iter()) {
            Some(near) => format!("must be {expected}; did you mean `{near}`?"),
            None => format!("must be {expected}; this is another text"),
        },
        other => format!("must be {expected}; this is {}", kind_of(other)),
    }
}

/// The words that a schema allows here.
fn choices<'a>(schema: &'a Value, rule: &'a Value) -> Vec<&'a str> {
    let rule = resolve(schema, rule);
    let branches = ["anyOf", "oneOf"].iter().filter_map(|key| rule[key].as_array()).flatten();
    let words = rule["enum"].as_array().into_iter().flatten().chain(rule.get("const"));
    let words = words.filter_map(Value::as_str);
    words.chain(branches.flat_map(|branch| choices(schema, branch))).collect()
}

/// Follows a reference.
pub fn resolve<'a>(schema: &'a Value, rule: &'a Value) -> &'a Value {
    let target = rule["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    target.and_then(|target| schema.pointer(target)).unwrap_or(rule)
}

/// What a schema asks for, in words.
fn expected(schema: &Value, rule: &Value) -> String {
    let rule = resolve(schema, rule);
    let words = |list: &Value| -> Option<Vec<String>> {
        Some(list.as_array()?.iter().map(|value| format!("`{}`", plain(value))).collect())
    };
    if let Some(options) = words(&rule["enum"]) {
        return options.join(" or ");
    }
    if let Some(option) = rule.get("const") {
        return format!("`{}`", plain(option));
    }
    if let Some(branches) = rule["anyOf"].as_array().or(rule["oneOf"].as_array()) {
        let all: Vec<String> = branches.iter().map(|branch| expected(schema, branch)).collect();
        return all.join(" or ");
    }
    let example = rule["examples"][0].as_str().map(|example| format!(" such as `{example}`"));
    let example = example.unwrap_or_default();
    if let Some(title) = rule["title"].as_str().filter(|_| rule["properties"].is_null()) {
        return format!("{title}{example}");
    }
    match rule["type"].as_str() {
        Some("integer") => match (rule["minimum"].as_u64(), rule["maximum"].as_u64()) {
            (Some(low), Some(high)) => format!("a whole number from {low} to {high}"),
            (Some(low), None) => format!("a whole number, at least {low}"),
            (None, Some(high)) => format!("a whole number up to {high}"),
            (None, None) => "a whole number".to_owned(),
        },
        Some("array") if rule["minItems"] == 1 => "a list with at least one entry".to_owned(),
        Some("array") => "a list".to_owned(),
        Some("object") => "a mapping (key: value)".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("string") => format!("a text{example}"),
        _ => "something else".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Null => "empty",
        Value::Object(_) => "a mapping",
        Value::String(_) => "a text",
    }
}

fn parent(location: &Location) -> Option<&str> {
    location.as_str().rsplit_once('/').map(|(parent, _)| parent)
}

fn steps(location: &Location) -> Vec<Step> {
    let step = |segment: LocationSegment<'_>| match segment {
        LocationSegment::Property(key) => Step::Key(key.into_owned()),
        LocationSegment::Index(index) => Step::Index(index),
    };
    location.segments().map(step).collect()
}
