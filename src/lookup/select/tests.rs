use std::collections::BTreeMap;

use super::super::testing::{json_path, reading};
use super::*;
use crate::config;

fn read(reading: &AnswerReading, body: &Value) -> Result<Listed, Unavailable> {
    let (selector, mut listed) = (Selector::new(reading), Listed::default());
    selector.read(body, &mut listed)?;
    selector.finish(body, &mut listed)?;
    Ok(listed)
}

fn select(query: &str, array: Option<&str>, body: &Value) -> String {
    match read(&reading(json_path(query, array)), body) {
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
        ("$.t[?@.on].code", "$.t", json!({"t": [{"on": true}]}), "wrong_shape"),
        ("$.t[?@.on].g[*].code", "$.t", json!({"t": [{"on": true, "g": []}]}), none),
        ("$.t[?@.on].g[?@.on].code", "$.t", json!({"t": [{"on": 1, "g": [{}]}]}), none),
        ("$.t[*].g[?@.on].code", "$.t", json!({"t": [{"g": [{}]}, {}]}), "wrong_shape"),
        ("$.t[?@.on].code", "$.t", json!({}), "wrong_shape"),
        ("$['a?b'][*].code", "$['a?b']", json!({"a?b": [{"id": 1}]}), "wrong_shape"),
        ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": [{"c": "A"}]}, {"t": []}]}), "A -[]"),
        ("$.g[*].t[*].c", "$.g", json!({"g": []}), none),
        ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": []}, {"t": []}]}), none),
        ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": []}, {}]}), "wrong_shape"),
        ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": [{}]}]}), "wrong_shape"),
        ("$.g[*].t[*].c", "$.g", json!({"g": [{"t": {}}]}), "wrong_shape"),
        ("$.g.*['s [*]'].*", "$.g", json!({"g": [{"s [*]": []}]}), none),
        ("$.g [?@.on == \"it's\"] .t [*]", "$.g", json!({"g": [{"on": "it's", "t": []}]}), none),
        ("$.g[?@.on == 'a\"]'].t[*]", "$.g", json!({"g": [{"on": "a\"]"}]}), "wrong_shape"),
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
    let claim = |query| config::SelectedClaim { select: json_path(query, None), display: false };
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
    let reading = AnswerReading { claims, ..reading(json_path("$.t[*]", Some("$.t"))) };
    let Ok(found) = read(&reading, &body) else { panic!() };
    let expected =
        [("limits", r#"{"a":[1,2]}"#), ("plan", r#""gold \"1\"""#), ("regions", r#"["eu","us"]"#)];
    assert_eq!(found.claims, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(found.dropped_claims, ["large"]);
}

#[test]
fn a_quota_is_whole_or_none() {
    let path = |text| JsonPath::parse(text).unwrap();
    let paths = QuotaPaths { requests_per_unit: path("$.q.requests"), unit: path("$.q.unit") };
    let reading = AnswerReading { quota: Some(paths), ..reading(json_path("$.t[*]", Some("$.t"))) };
    let hourly = Quota { requests_per_unit: 500, unit: QuotaUnit::Hour };
    for (quota, expected) in [
        (json!({"requests": 500, "unit": "HOUR"}), Some(hourly)),
        (json!({"requests": 500, "unit": "hour"}), Some(hourly)),
        (json!({"requests": 500}), None),
        (json!({"requests": -1, "unit": "HOUR"}), None),
        (json!({"requests": 5_000_000_000_u64, "unit": "HOUR"}), None),
        (json!({"requests": 500, "unit": "WEEK"}), None),
    ] {
        let found = read(&reading, &json!({"t": ["A"], "q": quota})).ok().unwrap();
        assert_eq!((found.quota, found.bad_quota), (expected, expected.is_none()), "{quota}");
    }
    let none = read(&reading, &json!({"t": ["A"]})).ok().unwrap();
    assert_eq!((none.quota, none.bad_quota), (None, false));
}

#[test]
fn a_wrong_shape_says_how_far_the_query_got() {
    for (query, array, body, expected) in [
        (
            "$.data.items[*].code",
            Some("$.data.items"),
            json!({"data": {"CANARY": []}}),
            "the array that `select` walks is missing: no `$.data.items`, as `$.data` is an \
             object",
        ),
        (
            "$.tenant",
            None,
            json!([]),
            "`select` matches nothing: no `$.tenant`, as the answer is an array",
        ),
        (
            "$.t[*].code",
            Some("$.t"),
            json!({"t": ["CANARY"]}),
            "the array that `select` walks has items, but `select` matches none: no \
             `$.t[*].code`, as `$.t[*]` is text",
        ),
        ("$.t[*]", Some("$.t"), json!({"t": 1}), "what `select` walks is a number, not an array"),
        (
            "$.t[*]",
            Some("$.t"),
            json!({"t": ["A", 1.5]}),
            "`select` matches a number at position 1, not text or a whole number",
        ),
    ] {
        let Err(Unavailable::WrongShape(what)) = read(&reading(json_path(query, array)), &body)
        else {
            panic!("{query} on {body}");
        };
        assert_eq!(what, expected);
    }
}
