use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Value, json};
use serde_json_path::JsonPath;

use crate::config::{AnswerFormat, AnswerReading, CodePattern, CodesOf, CompleteIf, QuotaPaths};
use crate::domain::{Attributes, Quota, QuotaUnit, TenantCode};

use super::shape::kind;
use super::unavailable::Unavailable;
use super::walk::Walk;

/// A claim is copied into every token, so a large one is left out.
const MAX_CLAIM_BYTES: usize = 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Finds tenant codes and claims in the body of an answer.
pub struct Selector {
    format: AnswerFormat,
    codes: Walk,
    of: CodesOf,
    pattern: Option<CodePattern>,
    complete_if: Option<CompleteIf>,
    refuse: Vec<JsonPath>,
    claims: Vec<(String, JsonPath)>,
    quota: Option<QuotaPaths>,
}

/// What an answer lists, over all its pages.
#[derive(Default)]
pub struct Listed {
    /// In the order of the answer.
    pub codes: Vec<TenantCode>,
    /// Positions of what is not a tenant code. The values themselves must not be shown.
    pub dropped: Vec<usize>,
    /// Positions of what `code_pattern` does not match.
    pub unmatched: Vec<usize>,
    /// Further claims, as JSON texts.
    pub claims: Attributes,
    /// Names of claims that are too large.
    pub dropped_claims: Vec<String>,
    /// `None`: the answer has none.
    pub quota: Option<Quota>,
    /// What stands where the quota should be is none.
    pub bad_quota: bool,
    /// Items of the arrays that `select` walks.
    pub items: usize,
    /// What it found among them.
    pub selected: usize,
    /// Texts that might have been codes.
    texts: usize,
}

impl Listed {
    /// What another replica has read out of an answer.
    pub fn shared(codes: Vec<TenantCode>, claims: Attributes, quota: Option<Quota>) -> Self {
        Self { codes, claims, quota, ..Self::default() }
    }
}

impl Listed {
    /// Keeps what is a tenant code.
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut listed = Self::default();
        for text in texts {
            listed.add(text, None);
        }
        listed.keep_first();
        listed
    }

    fn add(&mut self, text: &str, pattern: Option<&CodePattern>) {
        let position = self.texts;
        self.texts += 1;
        let text = match pattern {
            None => text,
            Some(CodePattern(pattern)) => {
                match pattern.captures(text).and_then(|found| found.get(1)) {
                    Some(code) => code.as_str(),
                    None => return self.unmatched.push(position),
                }
            }
        };
        match TenantCode::parse(text) {
            Some(code) => self.codes.push(code),
            None => self.dropped.push(position),
        }
    }

    /// Each code once.
    fn keep_first(&mut self) {
        let mut seen = HashSet::new();
        let keep: Vec<bool> = self.codes.iter().map(|code| seen.insert(code.expose())).collect();
        let mut keep = keep.into_iter();
        self.codes.retain(|_| keep.next() == Some(true));
    }

    /// If nothing in the list is a tenant code, the answer is not understood, which is something
    /// else than "no grants".
    pub fn understood(&self) -> Result<(), Unavailable> {
        let what = match (&*self.dropped, &*self.unmatched) {
            _ if !self.codes.is_empty() => return Ok(()),
            ([], []) => return Ok(()),
            ([], _) => "`code_pattern` matches none of the listed texts",
            _ => "none of the listed texts is a tenant code",
        };
        Err(Unavailable::WrongShape(what.to_owned()))
    }

    /// `json` is the value's text.
    pub fn add_claim(&mut self, name: &str, json: String) {
        if json.len() <= MAX_CLAIM_BYTES {
            self.claims.insert(name.to_owned(), json);
        } else {
            self.dropped_claims.push(name.to_owned());
        }
    }
}

impl Selector {
    /// Compiled once for each config.
    pub fn new(reading: &AnswerReading) -> Self {
        let claims = reading.claims.iter();
        Self {
            format: reading.format,
            codes: Walk::new(&reading.select),
            of: reading.of,
            pattern: reading.code_pattern.clone(),
            complete_if: reading.complete_if.clone(),
            refuse: reading.refuse.clone(),
            claims: claims
                .map(|(name, claim)| (name.clone(), claim.select.query.clone()))
                .collect(),
            quota: reading.quota.clone(),
        }
    }

