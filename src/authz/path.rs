//! The path rule: one parser that accepts a request path or refuses it.
//!
//! It never decodes, normalises or repairs, because an upstream may do any of that differently. It
//! accepts only what every upstream reads the same way; `CheckedPath` is the proof, and the router
//! takes nothing else.

use std::fmt;

mod fold;

pub(super) use fold::folded;

const MAX_BYTES: usize = 8 * 1024;
const MAX_SEGMENTS: usize = 256;

/// Why a path was refused. Holds nothing of the path, which contains a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// Nothing before the first `?`, as in a CONNECT request.
    Empty,
    /// Not the origin form of RFC 9112, section 3.2.1: it starts with something other than `/`.
    NotOriginForm,
    /// Over 8 KiB, without the query.
    TooLong,
    /// Over 256 segments.
    TooManySegments,
    /// `//`, which some upstreams merge into `/`.
    EmptySegment,
    /// `.` or `..`, also after decoding and with spaces around it.
    DotSegment,
    /// A raw `\`, which some upstreams read as `/`.
    Backslash,
    /// A raw `;`, where some upstreams end the segment.
    Semicolon,
    /// A raw `#`, where some upstreams end the path.
    Fragment,
    /// A raw space, which ends the target in an HTTP/1 request line.
    Space,
    /// A raw byte below `0x20`, or `0x7f`.
    ControlByte,
    /// A raw byte of `0x80` or above.
    NonAscii,
    /// `%` without two hexadecimal digits.
    InvalidEscape,
    /// `%2f`, in either case.
    EncodedSlash,
    /// `%5c`, in either case.
    EncodedBackslash,
    /// `%2e` in either case, anywhere in a segment.
    EncodedDot,
    /// `%3b`, in either case.
    EncodedSemicolon,
    /// `%00` to `%1f`, or `%7f`.
    EncodedControlByte,
    /// `%25`, on a route without `allow_encoded_percent`.
    EncodedPercent,
    /// `%25` that begins a second escape, such as `%252e`; no route allows it.
    DoubleEncoding,
    /// Escapes that do not decode to UTF-8, overlong forms included.
    InvalidUtf8,
    /// An escaped character that folds (NFKC, case) into `/`, `\` or `;`.
    LooksLikeSyntax,
    /// The segment at `{tenant}` is not a tenant code.
    InvalidTenant,
    /// An escape in a `{name}` before the tenant: decoded, it may move the tenant.
    EscapeBeforeTenant,
    /// A segment that decodes, folds or trims to a fixed segment of a route.
    EscapedLiteral,
    /// But for case or a trailing slash, a route with its tenant at another place matches.
    NearTenantRoute,
    /// But for case or a trailing slash, a route that asks for more matches.
    NearStricterRoute,
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
            Self::LooksLikeSyntax => (
                "looks_like_syntax",
                "the path has a character that some upstreams read as `/`, `\\` or `;`",
            ),
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
            Self::NearStricterRoute => (
                "near_stricter_route",
                "the path differs from a stricter route only in case or in a trailing slash",
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
    /// `target` is Envoy's `:path`. The query, from the first `?` on, is ignored.
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
    #[expect(
        clippy::manual_pattern_char_comparison,
        reason = "to begin a search for one character costs more than to read a short segment"
    )]
    pub fn segments(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.after_root.split(|character| character == '/')
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

/// What a decoding upstream would see of a segment of a `CheckedPath`. The router only ever refuses
/// a path by it, and never matches one.
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
    loop {
        // Most of a path is characters that mean nothing but themselves.
        if segment.digits_after_percent.is_none() {
            let plain = rest.iter().take_while(|byte| is_plain(**byte)).count();
            segment.bytes += plain;
            rest = &rest[plain..];
        }
        let Some((&byte, after)) = rest.split_first() else { break };
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
                if byte >= 0x80 {
                    let (character, after) = multi_byte(byte, after)?;
                    segment.push_non_ascii(character)?;
                    rest = after;
                } else {
                    check_escaped(byte)?;
                    encoded_percent |= byte == b'%';
                    segment.push(byte)?;
                    rest = after;
                }
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

/// What the rule must know of a segment as seen by an upstream that decodes once and may fold what
/// is not ASCII.
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
        // Where a route allows it, `%25` may encode a percent sign, but it must never begin an
        // escape that an upstream decoding twice would act on (`%252e`, `%25%32%65`).
        self.digits_after_percent = match self.digits_after_percent {
            _ if byte == b'%' => Some(0),
            Some(0) if byte.is_ascii_hexdigit() => Some(1),
            Some(_) if byte.is_ascii_hexdigit() => return Err(PathError::DoubleEncoding),
            _ => None,
        };
        Ok(())
    }

    /// Some upstreams normalise Unicode (NFKC) before they look for the syntax of a path.
    fn push_non_ascii(&mut self, character: char) -> Result<(), PathError> {
        for folded in folded(character) {
            match u8::try_from(folded) {
                Ok(b'/' | b'\\' | b';') => return Err(PathError::LooksLikeSyntax),
                Ok(byte @ ..0x80) => self.push(byte)?,
                _ if folded.is_whitespace() => self.push(b' ')?,
                _ => self.push(0x80)?,
            }
        }
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

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
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

fn check_escaped(byte: u8) -> Result<(), PathError> {
    match byte {
        b'/' => Err(PathError::EncodedSlash),
        b'\\' => Err(PathError::EncodedBackslash),
        b'.' => Err(PathError::EncodedDot),
        b';' => Err(PathError::EncodedSemicolon),
        0x00..=0x1f | 0x7f => Err(PathError::EncodedControlByte),
        _ => Ok(()),
    }
}

/// The character that starts with the escaped byte `first`, and what follows it.
fn multi_byte(first: u8, mut after: &[u8]) -> Result<(char, &[u8]), PathError> {
    let width = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(PathError::InvalidUtf8),
    };
    let mut bytes = [first, 0, 0, 0];
    for byte in &mut bytes[1..width] {
        let [b'%', escape @ ..] = after else {
            return Err(PathError::InvalidUtf8);
        };
        (*byte, after) = unescape(escape)?;
    }
    let text = str::from_utf8(&bytes[..width]).map_err(|_| PathError::InvalidUtf8)?;
    text.chars().next().map(|character| (character, after)).ok_or(PathError::InvalidUtf8)
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
mod tests;
