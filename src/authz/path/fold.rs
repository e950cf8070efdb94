//! What characters outside of ASCII may become in an upstream that compares text without regard to
//! case, width or ligatures. For refusing only: nothing is ever matched by it.

use std::iter;

use unicode_normalization::UnicodeNormalization as _;

/// The character after NFKC and case folding; nothing where it is ignorable. Where the result is
/// ASCII, NFKC and case folding give the same in either order and in full or simple form.
pub fn folded(character: char) -> impl Iterator<Item = char> {
    // Upper case first: only that way `ı` and `ſ` become `i` and `s`.
    let folded = iter::once(character).nfkc().flat_map(char::to_uppercase);
    folded.flat_map(char::to_lowercase).filter(|c| !is_ignorable(*c))
}

/// Dropped by upstreams that fold like identifiers (`NFKC_Casefold`): Unicode's
/// `Default_Ignorable_Code_Point`. The dot above is what `İ` leaves over an `i`; some upstreams
/// drop it.
fn is_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{307}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_becomes_ascii_by_some_way_of_folding_becomes_the_same_here() {
        let ways: [fn(&str) -> String; 6] = [
            str::to_lowercase,
            str::to_uppercase,
            |text| text.nfkc().collect(),
            |text| text.to_uppercase().to_lowercase(),
            |text| text.nfkc().collect::<String>().to_lowercase().nfkc().collect(),
            |text| text.to_uppercase().nfkc().collect::<String>().to_lowercase(),
        ];
        let mut found = 0;
        for character in '\u{80}'..=char::MAX {
            let folded: String = folded(character).collect();
            for way in ways {
                let other = way(&character.to_string());
                if other.is_ascii() {
                    assert_eq!(folded, other.to_ascii_lowercase(), "{character:?}");
                    found += 1;
                }
            }
        }
        assert!(found > 4000, "only {found} were seen");
    }
}
