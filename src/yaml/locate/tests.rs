use super::*;

const TEXT: &str = "\
# The gate.
issuer:
  # How long.
  token_ttl: soon
apis:
  - name: oda   # the first
    routes:
      - path: /a
      - methods: [GET,
          POST]
        path: /b
  - { name: other,
      'routes': [
        { path: /c }, { \"path\": /d,
          public: 5 } ] }
last: 1
";

fn line_of(text: &str, field: &str) -> Option<usize> {
    places_of(text, &[field])[0].map(|(line, _)| line)
}

#[test]
fn a_field_is_found_where_its_key_or_item_stands() {
    for (field, line) in [
        ("issuer", 2),
        ("issuer.token_ttl", 4),
        ("apis", 5),
        ("apis[0]", 6),
        ("apis[0].routes[0].path", 8),
        ("apis[0].routes[1]", 9),
        ("apis[0].routes[1].methods[1]", 10),
        ("apis[0].routes[1].path", 11),
        ("apis[1].name", 12),
        ("apis[1].routes", 13),
        ("apis[1].routes[1].path", 14),
        ("apis[1].routes[1].public", 15),
        ("last", 16),
    ] {
        assert_eq!(line_of(TEXT, field), Some(line), "{field}");
    }
}

#[test]
fn a_field_that_is_not_there_is_told_by_what_is_around_it() {
    for (field, line) in [
        ("listen", 2),
        ("issuer.tenant_claim.form", 2),
        ("apis[0].routes[0].methods", 8),
        ("apis[7].name", 5),
        ("last.deeper", 16),
    ] {
        assert_eq!(line_of(TEXT, field), Some(line), "{field}");
    }
}

#[test]
fn several_fields_are_found_at_once_in_their_order() {
    let fields = ["last", "apis[0].name", "last"];
    assert_eq!(places_of(TEXT, &fields), [Some((16, 1)), Some((6, 5)), Some((16, 1))]);
}

#[test]
fn what_stands_behind_an_alias_is_told_by_the_alias() {
    let text = "a: &x { b: 1 }\nc: *x\nd: [*x,\n  { e: &y 5 }]\n";
    let fields = ["a.b", "c.b", "d[0].b", "d[1].e"];
    let lines: Vec<_> = places_of(text, &fields).into_iter().map(|spot| spot.unwrap().0).collect();
    assert_eq!(lines, [1, 2, 3, 4]);
}

#[test]
fn what_is_not_yaml_has_no_lines() {
    for text in ["", "# nothing", "a: [", "a: 1\n b: {", "\"\\q", "\0", "*x", "a: *x"] {
        assert_eq!(line_of(text, "b.c[0]"), None, "{text:?}");
    }
}

#[test]
fn odd_keys_and_fields_do_no_harm() {
    for text in ["? [a]\n: b\nc: 1", "{ {a: 1}: 2 }", "a.b: 1\n\"[\": 2", "[[], [[]]]"] {
        for field in ["", "a.b", "[", "[0].x", "..", "ä[", "]"] {
            assert!(line_of(text, field).is_some(), "{text:?} {field}");
        }
    }
}
