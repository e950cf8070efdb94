use std::ops::Range;

use serde_json::Value;
use serde_json_path::JsonPath;

use super::shape::kind;
use super::unavailable::Unavailable;
use crate::config;

/// The way of a query through an answer, so that "nothing there" can be told from "not
/// understood".
pub struct Walk {
    query: JsonPath,
    /// Where it selects any number of values, the outermost first.
    lists: Vec<List>,
    /// The query cut short after each of its steps, the shortest first.
    prefixes: Vec<JsonPath>,
}

struct List {
    arrays: JsonPath,
    items: JsonPath,
    /// A filter that matches nothing means "none", without it an item lacks what every item has.
    filtered: bool,
}

impl Walk {
    pub fn new(select: &config::JsonPath) -> Self {
        let text = select.text.as_str();
        let cut = |end: usize| JsonPath::parse(text[..end].trim_end()).ok();
        let list = |walk: WalkStep| {
            let WalkStep { range, filtered } = walk;
            Some(List { arrays: cut(range.start)?, items: cut(range.end)?, filtered })
        };
        Self {
            query: select.query.clone(),
            // Of a query that cannot be cut nothing counts as "none".
            lists: walks(text).into_iter().map(list).collect::<Option<_>>().unwrap_or_default(),
            prefixes: steps(text).into_iter().filter_map(cut).collect(),
        }
    }

    /// Whatever the query selects; nothing only where its array is there and has nothing for it.
    pub fn values<'b>(&self, body: &'b Value) -> Result<Vec<&'b Value>, Unavailable> {
        let values = self.query.query(body).all();
        if values.is_empty() {
            self.require_empty_array(body)?;
        }
        Ok(values)
    }

    /// How many items the arrays have that the query walks last.
    pub fn items(&self, body: &Value) -> usize {
        let found = self.lists.last().map(|list| list.arrays.query(body).all());
        found.unwrap_or_default().into_iter().filter_map(Value::as_array).map(Vec::len).sum()
    }

    /// Nothing selected means "no grants" only where an array is there and empty, or a filter left
    /// nothing of it.
    fn require_empty_array(&self, body: &Value) -> Result<(), Unavailable> {
        let wrong = |what: &str| Unavailable::WrongShape(format!("{what}{}", self.end(body)));
        if self.lists.is_empty() {
            return Err(wrong("`select` matches nothing"));
        }
        // The first array is needed once, those within once for each item around them.
        let mut holders = 1;
        for list in &self.lists {
            let items = list.items.query(body).all().len();
            if items > 0 {
                holders = items;
                continue;
            }
            let arrays = list.arrays.query(body).all();
            if arrays.len() < holders {
                return Err(wrong("the array that `select` walks is missing"));
            }
            for value in arrays {
                match value {
                    Value::Array(items) if items.is_empty() || list.filtered => {}
                    Value::Array(_) => return Err(wrong(NO_MATCH)),
                    other => {
                        let what = format!("what `select` walks is {}, not an array", kind(other));
                        return Err(Unavailable::WrongShape(what));
                    }
                }
            }
            return Ok(());
        }
        Err(wrong(NO_MATCH))
    }

    /// How far the query got: of the answer its types only.
    fn end(&self, body: &Value) -> String {
        let reach = |prefix: &JsonPath| prefix.query(body).all().first().map(|value| kind(value));
        let reached: Vec<_> = self.prefixes.iter().map_while(reach).collect();
        match (reached.last(), self.prefixes.get(reached.len())) {
            (None, Some(missing)) => {
                format!(": no `{missing}`, as the answer is {}", kind(body))
            }
            (Some(kind), Some(missing)) => {
                format!(": no `{missing}`, as `{}` is {kind}", self.prefixes[reached.len() - 1])
            }
            (_, None) => String::new(),
        }
    }
}

/// Where each step of a query ends.
fn steps(query: &str) -> Vec<usize> {
    let (mut ends, mut quote, mut depth) = (Vec::new(), None, 0_u32);
    let mut characters = query.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[' | '.') if depth == 0 => {
                ends.push(at);
                depth += u32::from(character == '[');
            }
            (None, '[') => depth += 1,
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    // What ends at the root is the root.
    ends.into_iter().skip(1).chain([query.len()]).collect()
}

const NO_MATCH: &str = "the array that `select` walks has items, but `select` matches none";

/// A step to any number of values.
struct WalkStep {
    range: Range<usize>,
    filtered: bool,
}

/// Where a query selects any number of values.
fn walks(query: &str) -> Vec<WalkStep> {
    let (mut walks, mut filtered) = (Vec::new(), false);
    let (mut quote, mut depth, mut start, mut many) = (None, 0_u32, 0, false);
    let mut characters = query.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => {
                if depth == 0 {
                    (start, many, filtered) = (at, false, false);
                }
                depth += 1;
            }
            (None, ']') => {
                depth -= 1;
                if depth == 0 && many {
                    walks.push(WalkStep { range: start..at + 1, filtered });
                }
            }
            (None, '*') if depth == 0 => {
                walks.push(WalkStep { range: at - 1..at + 1, filtered: false });
            }
            (None, '*' | '?' | ':' | ',') => {
                many = true;
                filtered |= character == '?';
            }
            (None, _) => {}
        }
    }
    walks
}
