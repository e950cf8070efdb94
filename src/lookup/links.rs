//! `Link` headers (RFC 8288), as far as the next page needs them.

use reqwest::header::HeaderValue;

/// The target of the one link with `rel="next"`. What cannot be read might hide it.
pub fn next<'a>(
    headers: impl IntoIterator<Item = &'a HeaderValue>,
) -> Result<Option<String>, &'static str> {
    let mut found: Option<String> = None;
    for header in headers {
        let mut rest = header.to_str().map_err(|_| UNREADABLE)?.trim();
        while !rest.is_empty() {
            let (link, after) = link(rest).ok_or(UNREADABLE)?;
            rest = after;
            let next = link.relations.split_ascii_whitespace();
            let is_next = next.into_iter().any(|name| name.eq_ignore_ascii_case("next"));
            // With an anchor it is a link of another resource than this page.
            if !is_next || link.anchored {
                continue;
            }
            if found.as_ref().is_some_and(|other| other != link.target) {
                return Err("its `Link` header names several next pages");
            }
            found = Some(link.target.to_owned());
        }
    }
    Ok(found)
}

const UNREADABLE: &str = "its `Link` header cannot be read";

struct Link<'a> {
    target: &'a str,
    relations: String,
    anchored: bool,
}

/// One `<target>; name=value; …`, and what follows its comma.
fn link(text: &str) -> Option<(Link<'_>, &str)> {
    let (target, mut rest) = text.strip_prefix('<')?.split_once('>')?;
    let mut link = Link { target, relations: String::new(), anchored: false };
    let mut has_relations = false;
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(',') {
            // Empty elements of a list are allowed.
            return Some((link, after.trim_start_matches([',', ' ', '\t'])));
        }
        if rest.is_empty() {
            return Some((link, rest));
        }
        rest = rest.strip_prefix(';')?.trim_start();
        let end = rest.find(['=', ';', ',']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        rest = &rest[end..];
        let value = match rest.strip_prefix('=') {
            Some(after) => {
                let (value, after) = value(after.trim_start())?;
                rest = after;
                value
            }
            None => String::new(),
        };
        // Only the first `rel` counts.
        if name.eq_ignore_ascii_case("rel") && !has_relations {
            (link.relations, has_relations) = (value, true);
        } else if name.eq_ignore_ascii_case("anchor") {
            link.anchored = true;
        }
    }
}

/// A token, or a text in quotes.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        return Some((text[..end].trim_end().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(headers: &[&str]) -> Result<Option<String>, &'static str> {
        let headers: Vec<_> =
            headers.iter().map(|text| HeaderValue::from_str(text).unwrap()).collect();
        next(&headers)
    }

    #[test]
    fn the_next_link_is_found_however_it_is_written() {
        for (headers, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["</a>; rel=\"next\""], Some("/a")),
            (&["</a>; rel=next"], Some("/a")),
            (&["</a>;REL = \"NEXT\""], Some("/a")),
            (&["</p>; rel=\"prev\", </n>; rel=\"next\", </l>; rel=last"], Some("/n")),
            (&["</p>; rel=prev", "</n>; rel=next"], Some("/n")),
            (
                &["</a?x=1,2;y>; title=\"a, \\\"b\\\"; rel=prev\"; rel=\"next last\""],
                Some("/a?x=1,2;y"),
            ),
            (&["</a>; rel=\"prev\"; rel=\"next\""], None),
            (&["</a>; rel=\"next\"; anchor=\"/other\""], None),
            (&["</a>; rel=nextish, </b>; crossorigin; rel=next, ,"], Some("/b")),
            (&["</a>; rel=next, </a>; rel=next"], Some("/a")),
        ] {
            assert_eq!(next_of(headers), Ok(expected.map(str::to_owned)), "{headers:?}");
        }
    }

    #[test]
    fn what_might_hide_a_next_page_is_an_error() {
        for headers in [
            &["/a; rel=next"][..],
            &["</a; rel=next"],
            &["</a>; rel=\"next"],
            &["</a> rel=next"],
            &["</a>; rel=next, </b>; rel=next"],
        ] {
            assert!(next_of(headers).is_err(), "{headers:?}");
        }
    }
}
