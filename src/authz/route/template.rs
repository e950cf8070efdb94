//! The route template: its text, and what it takes from a path that it matches.

use std::cmp::Ordering;
use std::fmt;

use super::super::path::{CheckedPath, PathError};
use crate::domain::is_tenant_code;

/// A route's path: fixed segments, `{tenant}` at most once, `{name}` for other single segments,
/// and a final `/**` for the rest, nothing included.
#[derive(Clone, Debug)]
pub struct Template {
    pub(super) segments: Vec<Segment>,
    pub(super) tenant_at: Option<usize>,
    pub(super) has_rest: bool,
}

/// What a template takes from a path; the fields are those of a `RouteMatch`.
pub(super) struct BoundPath<'r, 'p> {
    pub tenant: Option<&'p str>,
    pub variables: Vec<(&'r str, &'p str)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Exact(String),
    /// In lower case; the request's segment may have any ASCII case.
    IgnoreCase(String),
    Variable(String),
    Tenant,
}

/// Why a template in a config is refused. The text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A template is a whole path.
    NoLeadingSlash,
    /// It has a `?`; routes never see a query.
    Query,
    /// It has a `%`; fixed segments match unescaped bytes only.
    Escape,
    /// The path rule refuses every request that could match.
    Refused(PathError),
    /// This segment has a `*` that is not a final `/**`.
    Wildcard(String),
    /// This segment has a brace, but a variable takes a whole segment.
    Brace(String),
    /// Not a lower-case letter followed by lower-case letters, digits or `_`.
    VariableName(String),
    /// Two segments have this variable.
    RepeatedVariable(String),
    /// `{tenant}` occurs twice; one tenant decides about a request.
    SecondTenant,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeadingSlash => f.write_str(
                "does not start with `/`; write the whole path, such as `/api/{tenant}/**`",
            ),
            Self::Query => f.write_str("has a `?`; remove the query, it never matters to a route"),
            Self::Escape => f.write_str(
                "has a `%`; fixed segments match exact unescaped bytes: use `{name}` for a segment \
                 that clients escape",
            ),
            Self::Refused(reason) => write!(
                f,
                "can never match, since {reason} and such requests are refused; remove that part"
            ),
            Self::Wildcard(segment) => write!(
                f,
                "has a `*` in `{segment}`; use `{{name}}` for one segment, or a final `/**` for \
                 all that follow"
            ),
            Self::Brace(segment) => write!(
                f,
                "has a brace within `{segment}`; a variable is a whole segment, such as \
                 `/{{name}}/`"
            ),
            Self::VariableName(name) => write!(
                f,
                "has the variable `{{{name}}}`; a name is a lower-case letter, then lower-case \
                 letters, digits or `_`"
            ),
            Self::RepeatedVariable(name) => {
                write!(f, "has `{{{name}}}` twice; give each variable its own name")
            }
            Self::SecondTenant => f.write_str(
                "has `{tenant}` twice; keep the one that decides, and name the other otherwise",
            ),
        }
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// `ignore_case` is for ASCII letters in fixed segments; the tenant is always compared exactly.
    pub fn parse(text: &str, ignore_case: bool) -> Result<Self, TemplateError> {
        let Some(after_root) = text.strip_prefix('/') else {
            return Err(TemplateError::NoLeadingSlash);
        };
        if text.contains('?') {
            return Err(TemplateError::Query);
        }
        // Without escapes, a fixed segment has one spelling; see `Search`.
        if text.contains('%') {
            return Err(TemplateError::Escape);
        }
        CheckedPath::parse(text.as_bytes()).map_err(TemplateError::Refused)?;

        let (fixed, has_rest) = match text.strip_suffix("/**") {
            Some("") => (None, true),
            Some(fixed) => (Some(&fixed[1..]), true),
            None => (Some(after_root), false),
        };
        let mut template = Self { segments: Vec::new(), tenant_at: None, has_rest };
        for text in fixed.into_iter().flat_map(|fixed| fixed.split('/')) {
            let segment = Segment::parse(text, ignore_case)?;
            match &segment {
                Segment::Tenant if template.has_tenant() => {
                    return Err(TemplateError::SecondTenant);
                }
                Segment::Tenant => template.tenant_at = Some(template.segments.len()),
                Segment::Variable(name) if template.segments.contains(&segment) => {
                    return Err(TemplateError::RepeatedVariable(name.clone()));
                }
                _ => {}
            }
            template.segments.push(segment);
        }
        Ok(template)
    }

    /// Whether a request on this route is about one tenant.
    pub fn has_tenant(&self) -> bool {
        self.tenant_at.is_some()
    }

    /// The names of the variables, from the left, without the tenant.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::variable)
    }

    /// Whether there is a path that both match, case aside.
    pub fn overlaps(&self, other: &Self) -> bool {
        let pairs = self.segments.iter().zip(&other.segments);
        let shared = pairs.into_iter().all(|(a, b)| match (a.fixed(), b.fixed()) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            (fixed, None) | (None, fixed) => fixed != Some(""),
        });
        let longer_has_room = match self.segments.len().cmp(&other.segments.len()) {
            Ordering::Less => self.has_rest,
            Ordering::Equal => true,
            Ordering::Greater => other.has_rest,
        };
        shared && longer_has_room
    }

    /// Whether both match the same paths but for case or a trailing slash.
    pub fn is_near(&self, other: &Self) -> bool {
        let bare = |template: &Self| {
            let slash = template.segments.last().is_some_and(|last| last.fixed() == Some(""));
            template.segments.len() - usize::from(slash)
        };
        let (a, b) = (&self.segments[..bare(self)], &other.segments[..bare(other)]);
        self.has_rest == other.has_rest
            && a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| a.same_place_but_for_case(b))
    }

    /// A path that matches but for `suffix` after the last segment, if that is a fixed one.
    pub fn sample_with(&self, suffix: &str) -> Option<String> {
        self.segments.last()?.fixed().filter(|last| !last.is_empty())?;
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            path.push_str(segment.fixed().unwrap_or("any-name"));
        }
        Some(path + suffix)
    }

    /// A text that parses as this template, with the same `ignore_case`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for segment in &self.segments {
            text.push('/');
            match segment {
                Segment::Exact(fixed) | Segment::IgnoreCase(fixed) => text.push_str(fixed),
                Segment::Variable(name) => text.extend(["{", name, "}"]),
                Segment::Tenant => text.push_str("{tenant}"),
            }
        }
        if self.has_rest {
            text.push_str("/**");
        }
        text
    }

    /// Also false where `ignore_case` is set but no fixed segment has a letter.
    pub fn ignores_case(&self) -> bool {
        let mut segments = self.segments.iter();
        segments.any(|segment| matches!(segment, Segment::IgnoreCase(_)))
    }

    pub(super) fn fits_case(&self, path: CheckedPath<'_>) -> bool {
        // Where case is ignored, the search has compared them already.
        if self.ignores_case() {
            return true;
        }
        let mut places = self.segments.iter().zip(path.segments());
        places.all(|(segment, sent)| !matches!(segment, Segment::Exact(text) if text != sent))
    }

    /// The tenant and the variables of a path that the template matches.
    ///
    /// An escape before the tenant is refused even in a `{name}`: decoded, it may end the path
    /// there (`%3f`, `%23`) or name something other than what was sent, and the tenant would be
    /// another segment.
    pub(super) fn bind<'r, 'p>(
        &'r self,
        path: CheckedPath<'p>,
    ) -> Result<BoundPath<'r, 'p>, PathError> {
        let (mut tenant, mut variables) = (None, Vec::new());
        for (place, (segment, sent)) in self.segments.iter().zip(path.segments()).enumerate() {
            match segment {
                Segment::Tenant if is_tenant_code(sent) => tenant = Some(sent),
                Segment::Tenant => return Err(PathError::InvalidTenant),
                Segment::Variable(_) if sent.contains('%') && self.tenant_at > Some(place) => {
                    return Err(PathError::EscapeBeforeTenant);
                }
                Segment::Variable(name) => variables.push((name.as_str(), sent)),
                Segment::Exact(_) | Segment::IgnoreCase(_) => {}
            }
        }
        Ok(BoundPath { tenant, variables })
    }

    pub(super) fn same_shape(&self, other: &Self, same: fn(&Segment, &Segment) -> bool) -> bool {
        self.has_rest == other.has_rest
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(a, b)| same(a, b))
    }
}

