//! The path rule: one parser that accepts a request path or refuses it.
//!
//! It never decodes, normalises or repairs, because an upstream may do any of that differently.
//! Accepted is only what every upstream reads the same way; `CheckedPath` is the proof, and the
//! router takes nothing else.

use std::fmt;

const MAX_BYTES: usize = 8 * 1024;
const MAX_SEGMENTS: usize = 256;

/// Why a path was refused. Holds nothing of the path, which contains a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    Empty,
    NotOriginForm,
    TooLong,
    TooManySegments,
    EmptySegment,
    DotSegment,
    Backslash,
    Semicolon,
    Fragment,
    Space,
    ControlByte,
    NonAscii,
    InvalidEscape,
    EncodedSlash,
    EncodedBackslash,
    EncodedDot,
    EncodedSemicolon,
    EncodedControlByte,
    EncodedPercent,
    DoubleEncoding,
    InvalidUtf8,
    InvalidTenant,
    EscapeBeforeTenant,
    EscapedLiteral,
    NearTenantRoute,
}

impl PathError {
    /// The reason's name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.name_and_text().0
    }

    fn name_and_text(self) -> (&'static str, &'static str) {
        match self {
            Self::Empty => ("empty_path", "the path is empty"),
            Self::NotOriginForm => ("not_origin_form", "the path does not start with `/`"),
            Self::TooLong => ("path_too_long", "the path is longer than 8 KiB"),
            Self::TooManySegments => ("too_many_segments", "the path has over 256 segments"),
            Self::EmptySegment => ("empty_segment", "the path has an empty segment (`//`)"),
            Self::DotSegment => ("dot_segment", "the path has a `.` or `..` segment"),
            Self::Backslash => ("backslash", "the path has a `\\`"),
            Self::Semicolon => ("semicolon", "the path has a `;`"),
            Self::Fragment => ("fragment", "the path has a `#`"),
            Self::Space => ("space", "the path has an unencoded space"),
            Self::ControlByte => ("control_byte", "the path has a control byte"),
            Self::NonAscii => ("non_ascii", "the path has an unencoded non-ASCII byte"),
            Self::InvalidEscape => {
                ("invalid_escape", "the path has a `%` without two hexadecimal digits")
            }
            Self::EncodedSlash => ("encoded_slash", "the path has an encoded `/`"),
            Self::EncodedBackslash => ("encoded_backslash", "the path has an encoded `\\`"),
            Self::EncodedDot => ("encoded_dot", "the path has an encoded `.`"),
            Self::EncodedSemicolon => ("encoded_semicolon", "the path has an encoded `;`"),
            Self::EncodedControlByte => {
                ("encoded_control_byte", "the path has an encoded control byte")
            }
            Self::EncodedPercent => {
                ("encoded_percent", "the path has an encoded `%`, which the route does not allow")
            }
            Self::DoubleEncoding => ("double_encoding", "the path has an escape within an escape"),
            Self::InvalidUtf8 => ("invalid_utf8", "the decoded path is not valid UTF-8"),
            Self::InvalidTenant => {
                ("invalid_tenant", "the segment at the tenant's place is not a tenant code")
            }
            Self::EscapeBeforeTenant => {
                ("escape_before_tenant", "the path has an escape before the tenant's segment")
            }
            Self::EscapedLiteral => (
                "escaped_literal",
                "the path has an escaped spelling of a fixed segment of another route",
            ),
            Self::NearTenantRoute => (
                "near_tenant_route",
                "the path differs from a tenant's route only in case or in a trailing slash",
            ),
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name_and_text().1)
    }
}

impl std::error::Error for PathError {}

/// A path that the rule accepts, exactly as sent, without its query.
#[derive(Clone, Copy)]
pub struct CheckedPath<'a> {
    /// ASCII, without the leading `/`.
    after_root: &'a str,
    encoded_percent: bool,
}

impl<'a> CheckedPath<'a> {
    /// `target` is Envoy's `:path`. From the first `?` on it never matters.
    pub fn parse(target: &'a [u8]) -> Result<Self, PathError> {
        let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
        let after_root = match path {
            [] => return Err(PathError::Empty),
            [b'/', after_root @ ..] => after_root,
            _ => return Err(PathError::NotOriginForm),
        };
        if path.len() > MAX_BYTES {
            return Err(PathError::TooLong);
        }
        let encoded_percent = check(after_root)?;
        let after_root = str::from_utf8(after_root).map_err(|_| PathError::NonAscii)?;
        Ok(Self { after_root, encoded_percent })
    }

    /// The segments as sent. Only the last can be empty: the path then ends in `/`.
    pub fn segments(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.after_root.split('/')
    }

    /// Whether `%25` occurs, which only a route that allows it may accept.
    pub fn has_encoded_percent(&self) -> bool {
        self.encoded_percent
    }
}

impl fmt::Debug for CheckedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedPath(..)")
    }
}

/// What an upstream that decodes would see of a segment of a `CheckedPath`. For comparing only:
/// the router refuses a path by it, and never matches one by it.
pub(super) fn decoded(segment: &str) -> impl Iterator<Item = u8> + Clone {
    let mut rest = segment.as_bytes();
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        let (byte, after) = match first {
            b'%' => unescape(after).ok()?,
            _ => (first, after),
        };
        rest = after;
        Some(byte)
    })
}