    /// The body as one value, unpacked and without a byte order mark.
    pub fn parse(&self, body: &[u8]) -> Result<Value, Unavailable> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let parsed = match self.format {
            AnswerFormat::Json => serde_json::from_slice(body),
            AnswerFormat::JsonLines => {
                let values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
                values.collect::<Result<_, _>>().map(Value::Array)
            }
        };
        parsed.map_err(|_| Unavailable::NotJson)
    }

    /// Adds what one page lists.
    pub fn read(&self, page: &Value, listed: &mut Listed) -> Result<(), Unavailable> {
        if let Some(refused) = self.refuse.iter().find(|query| !is_absent(query, page)) {
            return Err(Unavailable::Incomplete(format!("`{refused}` is there")));
        }
        let values = self.codes.values(page)?;
        listed.items += self.codes.items(page);
        listed.selected += values.len();
        for value in values {
            self.add_codes(value, listed)?;
        }
        self.add_claims(page, listed);
        self.add_quota(page, listed);
        Ok(())
    }

    fn add_codes(&self, value: &Value, listed: &mut Listed) -> Result<(), Unavailable> {
        let pattern = self.pattern.as_ref();
        let wrong = |expected: &str, listed: &Listed| {
            let position = listed.texts;
            let what =
                format!("`select` matches {} at position {position}, not {expected}", kind(value));
            Unavailable::WrongShape(what)
        };
        match self.of {
            CodesOf::Values => {
                let text = text_of(value).ok_or_else(|| wrong("text or a whole number", listed))?;
                listed.add(&text, pattern);
            }
            CodesOf::Keys => {
                let object = value.as_object().ok_or_else(|| wrong("an object", listed))?;
                // `false` and null are how people write that a key does not count.
                let counts = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
                for (key, _) in object.iter().filter(|(_, value)| counts(value)) {
                    listed.add(key, pattern);
                }
            }
            CodesOf::Text => {
                let text = text_of(value).ok_or_else(|| wrong("text or a whole number", listed))?;
                let parts = text.split([',', ' ', '\t', '\r', '\n']);
                for part in parts.filter(|part| !part.is_empty()) {
                    listed.add(part, pattern);
                }
            }
        }
        Ok(())
    }

    /// The first page that has a claim decides what it is.
    fn add_claims(&self, page: &Value, listed: &mut Listed) {
        for (name, query) in &self.claims {
            if listed.claims.contains_key(name) || listed.dropped_claims.contains(name) {
                continue;
            }
            let found = query.query(page).all();
            match found.as_slice() {
                [] | [Value::Null] => {}
                [one] => listed.add_claim(name, one.to_string()),
                many => listed.add_claim(name, json!(many).to_string()),
            }
        }
    }

    /// The first page that says something of it decides.
    fn add_quota(&self, page: &Value, listed: &mut Listed) {
        let Some(paths) = &self.quota else { return };
        let found = |path: &JsonPath| path.query(page).all();
        let (requests, unit) = (found(&paths.requests_per_unit), found(&paths.unit));
        if listed.quota.is_some() || listed.bad_quota || (requests.is_empty() && unit.is_empty()) {
            return;
        }
        listed.quota = quota(&requests, &unit);
        listed.bad_quota = listed.quota.is_none();
    }

    /// Whether `last` may be the last page of what has been read.
    pub fn finish(&self, last: &Value, listed: &mut Listed) -> Result<(), Unavailable> {
        let incomplete = |what: String| Err(Unavailable::Incomplete(what));
        match &self.complete_if {
            Some(CompleteIf::Absent(query)) if !is_absent(query, last) => {
                return incomplete(format!("`{query}` is there"));
            }
            Some(CompleteIf::Equals(query, expected)) => match query.query(last).all().as_slice() {
                [found] if equal(found, expected) => {}
                [_] => return incomplete(format!("`{query}` is not {expected}")),
                [] => return incomplete(format!("`{query}` is missing")),
                _ => return incomplete(format!("`{query}` matches several values")),
            },
            Some(CompleteIf::Total(query)) => {
                let total = query.query(last).all().first().and_then(|total| total.as_u64());
                if total.is_some_and(|total| total > listed.selected as u64) {
                    return incomplete(format!("`{query}` is more than what was listed"));
                }
            }
            Some(CompleteIf::Absent(_)) | None => {}
        }
        listed.keep_first();
        Ok(())
    }
}

fn quota(requests: &[&Value], unit: &[&Value]) -> Option<Quota> {
    let ([requests], [unit]) = (requests, unit) else { return None };
    let requests_per_unit = u32::try_from(requests.as_u64()?).ok()?;
    let unit = QuotaUnit::parse(&unit.as_str()?.to_ascii_uppercase())?;
    Some(Quota { requests_per_unit, unit })
}

/// A text, or a whole number as the text of its digits. Any other number loses digits on its way.
pub fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => number.as_u64().map(|number| Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// Absent, null or empty.
fn is_absent(query: &JsonPath, body: &Value) -> bool {
    query.query(body).all().into_iter().all(is_empty)
}

pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// `1` and `1.0` are the same number.
fn equal(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| Some(number) == other.as_f64())
}

#[cfg(test)]
mod tests;
