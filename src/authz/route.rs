//! Route templates and the router. It takes a `CheckedPath`, so only a path that the path rule has
//! accepted can reach a route.

use std::fmt;

mod near;
mod reading;
mod template;
use super::path::{CheckedPath, PathError};
pub use near::Near;
use reading::{other_reading, reads_as_nothing};
use template::{BoundPath, Segment};
pub use template::{Template, TemplateError};

/// A template and methods, with the data that the router returns for them.
pub struct RouteRule<T> {
    /// The paths of this route.
    pub template: Template,
    /// Compared byte for byte, so in upper case.
    pub methods: Vec<String>,
    /// Lets HEAD pass where GET does, unless another rule of the same shape names HEAD.
    pub head: bool,
    /// Lets `%25` stand for a percent sign; one that begins a second escape stays refused.
    pub allow_encoded_percent: bool,
    /// What a match returns.
    pub data: T,
}

/// What a route requires of a caller, for comparison with another route.
pub trait Demands {
    /// Whether the route needs no credential.
    fn is_public(&self) -> bool;

    /// The scopes that a caller needs, all of them. Empty: none.
    fn scopes(&self) -> &[String];

    /// Whether this one may refuse a caller that `other` lets pass.
    fn stricter_than(&self, other: &Self) -> bool {
        let mut scopes = self.scopes().iter();
        !self.is_public()
            && (other.is_public() || scopes.any(|scope| !other.scopes().contains(scope)))
    }
}

impl<T> RouteRule<T> {
    fn takes(&self, method: &str) -> bool {
        self.methods.iter().any(|known| known == method)
    }
}

/// Two rules that cannot be in one table, by their indices; `first < second`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterError {
    /// The index of the earlier rule in the list given to [`Router::new`].
    pub first: usize,
    /// The index of the later rule.
    pub second: usize,
    /// Why they conflict.
    pub conflict: Conflict,
}

/// Why two rules cannot be in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Both have the same shape and this method.
    Method(String),
    /// Both have the same shape, case aside, but the tenant at different places.
    TenantPlace,
}

impl fmt::Display for RouterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second, conflict } = self;
        match conflict {
            Conflict::Method(method) => write!(
                f,
                "routes {first} and {second} both match {method} on the same paths; take the \
                 method or the route out of one of them"
            ),
            Conflict::TenantPlace => write!(
                f,
                "routes {first} and {second} match the same paths (but for case, perhaps), with \
                 `{{tenant}}` not at the same place; write both with `{{tenant}}` where the tenant \
                 code is"
            ),
        }
    }
}

impl std::error::Error for RouterError {}

/// Finds the route of a request: the most specific one, from the left.
pub struct Router<T> {
    rules: Vec<RouteRule<T>>,
    root: Node,
}

/// What a path and a method lead to.
#[derive(Debug)]
pub enum Found<'r, 'p, T> {
    /// The route that decides.
    Route(RouteMatch<'r, 'p, T>),
    /// No template matches, or the most specific one lacks the method.
    NoRoute,
    /// An upstream may read the path differently, or the tenant is not a tenant code.
    Refused(PathError),
}

/// A route and what its template takes from the path.
pub struct RouteMatch<'r, 'p, T> {
    /// The data of the rule that matched.
    pub data: &'r T,
    /// A well-formed tenant code. `None`: the template has no `{tenant}`.
    pub tenant: Option<&'p str>,
    /// Without the tenant; the values are as sent, escapes included.
    pub variables: Vec<(&'r str, &'p str)>,
}

impl<T: fmt::Debug> fmt::Debug for RouteMatch<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteMatch").field("data", self.data).finish_non_exhaustive()
    }
}

