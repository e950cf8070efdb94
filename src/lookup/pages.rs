use std::collections::HashSet;

use reqwest::header::{HeaderMap, LINK};
use serde_json::Value;
use serde_json_path::JsonPath;
use url::Url;

use crate::config::{PageKind, Pages};

use super::links;
use super::select::{is_empty, text_of};
use super::unavailable::Unavailable;

/// Goes from page to page of one answer, which ends complete or is none.
pub struct Pager<'a> {
    pages: Option<&'a Pages>,
    first: Url,
    /// Where it has been: URLs, or cursors.
    seen: HashSet<String>,
    read: u32,
    total: Option<u64>,
}

/// What the request for one page differs in from those for the others.
pub struct Page {
    pub url: Url,
    /// For the body. Empty: the first page.
    pub cursor: String,
}

impl<'a> Pager<'a> {
    pub fn new(pages: Option<&'a Pages>, first: Url) -> Self {
        Self { pages, first, seen: HashSet::new(), read: 0, total: None }
    }

    /// How many pages have been read.
    pub const fn read(&self) -> u32 {
        self.read
    }

    pub fn first(&mut self) -> Page {
        let mut url = self.first.clone();
        match self.pages.map(|pages| &pages.kind) {
            Some(PageKind::Count { parameter, from, .. }) => {
                url.query_pairs_mut().append_pair(parameter, &from.to_string());
            }
            Some(PageKind::Next(_) | PageKind::LinkHeader) => {
                self.seen.insert(url.to_string());
            }
            Some(PageKind::Cursor { .. }) | None => {}
        }
        Page { url, cursor: String::new() }
    }

    /// The page after the one with these headers and this body; `None`: that was the last.
    pub fn next(&mut self, headers: &HeaderMap, body: &Value) -> Result<Option<Page>, Unavailable> {
        self.read += 1;
        let Some(pages) = self.pages else { return Ok(None) };
        let next = match &pages.kind {
            PageKind::Next(path) => {
                found(path, body)?.map(|link| self.follow(&link)).transpose()?
            }
            PageKind::LinkHeader => links::next(headers.get_all(LINK))
                .map_err(incomplete)?
                .map(|link| self.follow(&link))
                .transpose()?,
            PageKind::Cursor { path, parameter } => found(path, body)?
                .map(|cursor| self.turn(cursor, parameter.as_deref()))
                .transpose()?,
            PageKind::Count { path, parameter, from } => {
                self.counted(path, body)?.then(|| self.numbered(parameter, *from))
            }
        };
        if next.is_some() && self.read >= pages.max {
            return Err(incomplete("it has more pages than `pages.max`"));
        }
        Ok(next)
    }

    /// A link is followed to where the lookup is anyway: it must not choose who gets our token.
    fn follow(&mut self, link: &str) -> Result<Page, Unavailable> {
        let base = &self.first;
        let broken = |_| incomplete("the link to the next page is not a URL");
        let url = base.join(link).map_err(broken)?;
        if url.origin() != base.origin() || !url.username().is_empty() || url.password().is_some() {
            return Err(incomplete("the next page is said to be on another origin"));
        }
        self.once(url.to_string())?;
        Ok(Page { url, cursor: String::new() })
    }

    fn turn(&mut self, cursor: String, parameter: Option<&str>) -> Result<Page, Unavailable> {
        self.once(cursor.clone())?;
        let mut url = self.first.clone();
        Ok(match parameter {
            Some(name) => {
                url.query_pairs_mut().append_pair(name, &cursor);
                Page { url, cursor: String::new() }
            }
            None => Page { url, cursor },
        })
    }

    fn once(&mut self, place: String) -> Result<(), Unavailable> {
        if self.seen.insert(place) { Ok(()) } else { Err(incomplete("its pages lead in a circle")) }
    }

    /// Whether there are more pages than have been read.
    fn counted(&mut self, path: &JsonPath, body: &Value) -> Result<bool, Unavailable> {
        let total = path.query(body).exactly_one().ok().and_then(Value::as_u64);
        let Some(total) = total else {
            return Err(Unavailable::WrongShape(format!("`{path}` is not a number of pages")));
        };
        // Pages that move while they are read may hide an item between two of them.
        if self.total.replace(total).is_some_and(|before| before != total) {
            return Err(incomplete("the number of its pages changed on the way"));
        }
        Ok(u64::from(self.read) < total)
    }

    fn numbered(&self, parameter: &str, from: u32) -> Page {
        let mut url = self.first.clone();
        let number = u64::from(from) + u64::from(self.read);
        url.query_pairs_mut().append_pair(parameter, &number.to_string());
        Page { url, cursor: String::new() }
    }
}

/// A link or a cursor. `None`: absent, null or empty.
fn found(path: &JsonPath, body: &Value) -> Result<Option<String>, Unavailable> {
    match path.query(body).all().as_slice() {
        [] => Ok(None),
        [value] if is_empty(value) => Ok(None),
        [value] => text_of(value)
            .map(|text| Some(text.into_owned()))
            .ok_or_else(|| Unavailable::WrongShape(format!("`{path}` is not text"))),
        _ => Err(Unavailable::WrongShape(format!("`{path}` matches several values"))),
    }
}

fn incomplete(what: &str) -> Unavailable {
    Unavailable::Incomplete(what.to_owned())
}
