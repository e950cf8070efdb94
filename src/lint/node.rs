//! A value and its place in the document. What is missing is a node as well: of null, at the place
//! where it would be.

use serde_json::Value;

static NULL: Value = Value::Null;

#[derive(Clone)]
pub struct Node<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value, name: &str) -> Self {
        Self { value, path: format!("{}:", clean(name)) }
    }

    /// A resource of Kubernetes among others in a file.
    pub fn resource(value: &'a Value, file: &str, resource: &str) -> Self {
        Self { value, path: format!("{}:{}", clean(file), clean(resource)) }
    }

    pub fn get(&self, key: &str) -> Node<'a> {
        let value = self.value.get(key).unwrap_or(&NULL);
        Node { value, path: self.below(key) }
    }

    /// `a.b.c`
    pub fn at(&self, path: &str) -> Node<'a> {
        path.split('.').fold(self.clone(), |node, key| node.get(key))
    }

    fn below(&self, key: &str) -> String {
        let dot = if self.path.ends_with(':') { "" } else { "." };
        format!("{}{dot}{}", self.path, clean(key))
    }

    /// The elements of a list, by their name where they have one.
    pub fn items(&self) -> Vec<Node<'a>> {
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let item = |(index, value): (usize, &'a Value)| {
            let name = value.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
            let step = name.map_or_else(|| index.to_string(), clean);
            Node { value, path: format!("{}[{step}]", self.path) }
        };
        items.iter().enumerate().map(item).collect()
    }

    /// The keys and values of an object.
    pub fn entries(&self) -> Vec<(&'a str, Node<'a>)> {
        let Some(object) = self.value.as_object() else { return Vec::new() };
        let entry = |(key, value): (&'a String, &'a Value)| {
            (key.as_str(), Node { value, path: self.below(key) })
        };
        object.iter().map(entry).collect()
    }

    pub fn value(&self) -> &'a Value {
        self.value
    }

    pub fn exists(&self) -> bool {
        !self.value.is_null()
    }

    pub fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The texts of a list of texts.
    pub fn texts(&self) -> Vec<&'a str> {
        self.items().iter().filter_map(Node::text).collect()
    }

    /// As the YAML readers of Envoy and Kubernetes take it.
    pub fn is_true(&self) -> bool {
        let yes = |text: &str| {
            ["true", "yes", "on", "y"].iter().any(|word| text.eq_ignore_ascii_case(word))
        };
        self.value.as_bool() == Some(true) || self.text().is_some_and(yes)
    }

    /// A number, also written as a text.
    pub fn number(&self) -> Option<f64> {
        self.value.as_f64().or_else(|| self.text()?.trim().parse().ok())
    }

    /// `0.5s`, `500ms`, `1m30s` in seconds.
    pub fn seconds(&self) -> Option<f64> {
        seconds(self.text()?)
    }

    pub fn seconds_of(text: &str) -> Option<f64> {
        seconds(text)
    }

    pub fn place(&self) -> String {
        self.path.trim_end_matches(':').to_owned()
    }

    /// This node and every node below it, with the key that led there.
    pub fn walk(&self, visit: &mut impl FnMut(&str, &Node<'a>)) {
        for (key, node) in self.entries() {
            visit(key, &node);
            node.walk(visit);
        }
        for node in self.items() {
            node.walk(visit);
        }
    }

    /// Every text below this node.
    pub fn all_texts(&self) -> Vec<Node<'a>> {
        if self.text().is_some() {
            return vec![self.clone()];
        }
        let mut found = Vec::new();
        for (_, node) in self.entries() {
            found.extend(node.all_texts());
        }
        for node in self.items() {
            found.extend(node.all_texts());
        }
        found
    }
}

fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end =
            rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| end + n);
        sum += number
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.trim().is_empty()).then_some(sum)
}

/// A name of the document, fit for one word of a line.
fn clean(name: &str) -> String {
    let fit = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    name.chars().take(120).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_protobuf_and_go_write_them() {
        for (text, expected) in [
            ("0.5s", Some(0.5)),
            ("500ms", Some(0.5)),
            ("1m30s", Some(90.0)),
            ("0s", Some(0.0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("5 parsecs", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn a_place_is_one_word() {
        let value = serde_json::json!({"routes": [{"name": "two words\n"}]});
        let node = Node::root(&value, "my file.yaml");
        assert_eq!(node.get("routes").items()[0].place(), "my_file.yaml:routes[two_words_]");
    }
}
