//! What an upstream may take a segment for that is not as strict as the router.

use super::super::path::{decoded, folded};

/// What an upstream may read that decodes a segment, folds what is not ASCII, lets a decoded `?` or
/// `#` end it, or trims spaces and trailing dots. `None`: what was sent, but for ASCII case.
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
