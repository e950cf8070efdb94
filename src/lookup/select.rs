use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use serde_json::{Value, json};

use crate::config;
use crate::domain::{Attributes, TenantCode};

use super::unavailable::Unavailable;

/// A claim is copied into every token, so a large one is left out.
const MAX_CLAIM_BYTES: usize = 1024;

/// Finds tenant codes and claims in the body of an answer.
pub struct Selector {
    codes: config::JsonPath,
    /// A filter that matches nothing means "none", without it an item lacks what every item has.
    filtered: bool,
    inner: Option<InnerArrays>,
    claims: Vec<(String, serde_json_path::JsonPath)>,
}

/// What an answer lists.
#[derive(Default)]
pub struct Listed {
    /// Each once, in the order of the answer.
    pub codes: Vec<TenantCode>,
    /// Positions of what is no tenant code. The values themselves must not be shown.
    pub dropped: Vec<usize>,
    pub claims: Attributes,
    /// Names of claims that are too large.
    pub dropped_claims: Vec<String>,
}

impl Listed {
    /// Keeps what is a tenant code.
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut listed = Self::default();
        let mut seen = HashSet::new();
        for (position, text) in texts.enumerate() {
            match TenantCode::parse(text) {
                Some(code) if seen.insert(text) => listed.codes.push(code),
                Some(_) => {}
                None => listed.dropped.push(position),
            }
        }
        listed
    }

    /// If nothing in the list is a tenant code, the answer is not understood, which is something
    /// else than "no grants".
    pub fn understood(&self) -> Result<(), Unavailable> {
        if self.codes.is_empty() && !self.dropped.is_empty() {
            return Err(Unavailable::WrongShape("none of the listed strings is a tenant code"));
        }
        Ok(())
    }

    pub fn add_claim(&mut self, name: &str, json: String) {
        if json.len() <= MAX_CLAIM_BYTES {
            self.claims.insert(name.to_owned(), json);
        } else {
            self.dropped_claims.push(name.to_owned());
        }
    }
}

impl Selector {
    pub fn new(codes: &config::JsonPath, claims: &BTreeMap<String, config::SelectedClaim>) -> Self {
        let claims =
            claims.iter().map(|(name, claim)| (name.clone(), claim.select.query.clone())).collect();
        let query = codes.query.to_string();
        let (walks, filtered) = walks(&query);
        let inner = InnerArrays::of(&query, &walks);
        Self { codes: codes.clone(), filtered, inner, claims }
    }

    pub fn select(&self, body: &Value) -> Result<Listed, Unavailable> {
        let values = self.codes.query.query(body).all();
        if values.is_empty() {
            self.require_empty_array(body)?;
        }
        let texts: Option<Vec<&str>> = values.iter().map(|value| value.as_str()).collect();
        let texts = texts
            .ok_or(Unavailable::WrongShape("`select` matches something that is not a string"))?;
        let mut listed = Listed::of(texts.into_iter());
        self.add_claims(body, &mut listed);
        Ok(listed)
    }

    /// Nothing selected means "no grants" only where the array is there and empty.
    fn require_empty_array(&self, body: &Value) -> Result<(), Unavailable> {
        let Some(array) = &self.codes.array else {
            return Err(Unavailable::WrongShape("`select` matches nothing"));
        };
        if self.inner.as_ref().is_some_and(|inner| inner.are_empty(body)) {
            return Ok(());
        }
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

    fn add_claims(&self, body: &Value, listed: &mut Listed) {
        for (name, query) in &self.claims {
            let found = query.query(body).all();
            match found.as_slice() {
                [] | [Value::Null] => {}
                [one] => listed.add_claim(name, one.to_string()),
                many => listed.add_claim(name, json!(many).to_string()),
            }
        }
    }
}

/// Arrays within arrays: those that a query walks last, and the items that have to hold them.
struct InnerArrays {
    arrays: serde_json_path::JsonPath,
    holders: serde_json_path::JsonPath,
}

impl InnerArrays {
    fn of(query: &str, walks: &[Range<usize>]) -> Option<Self> {
        let [.., before, last] = walks else { return None };
        let parse = |end: usize| serde_json_path::JsonPath::parse(&query[..end]).ok();
        Some(Self { arrays: parse(last.start)?, holders: parse(before.end)? })
    }

    /// Whether every item has its array, and all of them are empty.
    fn are_empty(&self, body: &Value) -> bool {
        let arrays = self.arrays.query(body).all();
        let empty = |value: &&Value| value.as_array().is_some_and(Vec::is_empty);
        !arrays.is_empty()
            && arrays.len() == self.holders.query(body).len()
            && arrays.iter().all(empty)
    }
}

/// Where a query in its normal form selects any number of values, and whether by a filter.
fn walks(query: &str) -> (Vec<Range<usize>>, bool) {
    let (mut walks, mut filtered) = (Vec::new(), false);
    let (mut quote, mut depth, mut start, mut many) = (None, 0_u32, 0, false);
    let mut characters = query.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => {
                if depth == 0 {
                    (start, many) = (at, false);
                }
                depth += 1;
            }
            (None, ']') => {
                depth -= 1;
                if depth == 0 && many {
                    walks.push(start..at + 1);
                }
            }
            (None, '*') if depth == 0 => walks.push(at - 1..at + 1),
            (None, '*' | '?' | ':' | ',') => {
                many = true;
                filtered |= character == '?';
            }
            (None, _) => {}
        }
    }
    (walks, filtered)
}

#[cfg(test)]
mod tests {
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
            ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": [{"c": "A"}]}, {"t": []}]}), "A -[]"),
            ("$.g[*].t[*].c", "$.g", json!({"g": []}), none),
            ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": []}, {"t": []}]}), none),
            ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": []}, {}]}), "wrong_shape"),
            ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": [{}]}]}), "wrong_shape"),
            ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": {}}]}), "wrong_shape"),
            ("$.g.*['s [*]'].*", "$.g", json!({"g": [{"s [*]": []}]}), none),
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