/// Returns whether `%25` was seen.
fn check(after_root: &[u8]) -> Result<bool, PathError> {
    let mut rest = after_root;
    let mut segments = 1;
    let mut segment = DecodedSegment::default();
    let mut encoded_percent = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'/' => {
                if segment.bytes == 0 {
                    return Err(PathError::EmptySegment);
                }
                segment.finish()?;
                segment = DecodedSegment::default();
                segments += 1;
                if segments > MAX_SEGMENTS {
                    return Err(PathError::TooManySegments);
                }
            }
            b'%' => {
                let (byte, after) = unescape(rest)?;
                rest = check_escaped(byte, after)?;
                encoded_percent |= byte == b'%';
                segment.push(byte)?;
            }
            _ => {
                check_raw(byte)?;
                segment.push(byte)?;
            }
        }
    }
    segment.finish()?;
    Ok(encoded_percent)
}

/// A segment as an upstream sees it that decodes once, as far as the rule must know it.
#[derive(Default)]
struct DecodedSegment {
    bytes: usize,
    dots: usize,
    spaces: usize,
    /// Hexadecimal digits since a decoded `%`.
    digits_after_percent: Option<u8>,
}

impl DecodedSegment {
    fn push(&mut self, byte: u8) -> Result<(), PathError> {
        self.bytes += 1;
        self.dots += usize::from(byte == b'.');
        self.spaces += usize::from(byte == b' ');
        // `%25` may stand for a percent sign, also where a route allows it, but never begin an
        // escape that an upstream which decodes twice would act on (`%252e`, `%25%32%65`).
        self.digits_after_percent = match self.digits_after_percent {
            _ if byte == b'%' => Some(0),
            Some(0) if byte.is_ascii_hexdigit() => Some(1),
            Some(_) if byte.is_ascii_hexdigit() => return Err(PathError::DoubleEncoding),
            _ => None,
        };
        Ok(())
    }

    fn finish(&self) -> Result<(), PathError> {
        match self.dots {
            // Some upstreams trim spaces before they look for dots.
            1 | 2 if self.dots + self.spaces == self.bytes => Err(PathError::DotSegment),
            _ => Ok(()),
        }
    }
}

fn check_raw(byte: u8) -> Result<(), PathError> {
    match byte {
        b'\\' => Err(PathError::Backslash),
        b';' => Err(PathError::Semicolon),
        b'#' => Err(PathError::Fragment),
        // It would end the target in an HTTP/1 request line.
        b' ' => Err(PathError::Space),
        0x00..=0x1f | 0x7f => Err(PathError::ControlByte),
        0x80.. => Err(PathError::NonAscii),
        _ => Ok(()),
    }
}

/// Checks what an escape stands for. Returns what follows it: the rest of a multi-byte character
/// is checked and skipped with its first byte.
fn check_escaped(byte: u8, after: &[u8]) -> Result<&[u8], PathError> {
    match byte {
        b'/' => Err(PathError::EncodedSlash),
        b'\\' => Err(PathError::EncodedBackslash),
        b'.' => Err(PathError::EncodedDot),
        b';' => Err(PathError::EncodedSemicolon),
        0x00..=0x1f | 0x7f => Err(PathError::EncodedControlByte),
        0x80.. => check_multi_byte(byte, after),
        _ => Ok(after),
    }
}

fn check_multi_byte(first: u8, mut after: &[u8]) -> Result<&[u8], PathError> {
    let width = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(PathError::InvalidUtf8),
    };
    let mut character = [first, 0, 0, 0];
    for byte in &mut character[1..width] {
        let [b'%', escape @ ..] = after else {
            return Err(PathError::InvalidUtf8);
        };
        (*byte, after) = unescape(escape)?;
    }
    match str::from_utf8(&character[..width]) {
        Ok(_) => Ok(after),
        Err(_) => Err(PathError::InvalidUtf8),
    }
}

/// Takes what follows a `%`; returns the byte that the escape stands for and what follows it.
fn unescape(after_percent: &[u8]) -> Result<(u8, &[u8]), PathError> {
    let [high, low, after @ ..] = after_percent else {
        return Err(PathError::InvalidEscape);
    };
    match (hex_digit(*high), hex_digit(*low)) {
        (Some(high), Some(low)) => Ok((high << 4 | low, after)),
        _ => Err(PathError::InvalidEscape),
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
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
    fn every_character_escaped_is_accepted() {
        for c in (0xa0..=0x10_ffff).step_by(61).chain([0x80, 0x7ff, 0x800, 0xffff, 0x10000]) {
            let Some(c) = char::from_u32(c) else { continue };
            let escaped: String = c.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
            assert_eq!(reason(format!("/a/{escaped}/%41{escaped}{escaped}")), None, "{c:?}");
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

    /// The rule told the plain and slow way: on text, by searching and decoding.
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
            && !(0..once.len()).any(|at| {
                once[at] == b'%' && decode(&once[at..][..3.min(once.len() - at)]).is_some()
            })
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

    /// Paths of which every second or so is acceptable but for one thing.
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
        prop::collection::vec(part, 0..8)
            .prop_map(|parts| [b"/a".to_vec(), parts.concat()].concat())
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
}
