//! Bodies, patterns and pages of a lookup over HTTP.

use regex::Regex;
use serde_json::{Value, json};
use url::Url;

use super::json_path;
use crate::config::reader::Reader;
use crate::config::{
    AnswerFormat, BodyTemplate, CodePattern, CodesOf, CompleteIf, JsonPath, PageKind, Pages,
    QuotaPaths, raw,
};
use crate::yaml::Field;

pub const CLIENT_ID: &str = "{client_id}";
pub const CURSOR: &str = "{cursor}";
const PAGES: &str = "tenants.lookup.pages";
const COMPLETE_IF: &str = "tenants.lookup.complete_if";
/// Where AuthZEN's decision point answers searches, below its own URL.
const RESOURCE_SEARCH: &str = "/access/v1/search/resource";
const RESULTS: &str = "$.results[*].id";
const AUTHZEN_PAGES: u32 = 100;

pub struct Body {
    pub template: BodyTemplate,
    /// What no page may have.
    pub refuse: Vec<serde_json_path::JsonPath>,
}

/// `None`: a GET.
pub fn body(
    reader: &mut Reader,
    method: raw::LookupMethod,
    text: Field<String>,
) -> Option<Option<Body>> {
    let field = "tenants.lookup.body";
    let text = match (method, text) {
        (_, Field::Broken) => return None,
        (raw::LookupMethod::Get, Field::Absent) => return Some(None),
        (raw::LookupMethod::Get, Field::Value(_)) => {
            reader.problem(field, "has no effect with GET", "add `method: POST`, or remove it");
            return None;
        }
        (raw::LookupMethod::Post, Field::Absent) => format!(r#"{{"client_id":"{CLIENT_ID}"}}"#),
        (raw::LookupMethod::Post, Field::Value(text)) => text,
    };
    // Outside of a string a variable is not JSON, which is what keeps it inside of them.
    let Ok(value) = serde_json::from_str::<Value>(&text) else {
        let (wrong, cure) = if serde_json::from_str::<Value>(&in_strings(&text)).is_ok() {
            ("has a variable outside of a string", "write it in quotes, such as `\"{client_id}\"`")
        } else {
            ("is not JSON", "correct it; `{client_id}` may be inside its strings only")
        };
        reader.problem(field, wrong, cure);
        return None;
    };
    // GraphQL answers 200 with `errors` beside the part of the data that it could get.
    let graphql = value.get("query").is_some_and(Value::is_string);
    let refuse = graphql.then(|| known("$.errors"));
    let template = BodyTemplate { first: text.clone(), further: text };
    Some(Some(Body { template, refuse: refuse.into_iter().collect() }))
}

/// A query of ours.
fn known(text: &str) -> serde_json_path::JsonPath {
    serde_json_path::JsonPath::parse(text)
        .unwrap_or_else(|error| unreachable!("{text} is a JSONPath: {error}"))
}

/// As it would be with its variables in quotes.
fn in_strings(text: &str) -> String {
    text.replace(CLIENT_ID, "\"\"").replace(CURSOR, "\"\"")
}

pub fn codes_of(of: raw::CodesOf) -> CodesOf {
    match of {
        raw::CodesOf::Values => CodesOf::Values,
        raw::CodesOf::Keys => CodesOf::Keys,
        raw::CodesOf::Text => CodesOf::Text,
    }
}

pub fn format(format: raw::AnswerFormat) -> AnswerFormat {
    match format {
        raw::AnswerFormat::Json => AnswerFormat::Json,
        raw::AnswerFormat::JsonLines => AnswerFormat::JsonLines,
    }
}

pub fn code_pattern(reader: &mut Reader, text: &str) -> Option<CodePattern> {
    let field = "tenants.lookup.code_pattern";
    let example = "write one such as `^urn:acme:tenant:([^:]+)$`";
    match Regex::new(text) {
        // The whole match counts as one.
        Ok(pattern) if pattern.captures_len() == 2 => Some(CodePattern(pattern)),
        Ok(pattern) => {
            let groups = pattern.captures_len() - 1;
            let wrong = format!("has {groups} groups, and the code is what its one group matches");
            reader.problem(field, wrong, format!("{example}; `(?:…)` does not count as a group"));
            None
        }
        Err(error) => {
            // The last line says what is wrong, the others repeat the pattern.
            let text = error.to_string();
            let wrong = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            reader.problem(field, format!("is not a regular expression ({wrong})"), example);
            None
        }
    }
}

pub fn complete_if(reader: &mut Reader, complete_if: raw::CompleteIf) -> Option<CompleteIf> {
    let raw::CompleteIf { absent, path, equals } = complete_if;
    let field = |key: &str| format!("{COMPLETE_IF}.{key}");
    match (absent.is_given(), path.is_given(), equals.is_given()) {
        (true, false, false) => {
            Some(CompleteIf::Absent(json_path::query(reader, &field("absent"), absent)?))
        }
        (false, true, true) => {
            let path = json_path::query(reader, &field("path"), path)?;
            Some(CompleteIf::Equals(path, equals.value()?))
        }
        _ => {
            let cure = "write `{ absent: $.next }`, or `{ path: $.page.totalPages, equals: 1 }`";
            reader.problem(COMPLETE_IF, "is neither `absent` nor `path` with `equals`", cure);
            None
        }
    }
}

/// What the request has for pages to use.
pub struct Request<'a> {
    pub url: Option<&'a Url>,
    pub body: Option<&'a BodyTemplate>,
}

