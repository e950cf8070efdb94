use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

fn reason(path: impl AsRef<[u8]>) -> Option<&'static str> {
    CheckedPath::parse(path.as_ref()).err().map(PathError::as_str)
}

#[test]
fn lengths_are_those_of_the_path_without_the_query() {
    let longest = format!("/{}", "a".repeat(MAX_BYTES - 1));
    assert_eq!(reason(&longest), None);
    assert_eq!(reason(format!("{longest}?{longest}")), None);
    assert_eq!(reason(format!("{longest}a")), Some("path_too_long"));

    assert_eq!(reason("/a".repeat(256)), None);
    assert_eq!(reason(format!("{}/", "/a".repeat(255))), None);
    assert_eq!(reason(format!("{}/", "/a".repeat(256))), Some("too_many_segments"));
    assert_eq!(reason("/a".repeat(257)), Some("too_many_segments"));
}

#[test]
fn every_byte_raw_and_escaped_in_either_case() {
    for byte in 0..=255_u8 {
        let raw = [b"/a".as_slice(), &[byte], b"b"].concat();
        let expected = match byte {
            0..=0x1f | 0x7f => Some("control_byte"),
            b' ' => Some("space"),
            b'#' => Some("fragment"),
            b'%' => Some("invalid_escape").filter(|_| byte == b'%'),
            b';' => Some("semicolon"),
            b'\\' => Some("backslash"),
            0x80.. => Some("non_ascii"),
            _ => None,
        };
        assert_eq!(reason(raw), expected, "raw {byte:#x}");

        let expected = match byte {
            0..=0x1f | 0x7f => Some("encoded_control_byte"),
            b'.' => Some("encoded_dot"),
            b'/' => Some("encoded_slash"),
            b';' => Some("encoded_semicolon"),
            b'\\' => Some("encoded_backslash"),
            0x80.. => Some("invalid_utf8"),
            _ => None,
        };
        for escaped in [format!("/a%{byte:02x}z"), format!("/a%{byte:02X}z")] {
            assert_eq!(reason(&escaped), expected, "escaped {byte:#x}");
            if let Ok(path) = CheckedPath::parse(escaped.as_bytes()) {
                assert_eq!(path.has_encoded_percent(), byte == b'%', "escaped {byte:#x}");
            }
        }
    }
}

#[test]
fn every_character_escaped_is_accepted_unless_it_folds_into_syntax() {
    let all = (0x80..=0x10_ffff).step_by(61).chain(0x2000..0x2500).chain(0xfe00..=0xffff);
    let mut refused = Vec::new();
    for c in all.chain([0x80, 0x7ff, 0x800, 0x10000, 0x37e]).filter_map(char::from_u32) {
        let escaped: String = c.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
        match reason(format!("/a/x{escaped}/%41{escaped}{escaped}")) {
            None => {}
            Some("looks_like_syntax") => refused.push(c),
            other => panic!("{c:?}: {other:?}"),
        }
    }
    for c in ['\u{ff0f}', '\u{ff3c}', '\u{ff1b}', '\u{37e}', '\u{2100}', '\u{2105}', '\u{fe54}'] {
        assert!(refused.contains(&c), "{c:?}");
    }
    assert!(refused.len() < 30, "{refused:?}");
}

#[test]
fn what_folds_into_dots_or_into_nothing_is_refused_as_they_are() {
    for (path, expected) in [
        ("/a/%ef%bc%8e/b", Some("dot_segment")),
        ("/a/%ef%bc%8e%ef%bc%8e", Some("dot_segment")),
        ("/a/%e2%80%a5/b", Some("dot_segment")),
        ("/a/.%ef%bc%8e/b", Some("dot_segment")),
        ("/a/%e3%80%80..%c2%a0/b", Some("dot_segment")),
        ("/a/.%c2%ad./b", Some("dot_segment")),
        ("/a/%e2%80%8b/b", Some("empty_segment")),
        ("/a/%25%ef%bc%94%ef%bc%91", Some("double_encoding")),
        ("/a/%ef%bc%8541", Some("double_encoding")),
        ("/a/%ef%bc%85", None),
        ("/a/%e2%80%a6", None),
        ("/a/b%e2%80%8b", None),
        ("/a/%e2%80%8b", None),
        ("/a/%ef%bc%8e%ef%bc%8ea", None),
    ] {
        assert_eq!(reason(path), expected, "{path}");
    }
}

#[test]
fn an_encoded_percent_never_begins_another_escape() {
    for allowed in ["/%25", "/a%25/41", "/%25g1", "/%254g", "/%25%c3%a941", "/%25%25z"] {
        let path = CheckedPath::parse(allowed.as_bytes()).expect(allowed);
        assert!(path.has_encoded_percent(), "{allowed}");
    }
    for refused in ["/%2541", "/%25%34%31", "/%254%31", "/%25%341", "/%25%25aF", "/%252525"] {
        assert_eq!(reason(refused), Some("double_encoding"), "{refused}");
    }
}

