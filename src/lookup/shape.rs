use std::fmt;

use serde_json::Value;

const MAX_DEPTH: usize = 6;
const MAX_KEYS: usize = 20;
const MAX_KEY: usize = 60;
/// Of a long list the items further on look like the first ones, or cannot be shown.
const MAX_ITEMS: usize = 50;
const MAX_KINDS: usize = 3;

/// The type of a value, for people.
pub const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The body of an answer, which holds tenant codes: it shows itself as keys and types only.
#[derive(Clone, Copy)]
pub struct Body<'a>(pub(super) &'a Value);

impl<'a> Body<'a> {
    /// `select`: where keys are codes, only those that the query names are shown.
    pub const fn shape(self, select: Option<&'a str>) -> Shape<'a> {
        Shape { value: self.0, select, depth: 0 }
    }

    /// As it came, codes and all.
    pub const fn expose(self) -> &'a Value {
        self.0
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kind(self.0))
    }
}

/// Keys and types, bounded.
pub struct Shape<'a> {
    value: &'a Value,
    select: Option<&'a str>,
    depth: usize,
}

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = |value| Shape { value, select: self.select, depth: self.depth + 1 };
        match self.value {
            Value::Array(items) if items.is_empty() => f.write_str("[]"),
            Value::Object(object) if object.is_empty() => f.write_str("{}"),
            Value::Array(_) | Value::Object(_) if self.depth == MAX_DEPTH => f.write_str("…"),
            Value::Array(items) => {
                let kinds = distinct(items.iter().take(MAX_ITEMS).map(inner));
                write!(f, "[{} × {kinds}]", items.len())
            }
            Value::Object(object) => {
                let (named, hidden): (Vec<_>, Vec<_>) = object.iter().partition(|(key, _)| {
                    self.select.is_none_or(|select| select.contains(key.as_str()))
                });
                let first = named.iter().take(MAX_KEYS).map(|(key, value)| {
                    let key: String =
                        key.chars().take(MAX_KEY).flat_map(char::escape_debug).collect();
                    format!("{key}: {}", inner(value))
                });
                let mut parts: Vec<String> = first.collect();
                if let Some(more) = named.len().checked_sub(MAX_KEYS).filter(|more| *more > 0) {
                    parts.push(format!("{more} more"));
                }
                if !hidden.is_empty() {
                    let values = hidden.iter().take(MAX_ITEMS).map(|(_, value)| inner(value));
                    parts.push(format!("{} keys: {}", hidden.len(), distinct(values)));
                }
                write!(f, "{{ {} }}", parts.join(", "))
            }
            Value::Bool(_) => f.write_str("true/false"),
            Value::Number(_) => f.write_str("number"),
            simple => f.write_str(kind(simple)),
        }
    }
}

fn distinct<'a>(shapes: impl Iterator<Item = Shape<'a>>) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for shape in shapes.map(|shape| shape.to_string()) {
        if kinds.len() <= MAX_KINDS && !kinds.contains(&shape) {
            kinds.push(shape);
        }
    }
    if kinds.len() > MAX_KINDS {
        kinds[MAX_KINDS] = "…".to_owned();
    }
    kinds.join(" | ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(value: &Value, select: Option<&str>) -> String {
        Body(value).shape(select).to_string()
    }

    #[test]
    fn keys_and_types_but_no_values() {
        let value = json!({
            "tenants": [{ "code": "CANARY", "on": true }, { "code": 7, "on": false }, null],
            "page": { "next": "CANARY", "none": [] }, "empty": {},
        });
        let expected = "{ empty: {}, page: { next: text, none: [] }, \
            tenants: [3 × { code: text, on: true/false } | { code: number, on: true/false } | \
            null] }";
        assert_eq!(shape(&value, None), expected);
        assert_eq!(format!("{:?}", Body(&value)), "an object");
        assert_eq!(shape(&json!("CANARY"), None), "text");
    }

    #[test]
    fn keys_that_are_codes_are_counted() {
        let value = json!({ "tenants": { "CANARY": {}, "CANARY2": true }, "plan": "gold" });
        let expected = "{ tenants: { 2 keys: {} | true/false }, 1 keys: text }";
        assert_eq!(shape(&value, Some("$.tenants")), expected);
    }

    #[test]
    fn an_answer_however_large_has_a_short_shape() {
        let mut value = json!("x");
        for _ in 0..100 {
            value = json!([value]);
        }
        let wide: serde_json::Map<String, Value> =
            (0..1000).map(|n| (format!("{n}\u{1b}[31m"), value.clone())).collect();
        let shown = shape(&Value::Object(wide), None);
        assert!(shown.len() < 2000 && shown.contains("980 more"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}