impl Request<'_> {
    fn body_has_cursor(&self) -> bool {
        self.body.is_some_and(|body| body.further.contains(CURSOR))
    }
}

pub fn pages(
    reader: &mut Reader,
    pages: Field<raw::Pages>,
    request: &Request<'_>,
) -> Option<Option<Pages>> {
    let takes_cursor = pages.as_ref().value().is_some_and(|pages| pages.cursor.is_given());
    if request.body_has_cursor() && !takes_cursor {
        reader.problem(
            "tenants.lookup.body",
            "has `{cursor}`, and nothing says where the cursor comes from",
            "add `pages: { cursor: { path: … } }`",
        );
        return None;
    }
    pages.optional(|pages| one_way(reader, pages, request))
}

fn one_way(reader: &mut Reader, pages: raw::Pages, request: &Request<'_>) -> Option<Pages> {
    let kinds = [
        ("next", pages.next.is_given()),
        ("link_header", pages.link_header.is_given()),
        ("cursor", pages.cursor.is_given()),
        ("count", pages.count.is_given()),
    ];
    let given: Vec<&str> =
        kinds.into_iter().filter(|(_, given)| *given).map(|(kind, _)| kind).collect();
    let [kind] = given.as_slice() else {
        let wrong = match given.len() {
            0 => "does not say how the answer goes on".to_owned(),
            _ => format!("says more than one way to go on ({})", given.join(", ")),
        };
        let cure = "keep exactly one of `next`, `link_header`, `cursor` and `count`";
        reader.problem(PAGES, wrong, cure);
        return None;
    };
    let kind = match *kind {
        "next" => PageKind::Next(json_path::query(reader, &format!("{PAGES}.next"), pages.next)?),
        "link_header" => link_header(reader, pages.link_header.value()?)?,
        "cursor" => cursor(reader, pages.cursor.value()?, request)?,
        _ => count(reader, pages.count.value()?, request.url)?,
    };
    Some(Pages { kind, max: pages.max.value()? })
}

fn link_header(reader: &mut Reader, on: bool) -> Option<PageKind> {
    if !on {
        reader.problem(
            &format!("{PAGES}.link_header"),
            "is false, so that nothing says how the answer goes on",
            "remove `pages`, or write `true`",
        );
        return None;
    }
    Some(PageKind::LinkHeader)
}