#[test]
fn segments_are_those_of_the_path_as_sent() {
    let segments = |path: &'static str| -> Vec<&str> {
        CheckedPath::parse(path.as_bytes()).expect(path).segments().collect()
    };
    assert_eq!(segments("/"), [""]);
    assert_eq!(segments("/a?b/c"), ["a"]);
    assert_eq!(segments("/a/%41b/"), ["a", "%41b", ""]);
}

#[test]
fn nothing_of_a_path_is_printed() {
    let path = CheckedPath::parse(b"/api/canary").unwrap();
    assert_eq!(format!("{path:?}"), "CheckedPath(..)");
    let error = CheckedPath::parse(b"/canary/..").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));
}

/// The rule written the plain, slow way: on text, by searching and decoding.
fn accepts(target: &[u8]) -> bool {
    let path = target.split(|byte| *byte == b'?').next().unwrap();
    let Ok(path) = str::from_utf8(path) else {
        return false;
    };
    let lower = path.to_lowercase();
    let has_any = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    let Some(after_root) = path.strip_prefix('/') else {
        return false;
    };
    let Some(once) = decode(path.as_bytes()) else {
        return false;
    };
    path.is_ascii()
        && path.len() <= 8192
        && after_root.split('/').count() <= 256
        && !has_any(&["//", "\\", ";", "#", " ", "%2f", "%5c", "%2e", "%3b"])
        && !path.split('/').any(|segment| {
            let decoded = decode(segment.as_bytes()).unwrap_or_default();
            let trimmed: Vec<u8> = decoded.into_iter().filter(|byte| *byte != b' ').collect();
            trimmed == b"." || trimmed == b".."
        })
        && !once.iter().any(u8::is_ascii_control)
        && str::from_utf8(&once).is_ok()
        && !(0..once.len())
            .any(|at| once[at] == b'%' && decode(&once[at..][..3.min(once.len() - at)]).is_some())
}

fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(bytes).ok()?;
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        decoded.extend(&part.as_bytes()[2..]);
    }
    Some(decoded)
}

/// Paths of which about half are acceptable, or would be but for one thing.
fn hostile_target() -> impl Strategy<Value = Vec<u8>> {
    let harmless = prop::sample::select(vec![
        "a",
        "T1",
        "%41",
        "%20",
        "%c3%a9",
        "%E2%82%AC",
        "x",
        "7",
        "...",
        ".h",
        "-",
        "g%3f",
    ]);
    let suspect = prop::sample::select(vec![
        "%25", "%", "2", "e", ".", "/", "?", "%2e", "%2F", "%32", "%65", "%c3", "%a9", "%ed",
        "%a0", "%00", "%7f", "\\", ";", "%5C", "%3B", "#", " ", "%zz", "%4",
    ]);
    let part = prop_oneof![
        12 => harmless.prop_map(|text| text.as_bytes().to_vec()),
        6 => Just(b"/".to_vec()),
        4 => suspect.prop_map(|text| text.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| [b"/a".to_vec(), parts.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_parser_agrees_with_the_rule_told_plainly(target in hostile_target()) {
        prop_assert_eq!(CheckedPath::parse(&target).is_ok(), accepts(&target));
    }

    #[test]
    fn any_bytes_are_answered_and_as_the_plain_rule_does(
        target in prop::collection::vec(any::<u8>(), 0..12),
        rooted: bool,
    ) {
        let target = if rooted { [b"/".as_slice(), &target].concat() } else { target };
        prop_assert_eq!(CheckedPath::parse(&target).is_ok(), accepts(&target));
    }

    #[test]
    fn an_accepted_path_is_returned_as_sent_and_whatever_the_query(
        path in hostile_target(),
        query in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let with_query = [path.as_slice(), b"?", &query].concat();
        let (plain, queried) = (CheckedPath::parse(&path), CheckedPath::parse(&with_query));
        prop_assert_eq!(plain.err(), queried.err());
        if let (Ok(plain), Ok(queried)) = (plain, queried) {
            let sent = path.split(|byte| *byte == b'?').next().unwrap();
            let sent = str::from_utf8(sent).unwrap();
            let segments: Vec<_> = plain.segments().collect();
            prop_assert_eq!(format!("/{}", segments.join("/")), sent);
            prop_assert!(queried.segments().eq(plain.segments()));
            prop_assert_eq!(plain.has_encoded_percent(), sent.contains("%25"));
        }
    }
}

#[test]
fn the_generated_paths_are_accepted_and_refused_often() {
    let mut runner = TestRunner::deterministic();
    let accepted = (0..2000)
        .map(|_| hostile_target().new_tree(&mut runner).unwrap().current())
        .filter(|target| CheckedPath::parse(target).is_ok())
        .count();
    assert!((600..=1600).contains(&accepted), "{accepted} of 2000 accepted");
}