impl<T> Router<T> {
    /// The error lists every pair of rules that conflict.
    pub fn new(rules: Vec<RouteRule<T>>) -> Result<Self, Vec<RouterError>> {
        let mut errors = Vec::new();
        for (second, rule) in rules.iter().enumerate() {
            for (first, earlier) in rules[..second].iter().enumerate() {
                if let Some(conflict) = conflict(earlier, rule) {
                    errors.push(RouterError { first, second, conflict });
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut root = Node::default();
        for index in 0..rules.len() {
            root.insert(&rules, index);
        }
        Ok(Self { rules, root })
    }

    /// In the order given, which [`RouterError`] counts by.
    pub fn rules(&self) -> &[RouteRule<T>] {
        &self.rules
    }

    /// The most specific template decides, even where it lacks the method.
    pub fn find<'r, 'p>(&'r self, method: &str, path: CheckedPath<'p>) -> Found<'r, 'p, T>
    where
        T: Demands,
    {
        match self.decide(method, path) {
            Ok(Some(route)) => Found::Route(route),
            Ok(None) => Found::NoRoute,
            Err(reason) => Found::Refused(reason),
        }
    }

    fn decide<'r, 'p>(
        &'r self,
        method: &str,
        path: CheckedPath<'p>,
    ) -> Result<Option<RouteMatch<'r, 'p, T>>, PathError>
    where
        T: Demands,
    {
        let mut search =
            Search { rules: &self.rules, path, escaped_literal: false, missed: Vec::new() };
        let shape = search.find(&self.root, path.segments()).unwrap_or_default();
        // The most specific shape decides, even where it lacks this method: a catch-all must not
        // let in what a route leaves out.
        let rule = self.rule(shape, method);
        if path.has_encoded_percent() && !rule.is_some_and(|rule| rule.allow_encoded_percent) {
            return Err(PathError::EncodedPercent);
        }
        let Some(&any_of_shape) = shape.first() else {
            return Ok(None);
        };
        if search.escaped_literal {
            return Err(PathError::EscapedLiteral);
        }
        let template = &rule.unwrap_or(&self.rules[any_of_shape]).template;
        for near in search.missed {
            self.check_near(near, method, rule, template)?;
        }
        let BoundPath { tenant, variables } = template.bind(path)?;
        Ok(rule.map(|rule| RouteMatch { data: &rule.data, tenant, variables }))
    }

    /// Which rule of one shape is for this method.
    fn rule(&self, shape: &[usize], method: &str) -> Option<&RouteRule<T>> {
        let mut rules = shape.iter().map(|&index| &self.rules[index]);
        let named = rules.clone().find(|rule| rule.takes(method));
        named.or_else(|| rules.find(|rule| method == "HEAD" && rule.head && rule.takes("GET")))
    }

    /// Refuses a path that some upstreams take for a path of `near`, where that asks for more than
    /// the rule that was found. The template says whether case and a trailing slash matter to the
    /// upstream, but a doubt about that must not lead to another tenant or to laxer rules.
    fn check_near(
        &self,
        near: &[usize],
        method: &str,
        found: Option<&RouteRule<T>>,
        template: &Template,
    ) -> Result<(), PathError>
    where
        T: Demands,
    {
        let other = &self.rules[near[0]].template;
        if other.has_tenant() && other.tenant_at != template.tenant_at {
            return Err(PathError::NearTenantRoute);
        }
        // Without one the request is denied anyway.
        let Some(found) = found else { return Ok(()) };
        let is_stricter = |near: &RouteRule<T>| {
            near.data.stricter_than(&found.data)
                || found.allow_encoded_percent && !near.allow_encoded_percent
        };
        // A method that the other route leaves out is denied there.
        if self.rule(near, method).is_none_or(is_stricter) {
            return Err(PathError::NearStricterRoute);
        }
        Ok(())
    }
}

fn conflict<T>(a: &RouteRule<T>, b: &RouteRule<T>) -> Option<Conflict> {
    if !a.template.same_shape(&b.template, Segment::same_place_but_for_case) {
        return None;
    }
    if a.template.tenant_at != b.template.tenant_at {
        return Some(Conflict::TenantPlace);
    }
    if !a.template.same_shape(&b.template, Segment::same_place) {
        return None;
    }
    let shared = a.methods.iter().find(|method| b.methods.contains(method))?;
    Some(Conflict::Method(shared.clone()))
}

/// One place in the tree of all templates: the cost of a lookup grows with the path, not with the
/// number of routes.
#[derive(Default)]
struct Node {
    /// By fixed segment in lower case. Case is compared at the end of the search: if it were
    /// compared here, `/api/{tenant}/**` would win over an `ignore_case` route
    /// `/api/{tenant}/admin`.
    literals: Children,
    /// `{tenant}` and `{name}` alike: the template that is found says which it is.
    variable: Option<Box<Node>>,
    /// The templates that end here.
    end: Shapes,
    /// Those that end here with `/**`.
    rest: Shapes,
}

/// Indices of rules: a list for each shape. The shapes differ only in case; exact ones come first.
type Shapes = Vec<Vec<usize>>;

impl Node {
    fn insert<T>(&mut self, rules: &[RouteRule<T>], index: usize) {
        let template = &rules[index].template;
        let mut node = self;
        for segment in &template.segments {
            node = match segment {
                Segment::Exact(text) => node.literals.entry(text.to_ascii_lowercase()),
                Segment::IgnoreCase(text) => node.literals.entry(text.clone()),
                Segment::Variable(_) | Segment::Tenant => node.variable.get_or_insert_default(),
            };
        }
        let shapes = if template.has_rest { &mut node.rest } else { &mut node.end };
        let same = |shape: &&mut Vec<usize>| {
            let other = &rules[shape[0]].template;
            template.same_shape(other, Segment::same_place)
        };
        if let Some(shape) = shapes.iter_mut().find(same) {
            shape.push(index);
        } else if template.ignores_case() {
            shapes.push(vec![index]);
        } else {
            shapes.insert(0, vec![index]);
        }
    }
}

struct Search<'r, 'p, T> {
    rules: &'r [RouteRule<T>],
    path: CheckedPath<'p>,
    /// A segment is another spelling of a fixed one.
    escaped_literal: bool,
    /// Shapes more specific than the one found that would have matched but for case or a trailing
    /// slash.
    missed: Vec<&'r [usize]>,
}

impl<'r, 'p, T> Search<'r, 'p, T> {
    /// The rules of the most specific shape that matches: the more specific branch first, and the
    /// next one where it leads nowhere. A node is visited at most once.
    fn find(
        &mut self,
        node: &'r Node,
        mut segments: impl Iterator<Item = &'p str> + Clone,
    ) -> Option<&'r [usize]> {
        let Some(segment) = segments.next() else {
            return self.fitting(&node.end).or_else(|| {
                self.miss(node.literals.get([].into_iter()).map(|slash| &slash.end));
                self.fitting(&node.rest)
            });
        };
        let literal = node.literals.get_in_any_case(segment);
        self.escaped_literal |= literal.is_none()
            && other_reading(segment)
                .is_some_and(|read| node.literals.get_in_any_case(&read).is_some());
        // The empty segment after a trailing slash does not match a variable.
        let variable = node.variable.as_deref().filter(|_| !segment.is_empty());
        for child in [literal, variable].into_iter().flatten() {
            let found = self.find(child, segments.clone());
            if found.is_some() {
                return found;
            }
        }
        if segments.next().is_none() && reads_as_nothing(segment) {
            self.miss(Some(&node.end));
        }
        self.fitting(&node.rest)
    }

    /// The shape whose fixed segments have the path's case.
    fn fitting(&mut self, shapes: &'r Shapes) -> Option<&'r [usize]> {
        let fits = |shape: &&Vec<usize>| self.rules[shape[0]].template.fits_case(self.path);
        let found = shapes.iter().find(fits);
        if found.is_none() {
            self.miss(Some(shapes));
        }
        found.map(Vec::as_slice)
    }

    fn miss(&mut self, shapes: Option<&'r Shapes>) {
        let shapes = shapes.into_iter().flatten();
        self.missed.extend(shapes.map(Vec::as_slice));
    }
}

/// Sorted by text, so that a lookup can fold case or decode as it compares, without a copy.
#[derive(Default)]
struct Children(Vec<(String, Node)>);

impl Children {
    fn position(&self, text: impl Iterator<Item = u8> + Clone) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.bytes().cmp(text.clone()))
    }

    fn get(&self, text: impl Iterator<Item = u8> + Clone) -> Option<&Node> {
        self.position(text).ok().map(|at| &self.0[at].1)
    }

    /// Most segments are sent in lower case, which is compared at once.
    fn get_in_any_case(&self, segment: &str) -> Option<&Node> {
        let as_sent = self.0.binary_search_by(|(known, _)| known.as_str().cmp(segment));
        match as_sent {
            Ok(at) => Some(&self.0[at].1),
            Err(_) => self.get(lower_case(segment.bytes())),
        }
    }

    fn entry(&mut self, text: String) -> &mut Node {
        let at = self.position(text.bytes()).unwrap_or_else(|at| {
            self.0.insert(at, (text, Node::default()));
            at
        });
        &mut self.0[at].1
    }
}

fn lower_case(bytes: impl Iterator<Item = u8> + Clone) -> impl Iterator<Item = u8> + Clone {
    bytes.map(|byte| byte.to_ascii_lowercase())
}
