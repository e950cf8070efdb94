//! A schema as Markdown for people: one table a section.

use std::fmt::Write as _;

use serde_json::Value;

use super::schema::resolve;

/// The sections of one file, the outermost first. `name` heads the table of the outermost keys.
pub fn sections(schema: &Value, name: &str) -> String {
    let mut text = String::new();
    section(&mut text, schema, Place { path: "", title: name }, schema);
    text
}

#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a str,
    title: &'a str,
}

fn section(text: &mut String, schema: &Value, place: Place<'_>, object: &Value) {
    let required = |key: &str| {
        object["required"].as_array().is_some_and(|all| all.iter().any(|name| name == key))
    };
    let mut keys: Vec<(&String, &Value)> =
        object["properties"].as_object().into_iter().flatten().collect();
    keys.sort_by_key(|(key, _)| !required(key));

    // Writing to a `String` cannot fail.
    let _ = write!(text, "\n## `{}`\n\n", place.title);
    if let Some(description) = object["description"].as_str() {
        let _ = write!(text, "{}\n\n", one_line(description));
    }
    text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    for (key, property) in &keys {
        let default = match &property["default"] {
            _ if required(key) => "**required**".to_owned(),
            Value::Null => String::new(),
            default => format!("`{}`", plain(default)),
        };
        let meaning = description(schema, property);
        let _ = writeln!(text, "| `{key}` | {} | {default} | {meaning} |", kind(schema, property));
    }
    for (key, property) in keys {
        let path =
            if place.path.is_empty() { key.clone() } else { format!("{}.{key}", place.path) };
        for (path, inner) in objects(schema, property, path) {
            section(text, schema, Place { path: &path, title: &path }, inner);
        }
    }
}

/// The mappings with known keys below a property, and where they stand.
fn objects<'a>(schema: &'a Value, property: &'a Value, path: String) -> Vec<(String, &'a Value)> {
    let rule = resolve(schema, property);
    if rule["properties"].is_object() {
        return vec![(path, rule)];
    }
    let items = rule.get("items").map(|items| (items, format!("{path}[]")));
    let named = rule.get("additionalProperties").map(|named| (named, format!("{path}.NAME")));
    let branches = rule["anyOf"].as_array().into_iter().flatten();
    let inner = branches.map(|branch| (branch, path.clone())).chain(items).chain(named);
    inner.flat_map(|(inner, path)| objects(schema, inner, path)).collect()
}

fn kind(schema: &Value, property: &Value) -> String {
    let rule = resolve(schema, property);
    let or = |branches: &Value| -> Option<String> {
        let kinds: Vec<String> =
            branches.as_array()?.iter().map(|branch| kind(schema, branch)).collect();
        Some(kinds.join(" or "))
    };
    if let Some(words) = rule["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("`{}`", plain(word))).collect();
        return words.join(" or ");
    }
    if let Some(word) = rule.get("const") {
        return format!("`{}`", plain(word));
    }
    if let Some(branches) = or(&rule["anyOf"]).or_else(|| or(&rule["oneOf"])) {
        return branches;
    }
    if let Some(title) = rule["title"].as_str() {
        return title.trim_start_matches("a ").to_owned();
    }
    match rule["type"].as_str() {
        Some("array") => format!("list of {}", kind(schema, &rule["items"])),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => match (rule["minimum"].as_u64(), rule["maximum"].as_u64()) {
            (Some(low), Some(high)) => format!("integer, {low} to {high}"),
            _ => "integer".to_owned(),
        },
        Some("object") => match rule["additionalProperties"].as_object() {
            Some(_) => {
                format!("mapping of names to {}", kind(schema, &rule["additionalProperties"]))
            }
            None => "mapping".to_owned(),
        },
        Some("string") => "text".to_owned(),
        _ => "any value".to_owned(),
    }
}

fn description(schema: &Value, property: &Value) -> String {
    let own = property["description"].as_str();
    let text = own.or_else(|| resolve(schema, property)["description"].as_str());
    one_line(text.unwrap_or_default())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
