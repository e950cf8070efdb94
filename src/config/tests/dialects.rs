//! Every way to ask and to read, and what is wrong with a wrong one.

use super::*;

const LOOKUP: &str = "/tenants/lookup";

/// The example with some keys of the lookup set; `null` removes one.
fn lookup(keys: Value) -> Value {
    let mut config = full();
    let at = config.pointer_mut(LOOKUP).unwrap().as_object_mut().unwrap();
    for (key, value) in keys.as_object().unwrap() {
        if value.is_null() {
            at.remove(key);
        } else {
            at.insert(key.clone(), value.clone());
        }
    }
    config
}

fn http(keys: Value) -> HttpLookup {
    match load(&lookup(keys)).unwrap().tenants.lookup {
        Lookup::Http(lookup) => *lookup,
        other => panic!("{other:?}"),
    }
}

/// POST with a body; `$b` in a test's words.
fn post(body: &str) -> Value {
    json!({"method": "POST", "body": body})
}

fn and(mut one: Value, other: Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

#[test]
fn each_misplaced_key_of_a_dialect_has_its_own_line() {
    let elsewhere = json!("http://127.0.0.1/all");
    let body = r#"{"id": "{client_id}", "after": "{cursor}"}"#;
    let cursor = json!({"cursor": {"path": "$.c"}});
    for (keys, expected) in [
        (json!({"url": elsewhere}), "url: has no `{client_id}`; "),
        (and(post(r#"{"id": "x"}"#), json!({"url": elsewhere})), "url: has no `{client_id}`; "),
        (json!({"body": "{}"}), "body: has no effect with GET; add `method: POST`"),
        (post("{"), "body: is not JSON; "),
        (post(r#"{"id": {client_id}}"#), "body: has a variable outside of a string; "),
        (post(r#"{client_id}"#), "body: has a variable outside of a string; "),
        (post(body), "body: has `{cursor}`, and nothing says where the cursor comes from; "),
        (json!({"of": "lines"}), "of: must be `values` or `keys` or `text`; "),
        (json!({"code_pattern": "^x$"}), "code_pattern: has 0 groups, "),
        (json!({"code_pattern": "(a)(b)"}), "code_pattern: has 2 groups, "),
        (json!({"code_pattern": "(a"}), "code_pattern: is not a regular expression ("),
        (json!({"complete_if": {}}), "complete_if: is neither `absent` nor `path` with `equals`; "),
        (json!({"complete_if": {"path": "$.a"}}), "complete_if: is neither `absent` nor "),
        (
            json!({"complete_if": {"absent": "$.a", "path": "$.a", "equals": 1}}),
            "complete_if: is neither `absent` nor ",
        ),
        (json!({"complete_if": {"absent": "a"}}), "complete_if.absent: is not a JSONPath ("),
        (
            json!({"complete_if": {"path": "a", "equals": 1}}),
            "complete_if.path: is not a JSONPath (",
        ),
        (json!({"complete_if": {"path": "$.a", "equals": []}}), "complete_if.equals: must be "),
        (json!({"pages": {}}), "pages: does not say how the answer goes on; "),
        (
            json!({"pages": {"next": "$.n", "link_header": true}}),
            "pages: says more than one way to go on (next, link_header); ",
        ),
        (json!({"pages": {"link_header": false}}), "pages.link_header: is false, "),
        (json!({"pages": {"next": "n"}}), "pages.next: is not a JSONPath ("),
        (
            json!({"pages": {"next": "$.n", "max": 0}}),
            "pages.max: must be a whole number from 1 to ",
        ),
        (json!({"pages": cursor}), "pages.cursor: says nothing that takes the cursor; "),
        (
            and(post(body), json!({"pages": {"cursor": {"path": "$.c", "parameter": "after"}}})),
            "pages.cursor: has two places for the cursor; ",
        ),
        (
            json!({
                "url": "http://127.0.0.1/{client_id}?a=1",
                "pages": {"cursor": {"path": "$.c", "parameter": "a"}},
            }),
            "pages.cursor.parameter: is in `url` already; ",
        ),
        (
            json!({"pages": {"count": {"path": "$.c", "parameter": "p"}}}),
            "pages.count.from: missing; ",
        ),
        (
            json!({"pages": {"count": {"path": "$.c", "parameter": "p", "from": 2}}}),
            "pages.count.from: must be a whole number from 0 to 1; ",
        ),
        (
            json!({"headers": [{"name": "a", "value": "{client_id} {tenant}"}]}),
            "headers[0].value: has another variable than `{client_id}`; ",
        ),
        (json!({"quota": {"unit": "$.u"}}), "quota.requests_per_unit: missing; "),
        (
            json!({"quota": {"unit": "u", "requests_per_unit": "$.r"}}),
            "quota.unit: is not a JSONPath (",
        ),
    ] {
        let lines = lines(&lookup(keys.clone()));
        let expected = format!("tenants.lookup.{expected}");
        assert!(lines.len() == 1 && lines[0].starts_with(&expected), "{keys}: {lines:#?}");
    }
}

#[test]
fn something_has_to_say_whose_grants_are_asked_for_and_anything_may() {
    let url = json!("http://127.0.0.1/all");
    for keys in [
        json!({"method": "POST"}),
        post(r#"{"id": "x{client_id}"}"#),
        json!({"headers": [{"name": "x-app", "value": "{client_id}"}]}),
    ] {
        http(and(keys, json!({"url": url})));
    }
}

/// A language of its own may have braces that are not variables.
#[test]
fn the_body_is_kept_as_it_is_written() {
    let graphql =
        r#"{ "query": "query { app(id: \"{client_id}\") { tenants {code} } }", "n": 1.0 }"#;
    let lookup = http(post(graphql));
    assert_eq!(lookup.body.as_ref().unwrap().first, graphql);
    assert_eq!(lookup.reading.refuse.len(), 1);
    let plain = http(json!({"method": "POST"}));
    assert_eq!(plain.body.unwrap().first, r#"{"client_id":"{client_id}"}"#);
    assert!(plain.reading.refuse.is_empty());
}

#[test]
fn authzen_says_all_but_where_and_who() {
    let authzen = json!({
        "url": "https://pdp.example.com/t1/", "subject_type": "client", "action": "read",
        "resource_type": "a\"'b",
    });
    let base = json!({"url": null, "select": null, "authzen": authzen});
    let found = http(and(base.clone(), json!({"no_grants_status": [404], "claims": {"p": "$.p"}})));
    assert_eq!(found.url.0, "https://pdp.example.com/t1/access/v1/search/resource");
    let answer = json!({"results": [{"type": "a\"'b"}, {"type": "a"}, {}]});
    assert_eq!(found.reading.refuse[0].query(&answer).all().len(), 2);
    assert!(found.pages.is_some() && found.reading.claims.len() == 1);

    let fields = |config: &Value| -> Vec<String> {
        let lines = lines(config);
        lines.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect()
    };
    let beside = json!({"select": "$.a", "of": "keys", "pages": {"next": "$.n"}, "method": "POST"});
    let expected = ["method", "of", "pages", "select"].map(|key| format!("tenants.lookup.{key}"));
    assert_eq!(fields(&lookup(and(base.clone(), beside))), expected);
    let grpc = json!({"grpc": {"url": "http://127.0.0.1:9400"}});
    assert_eq!(fields(&lookup(and(base.clone(), grpc))), ["tenants.lookup"]);
    let mut query = base.clone();
    query["authzen"]["url"] = json!("https://pdp.example.com/?a=b");
    assert_eq!(fields(&lookup(query)), ["tenants.lookup.authzen.url"]);
    let mut missing = base;
    missing["authzen"].as_object_mut().unwrap().remove("action");
    assert_eq!(fields(&lookup(missing)), ["tenants.lookup.authzen.action"]);
}