fn cursor(reader: &mut Reader, cursor: raw::Cursor, request: &Request<'_>) -> Option<PageKind> {
    let in_body = request.body_has_cursor();
    let at = format!("{PAGES}.cursor");
    let path = json_path::query(reader, &format!("{at}.path"), cursor.path);
    let field = format!("{at}.parameter");
    if cursor.parameter.is_absent() {
        if !in_body {
            let cure = "add `parameter`, or write `\"{cursor}\"` into `body`";
            reader.problem(&at, "says nothing that takes the cursor", cure);
            return None;
        }
        return Some(PageKind::Cursor { path: path?, parameter: None });
    }
    if in_body {
        let cure = "keep `parameter`, or `{cursor}` in `body`";
        reader.problem(&at, "has two places for the cursor", cure);
        return None;
    }
    let parameter = parameter(reader, &field, cursor.parameter, request.url);
    Some(PageKind::Cursor { path: path?, parameter: Some(parameter?) })
}

fn count(reader: &mut Reader, count: raw::PageCount, url: Option<&Url>) -> Option<PageKind> {
    let at = format!("{PAGES}.count");
    let path = json_path::query(reader, &format!("{at}.path"), count.path);
    let parameter = parameter(reader, &format!("{at}.parameter"), count.parameter, url);
    Some(PageKind::Count { path: path?, parameter: parameter?, from: count.from.value()? })
}

fn parameter(
    reader: &mut Reader,
    field: &str,
    name: Field<String>,
    url: Option<&Url>,
) -> Option<String> {
    let name = reader.text(field, name)?;
    if url.is_some_and(|url| url.query_pairs().any(|(other, _)| other == name)) {
        reader.problem(field, "is in `url` already", "take it out of `url`");
        return None;
    }
    Some(name)
}

pub fn quota(reader: &mut Reader, quota: raw::QuotaPaths) -> Option<QuotaPaths> {
    let field = |key: &str| format!("tenants.lookup.quota.{key}");
    let requests = json_path::query(reader, &field("requests_per_unit"), quota.requests_per_unit);
    let unit = json_path::query(reader, &field("unit"), quota.unit);
    Some(QuotaPaths { requests_per_unit: requests?, unit: unit? })
}

/// What AuthZEN's Resource Search is in terms of the other keys.
pub struct ResourceSearch {
    pub url: Url,
    pub body: Body,
    pub select: JsonPath,
    pub complete_if: CompleteIf,
    pub pages: Pages,
}

pub fn authzen(reader: &mut Reader, authzen: raw::AuthZen) -> Option<ResourceSearch> {
    let field = |key: &str| format!("tenants.lookup.authzen.{key}");
    let url = reader.url(&field("url"), authzen.url, authzen.allow_http);
    if url.as_ref().is_some_and(|url| url.query().is_some()) {
        reader.problem(&field("url"), "has a query", "remove it");
    }
    let subject = reader.text(&field("subject_type"), authzen.subject_type);
    let action = reader.text(&field("action"), authzen.action);
    let resource = reader.text(&field("resource_type"), authzen.resource_type);
    let (mut url, subject, action, resource) = (url?, subject?, action?, resource?);
    let path = format!("{}{RESOURCE_SEARCH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    let mut body = json!({
        "subject": { "type": subject, "id": CLIENT_ID },
        "action": { "name": action },
        "resource": { "type": resource },
    });
    // The first question has no token at all.
    let first = body.to_string();
    body["page"] = json!({ "token": CURSOR });
    let body = Body {
        template: BodyTemplate { first, further: body.to_string() },
        // A result of another type has no place in the answer: somebody else's question.
        refuse: vec![known(&format!("$.results[?@.type != {}]", json!(resource)))],
    };
    Some(ResourceSearch {
        url,
        body,
        select: JsonPath {
            text: RESULTS.to_owned(),
            query: known(RESULTS),
            array: Some(known("$.results")),
        },
        complete_if: CompleteIf::Total(known("$.page.total")),
        pages: Pages {
            kind: PageKind::Cursor { path: known("$.page.next_token"), parameter: None },
            max: AUTHZEN_PAGES,
        },
    })
}
