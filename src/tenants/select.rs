use std::collections::BTreeMap;

use serde_json::Value;

use crate::config;
use crate::domain::{Attributes, TenantCode};

use super::outcome::Unavailable;

/// A claim is copied into every token, so a large one is left out.
const MAX_CLAIM_BYTES: usize = 1024;

/// Finds tenant codes and claims in the body of an answer.
pub struct Selector {
    codes: config::JsonPath,
    /// A filter that matches nothing means "none", without it an item lacks what every item has.
    filtered: bool,
    claims: Vec<(String, serde_json_path::JsonPath)>,
}

pub struct Selected {
    pub codes: Vec<TenantCode>,
    /// Positions of what is no tenant code. The values themselves must not be shown.
    pub dropped: Vec<usize>,
    pub claims: Attributes,
    /// Names of claims that are too large.
    pub dropped_claims: Vec<String>,
}

impl Selector {
    pub fn new(codes: &config::JsonPath, claims: &BTreeMap<String, config::SelectedClaim>) -> Self {
        let claims =
            claims.iter().map(|(name, claim)| (name.clone(), claim.select.query.clone())).collect();
        Self { codes: codes.clone(), filtered: has_filter(&codes.query.to_string()), claims }
    }

    pub fn select(&self, body: &Value) -> Result<Selected, Unavailable> {
        let values = self.codes.query.query(body).all();
        if values.is_empty() {
            self.require_empty_array(body)?;
        }
        let mut codes: Vec<TenantCode> = Vec::with_capacity(values.len());
        let mut dropped = Vec::new();
        for (position, value) in values.iter().enumerate() {
            let text = value.as_str().ok_or(Unavailable::WrongShape(NOT_A_STRING))?;
            match TenantCode::parse(text) {
                Some(code) => codes.push(code),
                None => dropped.push(position),
            }
        }
        if codes.is_empty() && !dropped.is_empty() {
            return Err(Unavailable::WrongShape(NO_TENANT_CODE));
        }
        let (claims, dropped_claims) = self.claims(body);
        Ok(Selected { codes: distinct(codes), dropped, claims, dropped_claims })
    }

    /// Nothing selected means "no grants" only where the array is there and empty.
    fn require_empty_array(&self, body: &Value) -> Result<(), Unavailable> {
        let Some(array) = &self.codes.array else {
            return Err(Unavailable::WrongShape("`select` matches nothing"));
        };
        let arrays = array.query(body).all();
        if arrays.is_empty() {
            return Err(Unavailable::WrongShape("the array that `select` walks is missing"));
        }
        for value in arrays {
            match value {
                Value::Array(items) if items.is_empty() || self.filtered => {}
                Value::Array(_) => {
                    return Err(Unavailable::WrongShape(
                        "the array that `select` walks has items, but `select` matches none",
                    ));
                }
                _ => return Err(Unavailable::WrongShape("what `select` walks is not an array")),
            }
        }
        Ok(())
    }

    fn claims(&self, body: &Value) -> (Attributes, Vec<String>) {
        let mut claims = Attributes::new();
        let mut dropped = Vec::new();
        for (name, query) in &self.claims {
            let found = query.query(body).all();
            let text = match found.as_slice() {
                [] | [Value::Null] => continue,
                [one] => one.to_string(),
                many => Value::Array(many.iter().map(|&value| value.clone()).collect()).to_string(),
            };
            if text.len() <= MAX_CLAIM_BYTES {
                claims.insert(name.clone(), text);
            } else {
                dropped.push(name.clone());
            }
        }
        (claims, dropped)
    }
}

const NOT_A_STRING: &str = "`select` matches something that is not a string";
const NO_TENANT_CODE: &str = "none of the selected strings is a tenant code";

fn distinct(codes: Vec<TenantCode>) -> Vec<TenantCode> {
    let mut seen = std::collections::HashSet::with_capacity(codes.len());
    let first: Vec<bool> = codes.iter().map(|code| seen.insert(code.expose())).collect();
    drop(seen);
    let mut first = first.into_iter();
    let mut codes = codes;
    codes.retain(|_| first.next().unwrap_or(false));
    codes
}

/// Whether a query in its normal form holds a filter selector: a `?` outside of a quoted name.
fn has_filter(query: &str) -> bool {
    let mut quote = None;
    let mut characters = query.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None, '?') => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::json_path;
    use super::*;

    fn select(query: &str, array: Option<&str>, body: &Value) -> String {
        let selector = Selector::new(&json_path(query, array), &BTreeMap::new());
        match selector.select(body) {
            Ok(found) => {
                let codes: Vec<_> = found.codes.iter().map(TenantCode::expose).collect();
                format!("{} -{:?}", codes.join(","), found.dropped)
            }
            Err(reason) => reason.as_str().to_owned(),
        }
    }

    #[test]
    fn shapes_of_answers() {
        let none = " -[]";
        for (query, array, body, expected) in [
            (
                "$.tenants[*].code",
                "$.tenants",
                json!({"tenants": [{"code": "A"}, {"code": "B"}]}),
                "A,B -[]",
            ),
            ("$[*]", "$", json!(["A", "a/b", "A"]), "A -[1]"),
            ("$[*]", "$", json!([]), none),
            ("$[*]", "$", json!({}), "wrong_shape"),
            (
                "$.t[?@.on].code",
                "$.t",
                json!({"t": [{"on": true, "code": "A"}, {"code": "B"}]}),
                "A -[]",
            ),
            ("$.t[?@.on].code", "$.t", json!({"t": [{"code": "B"}]}), none),
            ("$.t[?@.on].code", "$.t", json!({"t": "x"}), "wrong_shape"),
            ("$.t[?@.on].code", "$.t", json!({}), "wrong_shape"),
            ("$['a?b'][*].code", "$['a?b']", json!({"a?b": [{"id": 1}]}), "wrong_shape"),
            ("$.t[0:2]", "$.t", json!({"t": ["A", "B", "C"]}), "A,B -[]"),
            ("$.a.t[*]", "$.a.t", json!({"a": {}}), "wrong_shape"),
        ] {
            assert_eq!(select(query, Some(array), &body), expected, "{query} on {body}");
        }
        assert_eq!(select("$.tenant", None, &json!({"tenant": "A"})), "A -[]");
        assert_eq!(select("$.tenant", None, &json!({})), "wrong_shape");
        assert_eq!(select("$.tenant", None, &json!({"tenant": ["A"]})), "wrong_shape");
    }

    #[test]
    fn claims_are_copied_as_json_and_bounded() {
        let claim =
            |query| config::SelectedClaim { select: json_path(query, None), display: false };
        let claims = BTreeMap::from(
            [
                ("plan", "$.plan"),
                ("limits", "$.limits"),
                ("regions", "$.sites[*].region"),
                ("gone", "$.gone"),
                ("nothing", "$.nothing"),
                ("large", "$.large"),
            ]
            .map(|(name, query)| (name.to_owned(), claim(query))),
        );
        let body = json!({
            "t": ["A"], "plan": "gold \"1\"", "limits": {"a": [1, 2]}, "nothing": null,
            "sites": [{"region": "eu"}, {"region": "us"}], "large": "x".repeat(1023),
        });
        let found = Selector::new(&json_path("$.t[*]", Some("$.t")), &claims).select(&body);
        let Ok(found) = found else { panic!() };
        let expected = [
            ("limits", r#"{"a":[1,2]}"#),
            ("plan", r#""gold \"1\"""#),
            ("regions", r#"["eu","us"]"#),
        ];
        assert_eq!(found.claims, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(found.dropped_claims, ["large"]);
    }
}
