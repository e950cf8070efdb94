//! How an upstream that is less strict than the router may read a segment.

use super::super::path::{decoded, folded};

/// The segment as read by an upstream that decodes it, folds what is not ASCII, lets a decoded `?`
/// or `#` end it, and trims spaces and trailing dots. `None`: as sent, ASCII case aside.
pub fn other_reading(segment: &str) -> Option<String> {
    if !segment.contains('%') && !segment.ends_with('.') {
        return None;
    }
    let bytes: Vec<u8> = decoded(segment).collect();
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if !text.is_ascii() {
        text = text.chars().flat_map(folded).collect();
    }
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let text = text.trim_end_matches(|c: char| c.is_whitespace() || c == '.').trim_start();
    Some(text.to_owned())
}

/// Whether an upstream may take the path to end with a slash here.
pub fn reads_as_nothing(segment: &str) -> bool {
    segment.is_empty() || other_reading(segment).is_some_and(|text| text.is_empty())
}
