//! JSON Schema out of the raw types, and what does not fit it as problems for people.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

/// The schema that editors use and that every file is held against.
pub fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .with_transform(RecursiveTransform(without_null))
        .with_transform(RecursiveTransform(in_one_line))
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Editors show a break in the source as one.
fn in_one_line(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

/// A raw type may have an `Option` for what is left out; a file must not say `null` for all that.
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
pub enum PathStep {
    Key(String),
    Index(usize),
}

/// `apis[0].routes[1].path`
pub fn field(path: &[PathStep]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            PathStep::Index(index) => text.push_str(&format!("[{index}]")),
            PathStep::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}

/// The value at a place, such as `apis[0].routes[1].path`.
pub fn at<'a>(document: &'a Value, field: &str) -> Option<&'a Value> {
    field.split(['.', '[']).try_fold(document, |value, step| {
        match step.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()) {
            Some(index) => value.get(index),
            None => value.get(step),
        }
    })
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
pub struct Misfit {
    pub path: Vec<PathStep>,
    pub rest: Rest,
    /// `what is wrong; what to do`. Never a value of the file: it may be a secret.
    pub message: String,
}

/// Everything in `document` that does not fit `schema`, which [`of`] has made.
pub fn findings(schema: &Value, document: &Value) -> Vec<Misfit> {
    let mut walk = Walk { schema, path: Vec::new(), found: Vec::new() };
    walk.value(schema, document);
    walk.found
}

/// Knows the keywords that [`of`] writes for our types; a test holds that there are no others.
struct Walk<'a> {
    schema: &'a Value,
    path: Vec<PathStep>,
    found: Vec<Misfit>,
}

impl Walk<'_> {
    fn value(&mut self, rule: &Value, value: &Value) {
        let rule = resolve(self.schema, rule);
        if let Some(branches) = rule["anyOf"].as_array().or(rule["oneOf"].as_array()) {
            return self.branches(rule, branches, value);
        }
        if !fits(rule, value) {
            self.add(None, Rest::Broken, mismatch(self.schema, rule, value));
            return;
        }
        match value {
            Value::Object(object) => self.object(rule, object),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.inner(PathStep::Index(index), &rule["items"], item);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, rule: &Value, object: &Map<String, Value>) {
        for (key, value) in object {
            match (rule["properties"].get(key), &rule["additionalProperties"]) {
                (Some(property), _) => self.inner(PathStep::Key(key.clone()), property, value),
                (None, Value::Bool(false)) => {
                    let step = PathStep::Key(key.clone());
                    self.add(Some(step), Rest::UnknownKey, unknown_key(key, rule));
                }
                (None, named) => self.inner(PathStep::Key(key.clone()), named, value),
            }
        }
        let required = rule["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for key in required.filter(|key| !object.contains_key(*key)) {
            let step = PathStep::Key(key.to_owned());
            self.add(Some(step), Rest::Missing, missing(&rule["properties"][key]));
        }
    }

    fn inner(&mut self, step: PathStep, rule: &Value, value: &Value) {
        self.path.push(step);
        self.value(rule, value);
        self.path.pop();
    }

    /// One of the branches has to fit. Where none does, the complaints are those of the branch that
    /// the value was meant for: they lie deeper than the value itself, or are about its keys.
    fn branches(&mut self, rule: &Value, branches: &[Value], value: &Value) {
        let complaints: Vec<Vec<Misfit>> = branches
            .iter()
            .map(|branch| {
                let path = self.path.clone();
                let mut walk = Walk { schema: self.schema, path, found: Vec::new() };
                walk.value(branch, value);
                walk.found
            })
            .collect();
        if complaints.iter().any(Vec::is_empty) {
            return;
        }
        let depth = self.path.len();
        let meant = |found: &Vec<Misfit>| found.iter().all(|one| one.path.len() > depth);
        match complaints.into_iter().find(meant) {
            Some(found) => self.found.extend(found),
            None => self.add(None, Rest::Broken, mismatch(self.schema, rule, value)),
        }
    }

    fn add(&mut self, last: Option<PathStep>, rest: Rest, message: String) {
        let path = self.path.iter().cloned().chain(last).collect();
        self.found.push(Misfit { path, rest, message });
    }
}

/// Whether the value itself fits, whatever is in it.
fn fits(rule: &Value, value: &Value) -> bool {
    let is_number = |word: &str| match word {
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => value.is_number(),
    };
    let is_kind = |word: &str| match word {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        _ => is_number(word),
    };
    let kind_fits = match &rule["type"] {
        Value::String(word) => is_kind(word),
        Value::Array(words) => words.iter().filter_map(Value::as_str).any(is_kind),
        _ => true,
    };
    let listed = rule["enum"].as_array().is_none_or(|all| all.contains(value))
        && rule.get("const").is_none_or(|only| only == value);
    let bound = |key: &str| rule[key].as_f64();
    let number = value.as_f64();
    let in_range = number.is_none_or(|number| {
        bound("minimum").is_none_or(|low| number >= low)
            && bound("maximum").is_none_or(|high| number <= high)
    });
    let count = value.as_array().map(Vec::len);
    let long_enough =
        count.zip(rule["minItems"].as_u64()).is_none_or(|(count, least)| count as u64 >= least);
    kind_fits && listed && in_range && long_enough
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

/// The word that was probably meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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
