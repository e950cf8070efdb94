use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::config::raw;
use crate::yaml::schema::*;

/// Every keyword of a schema, those of its definitions too.
fn keywords(schema: &Value, found: &mut BTreeSet<String>) {
    let Some(object) = schema.as_object() else { return };
    for (keyword, value) in object {
        found.insert(keyword.clone());
        match keyword.as_str() {
            "properties" | "$defs" => {
                value.as_object().unwrap().values().for_each(|inner| keywords(inner, found));
            }
            "anyOf" | "oneOf" => {
                value.as_array().unwrap().iter().for_each(|inner| keywords(inner, found));
            }
            "items" | "additionalProperties" => keywords(value, found),
            _ => {}
        }
    }
}

#[test]
fn the_schemas_use_no_keyword_that_is_not_looked_at() {
    let mut found = BTreeSet::new();
    keywords(&of::<raw::Root>(), &mut found);
    keywords(&of::<crate::yaml::tests::Garden>(), &mut found);
    let looked_at = [
        "$ref",
        "additionalProperties",
        "anyOf",
        "const",
        "enum",
        "items",
        "maximum",
        "minItems",
        "minimum",
        "oneOf",
        "properties",
        "required",
        "type",
    ];
    // `format` tells the width of an integer, which the range says too or serde does.
    let for_readers = ["$defs", "$schema", "default", "description", "examples", "format", "title"];
    let known =
        |word: &String| looked_at.contains(&word.as_str()) || for_readers.contains(&word.as_str());
    found.retain(|word| !known(word));
    assert_eq!(found, BTreeSet::new());
}

fn a_config() -> Value {
    json!({
        "listen": {"check": "127.0.0.1:1", "token": "127.0.0.1:2"},
        "issuer": {
            "url": "https://a", "audience": "a", "token_ttl": "5m", "signing_keys": "keys",
            "tenant_claim": {"name": "t", "form": "plain"},
        },
        "clients": {"file": "clients.yaml"},
        "tenants": {
            "freshness": {"refresh": "60s"},
            "lookup": {
                "url": "https://a/{client_id}", "select": "$.a[*]", "max_tries": 2,
                "claims": {"plan": "$.plan", "size": {"select": "$.size", "display": true}},
                "no_grants_status": [404], "headers": [{"name": "a", "value": "b"}],
                "auth": {"basic": {"username": "a", "password_file": "b"}},
            },
            "on_miss": "lookup",
        },
        "issuers": [{
            "issuer": "https://i", "jwks_url": "https://i/jwks", "audience": "a",
            "algorithms": ["ES256"], "tenant_claim": "/t",
        }],
        "apis": [{"name": "a", "routes": [
            {"path": "/{tenant}/**", "methods": ["GET"], "public": false, "scopes": ["a"]},
        ]}],
        "limits": {"token_connections": 5, "probing": {"tenants": 3, "window": "1m"}},
    })
}

/// JSON Pointers to every value.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(key, inner)| places(inner, &format!("{at}/{key}"), found));
        }
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(index, inner)| places(inner, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

fn change(document: &mut Value, place: &Index, to: &Value, how: u8) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    let place: &String = place.get(&all);
    let at = document.pointer_mut(place).unwrap();
    match (how, at) {
        (0, Value::Object(object)) => drop(object.insert("odd".to_owned(), to.clone())),
        (1, Value::Object(object)) => {
            let first = object.keys().next().cloned();
            first.and_then(|key| object.remove(&key));
        }
        (2, Value::Array(items)) => drop(items.pop()),
        (3, Value::Array(items)) => items.push(to.clone()),
        (_, at) => *at = to.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_fits_is_what_a_validator_of_others_accepts(
        changes in prop::collection::vec(
            (any::<Index>(), prop::sample::select(vec![
                json!(null), json!(true), json!(0), json!(5), json!(-1), json!(5.0), json!(5.5),
                json!(1e300), json!(70000), json!("x"), json!("token"), json!("static"),
                json!("plain"), json!([]), json!(["ES256"]), json!({}), json!({"select": "$.a"}),
            ]), 0..6_u8),
            0..3,
        ),
    ) {
        let mut document = a_config();
        for (place, to, how) in &changes {
            change(&mut document, place, to, *how);
        }
        thread_local! {
            static SCHEMA: (Value, jsonschema::Validator) = {
                let schema = of::<raw::Root>();
                let validator = jsonschema::validator_for(&schema).unwrap();
                (schema, validator)
            };
        }
        let (found, valid, theirs) = SCHEMA.with(|(schema, validator)| {
            let places: BTreeSet<String> =
                validator.iter_errors(&document).map(|e| e.instance_path().to_string()).collect();
            (findings(schema, &document), validator.is_valid(&document), places)
        });
        prop_assert_eq!(found.is_empty(), valid, "{:?} {:?}", found, document);
        // Nothing that they complain of goes unsaid: there is a finding there, or deeper.
        let ours: Vec<String> = found.iter().map(|finding| pointer(&finding.path)).collect();
        for place in theirs {
            prop_assert!(ours.iter().any(|ours| ours.starts_with(&place)), "{} {:?}", place, ours);
        }
    }
}

fn pointer(path: &[PathStep]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        PathStep::Key(key) => format!("{text}/{key}"),
        PathStep::Index(index) => format!("{text}/{index}"),
    })
}