impl Segment {
    fn parse(text: &str, ignore_case: bool) -> Result<Self, TemplateError> {
        let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        if name.unwrap_or(text).contains(['{', '}']) {
            return Err(TemplateError::Brace(text.to_owned()));
        }
        if let Some(name) = name {
            return match name {
                "tenant" => Ok(Self::Tenant),
                _ if is_variable_name(name) => Ok(Self::Variable(name.to_owned())),
                _ => Err(TemplateError::VariableName(name.to_owned())),
            };
        }
        if text.contains('*') {
            return Err(TemplateError::Wildcard(text.to_owned()));
        }
        // Without a letter there is no case, so `ignore_case` makes no difference to the shape.
        if ignore_case && text.contains(|c: char| c.is_ascii_alphabetic()) {
            return Ok(Self::IgnoreCase(text.to_ascii_lowercase()));
        }
        Ok(Self::Exact(text.to_owned()))
    }

    pub(super) fn fixed(&self) -> Option<&str> {
        match self {
            Self::Exact(text) | Self::IgnoreCase(text) => Some(text),
            Self::Variable(_) | Self::Tenant => None,
        }
    }

    fn variable(&self) -> Option<&str> {
        match self {
            Self::Variable(name) => Some(name),
            _ => None,
        }
    }

    /// Whether both match the same segments.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Variable(_) | Self::Tenant, Self::Variable(_) | Self::Tenant) => true,
            _ => self == other,
        }
    }

    pub(super) fn same_place_but_for_case(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a) | Self::IgnoreCase(a), Self::Exact(b) | Self::IgnoreCase(b)) => {
                a.eq_ignore_ascii_case(b)
            }
            _ => self.same_place(other),
        }
    }
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}
