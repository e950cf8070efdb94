use crate::config::reader::Reader;
use crate::config::{JsonPath, raw};
use crate::yaml::Field;

const EXAMPLE: &str = "write it like `$.tenants[*].code` (RFC 9535)";

/// A query for single values: which array it walks does not matter.
pub fn query(
    reader: &mut Reader,
    field: &str,
    text: Field<raw::JsonPathText>,
) -> Option<serde_json_path::JsonPath> {
    match serde_json_path::JsonPath::parse(&text.value()?.0) {
        Ok(query) => Some(query),
        Err(error) => {
            reader.problem(field, format!("is not a JSONPath ({})", error.message()), EXAMPLE);
            None
        }
    }
}

/// A query for the things that an answer lists.
pub fn parse(reader: &mut Reader, field: &str, text: Field<raw::JsonPathText>) -> Option<JsonPath> {
    let text = text.value()?;
    let query = query(reader, field, text.clone().into())?;
    let (raw::JsonPathText(text), example) = (text, EXAMPLE);
    let array = match first_of_many(&text) {
        Many::None => None,
        Many::At(end) => match serde_json_path::JsonPath::parse(text[..end].trim_end()) {
            Ok(array) => Some(array),
            Err(_) => {
                reader.problem(field, "does not show which array it walks", example);
                return None;
            }
        },
        Many::Anywhere => {
            reader.problem(
                field,
                "has a `..` and so does not show which array has to be there",
                example,
            );
            return None;
        }
    };
    Some(JsonPath { text, query, array })
}

/// Where a query stops naming single values.
#[derive(Debug, PartialEq)]
enum Many {
    None,
    At(usize),
    /// Below a `..`.
    Anywhere,
}

/// `query` has been parsed, so that brackets and quotes are known to close.
fn first_of_many(query: &str) -> Many {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    let mut bracket = None;
    let mut after_dot = None;
    for (at, c) in query.char_indices() {
        if let Some(open) = quote {
            if !escaped && c == open {
                quote = None;
            }
            escaped = !escaped && c == '\\';
            continue;
        }
        match (c, bracket) {
            ('\'' | '"', _) => quote = Some(c),
            ('[', None) => bracket = Some(at),
            (']', Some(_)) => bracket = None,
            // A wildcard, a filter, a slice, several selectors.
            ('*' | '?' | ':' | ',', Some(start)) => return Many::At(start),
            ('*', None) => return Many::At(after_dot.unwrap_or(at)),
            ('.', None) if after_dot.is_some() => return Many::Anywhere,
            ('.', None) => {
                after_dot = Some(at);
                continue;
            }
            _ => {}
        }
        if !c.is_whitespace() {
            after_dot = None;
        }
    }
    Many::None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_array_is_what_stands_before_the_first_wildcard_slice_or_filter() {
        for (query, array) in [
            ("$.tenants[*].code", "$.tenants"),
            ("$.data.tenants.*", "$.data.tenants"),
            ("$[*]", "$"),
            ("$['a*'][\"b[?]\"][0][1:2].c", "$['a*'][\"b[?]\"][0]"),
            ("$['it\\'s *'].x[*]", "$['it\\'s *'].x"),
            ("$.tenants[?@.state == 'on'].code", "$.tenants"),
            ("$.tenants[?@['x'] == ']'].code", "$.tenants"),
            ("$.a['b','c']", "$.a"),
            ("$ .a [*]", "$ .a"),
            ("$.a[*]..code", "$.a"),
        ] {
            serde_json_path::JsonPath::parse(query).unwrap();
            let Many::At(end) = first_of_many(query) else { panic!("{query}") };
            assert_eq!(query[..end].trim_end(), array);
            serde_json_path::JsonPath::parse(array).unwrap();
        }
    }

    #[test]
    fn a_query_for_one_value_walks_no_array_and_a_descendant_query_any() {
        for query in ["$", "$.plan", "$['x*'].y[0]", "$['a:b']"] {
            assert_eq!(first_of_many(query), Many::None, "{query}");
        }
        for query in ["$..code", "$.a..code[*]", "$..[*]"] {
            assert_eq!(first_of_many(query), Many::Anywhere, "{query}");
        }
    }
}
