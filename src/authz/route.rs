//! Route templates and the router. It takes a `CheckedPath`, so nothing that the path rule has
//! not accepted can reach a route.

use std::fmt;

mod template;

use super::path::{CheckedPath, PathError, decoded};
use template::Segment;
pub use template::{Template, TemplateError};

pub struct RouteRule<T> {
    pub template: Template,
    pub methods: Vec<String>,
    /// Lets `%25` stand for a percent sign; one that begins a second escape stays refused.
    pub allow_encoded_percent: bool,
    pub data: T,
}

/// Two rules that cannot stand in one table, by their indices; `first < second`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterError {
    pub first: usize,
    pub second: usize,
    pub conflict: Conflict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Both have the same shape and this method.
    Method(String),
    /// Both have the same shape, but not the tenant at the same place.
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
                 code stands"
            ),
        }
    }
}

impl std::error::Error for RouterError {}

pub struct Router<T> {
    rules: Vec<RouteRule<T>>,
    root: Node,
}

#[derive(Debug)]
pub enum Found<'r, 'p, T> {
    Route(RouteMatch<'r, 'p, T>),
    NoRoute,
    Refused(PathError),
}

pub struct RouteMatch<'r, 'p, T> {
    pub data: &'r T,
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

    pub fn find<'r, 'p>(&'r self, method: &str, path: CheckedPath<'p>) -> Found<'r, 'p, T> {
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
    ) -> Result<Option<RouteMatch<'r, 'p, T>>, PathError> {
        let mut search =
            Search { rules: &self.rules, path, escaped_literal: false, missed: Vec::new() };
        let shape = search.find(&self.root, path.segments()).unwrap_or_default();
        // The most specific shape decides, also where it has not this method: what was left out
        // of a route must not be let in again by a catch-all.
        let rule = shape
            .iter()
            .map(|&index| &self.rules[index])
            .find(|rule| rule.methods.iter().any(|known| known == method));
        if path.has_encoded_percent() && !rule.is_some_and(|rule| rule.allow_encoded_percent) {
            return Err(PathError::EncodedPercent);
        }
        let Some(&any_of_shape) = shape.first() else {
            return Ok(None);
        };
        let template = &rule.unwrap_or(&self.rules[any_of_shape]).template;
        search.check_other_readings(template.tenant_at)?;
        let (tenant, variables) = template.bind(path)?;
        Ok(rule.map(|rule| RouteMatch { data: &rule.data, tenant, variables }))
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

/// One place in the tree of all templates: a lookup costs the length of the path, not the number
/// of routes.
#[derive(Default)]
struct Node {
    /// By fixed segment in lower case. Case is judged at the end of the search: were it judged
    /// here, `/api/{tenant}/**` would win over an `ignore_case` route `/api/{tenant}/admin`.
    literals: Children,
    /// `{tenant}` and `{name}` alike: which it is, the template found in the end says.
    variable: Option<Box<Node>>,
    /// The templates that end here.
    end: Shapes,
    /// Those that end here with `/**`.
    rest: Shapes,
}

/// Indices of rules: a list for each shape, which differ in case alone; exact ones come first.
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
    /// Rules, one a shape, more specific than what was found, that would have matched but for
    /// case or for a trailing slash more or less.
    missed: Vec<usize>,
}

impl<'r, 'p, T> Search<'r, 'p, T> {
    /// The rules of the most specific shape that matches: the more specific branch first, and the
    /// next one where it leads nowhere. A node is visited once at most.
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
        let literal = node.literals.get(lower_case(segment.bytes()));
        self.escaped_literal |= literal.is_none()
            && other_reading(segment)
                .is_some_and(|bytes| node.literals.get(lower_case(bytes)).is_some());
        // The empty segment after a trailing slash is nobody's name.
        let variable = node.variable.as_deref().filter(|_| !segment.is_empty());
        for child in [literal, variable].into_iter().flatten() {
            let found = self.find(child, segments.clone());
            if found.is_some() {
                return found;
            }
        }
        if segment.is_empty() {
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

    fn miss(&mut self, shapes: Option<&Shapes>) {
        let shapes = shapes.into_iter().flatten();
        self.missed.extend(shapes.map(|shape| shape[0]));
    }

    /// Refuses what an upstream may take for a path of another route than the one found.
    ///
    /// One that decodes takes `/api/T1/%61dmin` for `/api/T1/admin`: it must not pass by the laxer
    /// rules of a `/**` beside it. Whether case and a trailing slash matter to the upstream is the
    /// template's to say, but no such doubt may lead from a tenant's route to one without it.
    fn check_other_readings(&self, tenant_at: Option<usize>) -> Result<(), PathError> {
        if self.escaped_literal {
            return Err(PathError::EscapedLiteral);
        }
        let mut missed = self.missed.iter().map(|&index| &self.rules[index].template);
        if missed.any(|other| other.has_tenant() && other.tenant_at != tenant_at) {
            return Err(PathError::NearTenantRoute);
        }
        Ok(())
    }
}

/// What an upstream may take a segment for that decodes it, lets a decoded `?` or `#` end it, or trims
/// spaces and trailing dots.
fn other_reading(segment: &str) -> Option<std::vec::IntoIter<u8>> {
    if !segment.contains('%') && !segment.ends_with('.') {
        return None;
    }
    let mut bytes: Vec<u8> = decoded(segment).take_while(|byte| !b"?#".contains(byte)).collect();
    let end = bytes.iter().rposition(|byte| !b" .".contains(byte)).map_or(0, |last| last + 1);
    bytes.truncate(end);
    let start = bytes.iter().position(|byte| *byte != b' ').unwrap_or(0);
    Some(bytes.split_off(start).into_iter())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::domain::is_tenant_code;

    const IGNORE_CASE: bool = true;

    fn rule(path: &str, ignore_case: bool, methods: &[&str]) -> RouteRule<&'static str> {
        RouteRule {
            template: Template::parse(path, ignore_case).expect(path),
            methods: methods.iter().map(ToString::to_string).collect(),
            allow_encoded_percent: false,
            data: Box::leak(path.to_owned().into_boxed_str()),
        }
    }

    /// Routes for GET; each one's data is its template.
    fn router(paths: &[&str]) -> Router<&'static str> {
        Router::new(paths.iter().map(|path| rule(path, false, &["GET"])).collect()).unwrap()
    }

    /// What a lookup found, as in the corpus, with the template where a route matched.
    fn outcome(router: &Router<&'static str>, method: &str, path: &str) -> String {
        let checked = match CheckedPath::parse(path.as_bytes()) {
            Ok(checked) => checked,
            Err(reason) => return format!("refuse {}", reason.as_str()),
        };
        match router.find(method, checked) {
            Found::Route(route) => match route.tenant {
                Some(tenant) => format!("{} {tenant}", route.data),
                None => route.data.to_string(),
            },
            Found::NoRoute => "no_route".to_owned(),
            Found::Refused(reason) => format!("refuse {}", reason.as_str()),
        }
    }

    fn assert_outcomes(router: &Router<&'static str>, cases: &[(&str, &str)]) {
        for (path, expected) in cases {
            assert_eq!(outcome(router, "GET", path), *expected, "{path}");
        }
    }

    /// `<xx>` in the corpus is one raw byte.
    fn corpus_path(text: &str) -> Vec<u8> {
        let mut parts = text.split('<');
        let mut path = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            let (byte, text) = part.split_once('>').expect("`<xx>` in a corpus path");
            path.push(u8::from_str_radix(byte, 16).expect("two hexadecimal digits"));
            path.extend(text.as_bytes());
        }
        path
    }

    #[test]
    fn the_corpus() {
        let router = router(&["/api/{tenant}/**"]);
        let corpus = include_str!("../../tests/corpus/paths.txt");
        let mut cases = 0;
        for line in corpus.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (expected, text) = line.split_once('\t').expect(line);
            let path = corpus_path(text);
            let got = match CheckedPath::parse(&path).map(|path| router.find("GET", path)) {
                Ok(Found::Route(route)) => format!("match {}", route.tenant.unwrap()),
                Ok(Found::NoRoute) => "no_route".to_owned(),
                Ok(Found::Refused(reason)) | Err(reason) => format!("refuse {}", reason.as_str()),
            };
            assert_eq!(got, expected, "{text}");
            cases += 1;
        }
        assert!(cases > 150, "only {cases} cases were read");
    }

    #[test]
    fn template_errors_name_the_fault() {
        use TemplateError::*;
        let cases = [
            ("", NoLeadingSlash),
            ("api/{tenant}", NoLeadingSlash),
            ("**", NoLeadingSlash),
            ("/a?b", Query),
            ("/a%20b", Escape),
            ("//a", Refused(PathError::EmptySegment)),
            ("/a//**", Refused(PathError::EmptySegment)),
            ("/a/../{tenant}", Refused(PathError::DotSegment)),
            ("/a;b", Refused(PathError::Semicolon)),
            ("/a b", Refused(PathError::Space)),
            ("/é", Refused(PathError::NonAscii)),
            ("/{a;b}", Refused(PathError::Semicolon)),
            ("/*", Wildcard("*".into())),
            ("/a*/b", Wildcard("a*".into())),
            ("/**/a", Wildcard("**".into())),
            ("/a/**/", Wildcard("**".into())),
            ("/a/**/**", Wildcard("**".into())),
            ("/a/***", Wildcard("***".into())),
            ("/a**", Wildcard("a**".into())),
            ("/a{b}", Brace("a{b}".into())),
            ("/{a}{b}", Brace("{a}{b}".into())),
            ("/{a", Brace("{a".into())),
            ("/a}", Brace("a}".into())),
            ("/{", Brace("{".into())),
            ("/{}", VariableName("".into())),
            ("/{Tenant}", VariableName("Tenant".into())),
            ("/{1a}", VariableName("1a".into())),
            ("/{_a}", VariableName("_a".into())),
            ("/{a-b}", VariableName("a-b".into())),
            ("/{*}", VariableName("*".into())),
            ("/{a}/x/{a}", RepeatedVariable("a".into())),
            ("/{tenant}/x/{tenant}", SecondTenant),
        ];
        for (text, expected) in cases {
            let error = Template::parse(text, false).expect_err(text);
            assert_eq!(error, expected, "{text}");
            assert!(error.to_string().contains("; "), "no cure in: {error}");
        }
    }

    #[test]
    fn templates_tell_their_variables() {
        let template = Template::parse("/a/{x}/{tenant}/{y_2}/**", false).unwrap();
        assert!(template.has_tenant());
        assert_eq!(template.variables().collect::<Vec<_>>(), ["x", "y_2"]);
        for text in ["/", "/**", "/a", "/a/"] {
            let template = Template::parse(text, IGNORE_CASE).expect(text);
            assert!(!template.has_tenant() && template.variables().next().is_none());
        }
    }

    #[test]
    fn trailing_slashes_and_the_rest() {
        let open = "/api/{tenant}/**";
        assert_outcomes(
            &router(&[open]),
            &[
                ("/api/T1", "/api/{tenant}/** T1"),
                ("/api/T1/", "/api/{tenant}/** T1"),
                ("/api/T1/o/p/", "/api/{tenant}/** T1"),
                ("/api/", "no_route"),
                ("/api", "no_route"),
            ],
        );
        assert_outcomes(
            &router(&["/api/{tenant}", "/x/{tenant}/o", "/y/{tenant}/"]),
            &[
                ("/api/T1", "/api/{tenant} T1"),
                ("/api/T1/", "no_route"),
                ("/api/T1/o", "no_route"),
                ("/x/T1/o", "/x/{tenant}/o T1"),
                ("/x/T1/o/", "no_route"),
                ("/y/T1/", "/y/{tenant}/ T1"),
                ("/y/T1", "no_route"),
                ("/y/T1/o", "no_route"),
            ],
        );
        assert_outcomes(&router(&["/"]), &[("/", "/"), ("/a", "no_route")]);
        assert_outcomes(&router(&["/**"]), &[("/", "/**"), ("/a/b/", "/**")]);
        assert_outcomes(&router(&["/{x}"]), &[("/", "no_route"), ("/a", "/{x}")]);
        assert_outcomes(&router(&[]), &[("/", "no_route")]);
    }

    #[test]
    fn the_most_specific_route_wins_from_the_left() {
        let router = Router::new(vec![
            rule("/**", false, &["GET"]),
            rule("/api/{tenant}/**", false, &["GET"]),
            rule("/api/{tenant}", false, &["GET"]),
            rule("/api/{tenant}/{kind}", false, &["GET"]),
            rule("/api/{tenant}/Users", IGNORE_CASE, &["GET"]),
            rule("/api/{tenant}/users", false, &["GET"]),
            rule("/api/health/x/y", false, &["GET"]),
            rule("/api/{tenant}/users/{id}/deep", false, &["GET"]),
        ])
        .unwrap();
        assert_outcomes(
            &router,
            &[
                ("/other", "/**"),
                ("/api", "/**"),
                ("/api/", "/**"),
                ("/api/T1", "/api/{tenant} T1"),
                ("/api/T1/", "/api/{tenant}/** T1"),
                ("/api/T1/reports", "/api/{tenant}/{kind} T1"),
                ("/api/T1/users", "/api/{tenant}/users T1"),
                ("/api/T1/uSERS", "/api/{tenant}/Users T1"),
                ("/API/T1/users", "/api/{tenant}/Users T1"),
                ("/api/T1/a/b", "/api/{tenant}/** T1"),
                ("/api/health/x/y", "/api/health/x/y"),
                // Dead ends behind a more specific segment lead back to the next branch.
                ("/api/health", "/api/{tenant} health"),
                ("/api/health/x", "/api/{tenant}/{kind} health"),
                ("/api/health/x/z", "/api/{tenant}/** health"),
                ("/api/T1/users/7/other", "/api/{tenant}/** T1"),
                ("/api/T1/users/7/deep", "/api/{tenant}/users/{id}/deep T1"),
                // Not a tenant code at the deciding route's place: no other route is tried.
                ("/api/a,b/c", "refuse invalid_tenant"),
                ("/api/a,b", "refuse invalid_tenant"),
            ],
        );
    }

    #[test]
    fn ignore_case_is_for_fixed_segments_only() {
        let router = Router::new(vec![
            rule("/Oda/Apis/{tenant}/List", IGNORE_CASE, &["GET"]),
            rule("/a/{tenant}", false, &["GET"]),
        ])
        .unwrap();
        assert_outcomes(
            &router,
            &[
                ("/oda/apis/aBc/list", "/Oda/Apis/{tenant}/List aBc"),
                ("/ODA/aPIS/AbC/LIST", "/Oda/Apis/{tenant}/List AbC"),
                ("/A/x", "no_route"),
                // Only ASCII has a case here (the Kelvin sign folds to `k` elsewhere).
                ("/oda/apis/x/lis%e2%84%aa", "no_route"),
            ],
        );
    }

    #[test]
    fn methods_pick_within_the_most_specific_shape() {
        let router = Router::new(vec![
            rule("/api/{tenant}/o/{id}", false, &["GET", "HEAD"]),
            rule("/api/{tenant}/o/{name}", false, &["PUT"]),
            rule("/api/{tenant}/**", false, &["GET", "DELETE"]),
        ])
        .unwrap();
        for (method, path, expected) in [
            ("GET", "/api/T1/o/1", "/api/{tenant}/o/{id} T1"),
            ("HEAD", "/api/T1/o/1", "/api/{tenant}/o/{id} T1"),
            ("PUT", "/api/T1/o/1", "/api/{tenant}/o/{name} T1"),
            // Left out of the specific route, so not let in by the catch-all.
            ("DELETE", "/api/T1/o/1", "no_route"),
            ("DELETE", "/api/T1/x", "/api/{tenant}/** T1"),
            ("get", "/api/T1/x", "no_route"),
            ("", "/api/T1/x", "no_route"),
            ("POST", "/api/a,b/x", "refuse invalid_tenant"),
        ] {
            assert_eq!(outcome(&router, method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn variables_come_by_the_names_of_the_rule() {
        let router = Router::new(vec![
            rule("/{region}/{tenant}/o/{id}/**", false, &["GET"]),
            rule("/{area}/{tenant}/o/{key}/**", false, &["PUT"]),
        ])
        .unwrap();
        let path = CheckedPath::parse(b"/eu/T1/o/a%20b/c").unwrap();
        let Found::Route(route) = router.find("PUT", path) else { panic!("no route") };
        assert_eq!(route.tenant, Some("T1"));
        assert_eq!(route.variables, [("area", "eu"), ("key", "a%20b")]);
    }

    #[test]
    fn an_encoded_percent_needs_a_route_that_allows_it() {
        let mut allowing = rule("/api/{tenant}/raw/**", false, &["GET"]);
        allowing.allow_encoded_percent = true;
        let router =
            Router::new(vec![allowing, rule("/api/{tenant}/**", false, &["GET"])]).unwrap();
        assert_outcomes(
            &router,
            &[
                ("/api/T1/raw/100%25", "/api/{tenant}/raw/** T1"),
                ("/api/T1/raw", "/api/{tenant}/raw/** T1"),
                ("/api/T1/raw/%252e%252e", "refuse double_encoding"),
                ("/api/T1/other/100%25", "refuse encoded_percent"),
                ("/api/T1%25/raw", "refuse invalid_tenant"),
                ("/none/100%25", "refuse encoded_percent"),
            ],
        );
        assert_eq!(outcome(&router, "PUT", "/api/T1/raw/100%25"), "refuse encoded_percent");
    }

    #[test]
    fn no_escape_stands_before_the_tenant() {
        let router = router(&["/{region}/{tenant}/{item}"]);
        assert_outcomes(
            &router,
            &[
                ("/eu/T1/%41", "/{region}/{tenant}/{item} T1"),
                ("/e%75/T1/x", "refuse escape_before_tenant"),
                ("/eu%3f/T1/x", "refuse escape_before_tenant"),
            ],
        );
    }

    #[test]
    fn an_escaped_spelling_does_not_pass_by_a_laxer_route() {
        let router = Router::new(vec![
            rule("/**", false, &["GET"]),
            rule("/api/{tenant}/**", false, &["GET"]),
            rule("/api/{tenant}/a/admin", false, &["GET"]),
            rule("/api/{tenant}/Secret", IGNORE_CASE, &["GET"]),
        ])
        .unwrap();
        assert_outcomes(
            &router,
            &[
                ("/%61pi/T1/o", "refuse escaped_literal"),
                ("/api/T1/%61/admin", "refuse escaped_literal"),
                ("/api/T1/a/%61dmin", "refuse escaped_literal"),
                ("/api/T1/%53ecre%74", "refuse escaped_literal"),
                ("/api/T1/sECRE%54", "refuse escaped_literal"),
                ("/api/T1/%61dmin", "/api/{tenant}/** T1"),
                ("/api/T1/secret.", "refuse escaped_literal"),
                ("/api/T1/secret%20", "refuse escaped_literal"),
                ("/api/T1/%20secret", "refuse escaped_literal"),
                ("/api/T1/secret%3fx", "refuse escaped_literal"),
                ("/api/T1/secret%23", "refuse escaped_literal"),
                ("/api/T1/a/admin.%20", "refuse escaped_literal"),
                ("/api/T1/secrets.", "/api/{tenant}/** T1"),
                ("/x%20y/o", "/**"),
            ],
        );
    }

    #[test]
    fn case_and_trailing_slash_do_not_lead_past_the_tenant() {
        let router = Router::new(vec![
            rule("/**", false, &["GET"]),
            rule("/api/{tenant}/o", false, &["GET"]),
            rule("/api/{tenant}/p/", false, &["GET"]),
            rule("/api/{tenant}/q/**", false, &["GET"]),
            rule("/api/{tenant}/s/**", false, &["GET"]),
            rule("/api/{tenant}/s/t", false, &["GET"]),
            rule("/any/{tenant}/{x}", IGNORE_CASE, &["GET"]),
            rule("/{x}/{y}/{tenant}", false, &["GET"]),
            rule("/docs/a", false, &["GET"]),
        ])
        .unwrap();
        assert_outcomes(
            &router,
            &[
                ("/api/T2/o/", "refuse near_tenant_route"),
                ("/api/T2/p", "refuse near_tenant_route"),
                ("/API/T2/q/x/y", "refuse near_tenant_route"),
                ("/api/T2/Q/", "refuse near_tenant_route"),
                // The tenant would be taken from another place.
                ("/API/T2/o", "refuse near_tenant_route"),
                ("/any/T2/x/", "refuse near_tenant_route"),
                // The same tenant either way: the templates have the say.
                ("/api/T1/s/T", "/api/{tenant}/s/** T1"),
                ("/api/T1/s/t/", "/api/{tenant}/s/** T1"),
                // Nothing of a tenant's.
                ("/DOCS/a", "/**"),
                ("/docs/a/", "/**"),
            ],
        );
    }

    #[test]
    fn conflicting_rules_are_named_by_their_indices() {
        let get = &["GET"][..];
        let conflicts = |rules: Vec<RouteRule<&'static str>>| -> Vec<(usize, usize, Conflict)> {
            let errors = Router::new(rules).err().unwrap_or_default();
            errors.into_iter().map(|e| (e.first, e.second, e.conflict)).collect()
        };
        let method = |name: &str| Conflict::Method(name.to_owned());

        let rules = vec![
            rule("/api/{tenant}/{id}", false, &["GET", "PUT"]),
            rule("/other", false, get),
            rule("/api/{tenant}/{name}", false, &["POST", "PUT"]),
            rule("/api/{x}/{tenant}", false, &["DELETE"]),
        ];
        let expected =
            [(0, 2, method("PUT")), (0, 3, Conflict::TenantPlace), (2, 3, Conflict::TenantPlace)];
        assert_eq!(conflicts(rules), expected);

        for (a, b, expected) in [
            (rule("/a", IGNORE_CASE, get), rule("/A", IGNORE_CASE, get), Some(method("GET"))),
            (rule("/1/{x}", IGNORE_CASE, get), rule("/1/{y}", false, get), Some(method("GET"))),
            (rule("/{tenant}", false, get), rule("/{x}", false, get), Some(Conflict::TenantPlace)),
            (
                rule("/a/{tenant}", IGNORE_CASE, get),
                rule("/A/{x}", false, &["PUT"]),
                Some(Conflict::TenantPlace),
            ),
            (rule("/a", false, get), rule("/a", false, &["PUT"]), None),
            (rule("/a", false, get), rule("/a", IGNORE_CASE, get), None),
            (rule("/a", false, get), rule("/a/", false, get), None),
            (rule("/a", false, get), rule("/a/**", false, get), None),
            (rule("/a/{x}", false, get), rule("/a/b", false, get), None),
        ] {
            let pair = format!("{} {}", a.data, b.data);
            let expected: Vec<_> = expected.into_iter().map(|c| (0, 1, c)).collect();
            assert_eq!(conflicts(vec![a, b]), expected, "{pair}");
        }
    }

    #[test]
    fn a_match_does_not_print_what_the_path_held() {
        let router = router(&["/{x}/{tenant}"]);
        let found = router.find("GET", CheckedPath::parse(b"/canary1/canary2").unwrap());
        assert!(matches!(found, Found::Route(_)));
        assert!(!format!("{found:?}").contains("canary"));
    }

    #[test]
    fn many_routes_are_told_apart() {
        let paths: Vec<_> = (0..1000).map(|i| format!("/api/r{i}/{{tenant}}/x")).collect();
        let router = router(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        for (i, path) in paths.iter().enumerate() {
            let expected = format!("{path} T1");
            assert_eq!(outcome(&router, "GET", &format!("/api/r{i}/T1/x")), expected);
        }
        assert_eq!(outcome(&router, "GET", "/api/r1000/T1/x"), "no_route");
    }

    // What an upstream sees after its normalisations must be what was decided about.

    /// A table in which every kind of segment has neighbours of every other kind.
    const TABLE: [(&str, bool); 11] = [
        ("/api/{tenant}/**", false),
        ("/api/{tenant}/admin", false),
        ("/api/{tenant}/admin/{x}", false),
        ("/api/{tenant}/Raw/**", IGNORE_CASE),
        ("/api/{tenant}/{kind}/o", false),
        ("/api/o/x", false),
        ("/v1/{region}/{tenant}/o/{item}", false),
        ("/Reports/by/{tenant}/list/", IGNORE_CASE),
        ("/{any}/o", false),
        ("/o/**", false),
        ("/o/admin/{tenant}", false),
    ];

    /// Its rules, with the index as data; `Raw` allows `%25`.
    fn table() -> Router<usize> {
        let rules = TABLE.iter().enumerate().map(|(index, (path, ignore_case))| RouteRule {
            template: Template::parse(path, *ignore_case).expect(path),
            methods: vec!["GET".to_owned()],
            allow_encoded_percent: path.contains("Raw"),
            data: index,
        });
        Router::new(rules.collect()).unwrap()
    }

    /// How well a row of the table fits, segment by segment; the greatest wins.
    fn fit(text: &str, ignore_case: bool, segments: &[&str]) -> Option<Vec<u8>> {
        let (fixed, rest) = match text.strip_suffix("/**") {
            Some(fixed) => (fixed, true),
            None => (text, false),
        };
        let places: Vec<_> = fixed.split('/').skip(1).collect();
        if segments.len() < places.len() || (!rest && segments.len() > places.len()) {
            return None;
        }
        let ranks = places.iter().zip(segments).map(|(place, segment)| {
            if place.starts_with('{') {
                return (!segment.is_empty()).then_some(1);
            }
            let same =
                if ignore_case { place.eq_ignore_ascii_case(segment) } else { place == segment };
            same.then_some(2)
        });
        let mut ranks: Vec<u8> = ranks.collect::<Option<_>>()?;
        ranks.push(if rest { 0 } else { 4 });
        Some(ranks)
    }

    fn best_fit(segments: &[&str]) -> Option<usize> {
        let fits = TABLE.iter().enumerate().filter_map(|(index, (path, ignore_case))| {
            Some((fit(path, *ignore_case, segments)?, !ignore_case, index))
        });
        fits.max().map(|(_, _, index)| index)
    }

    /// The same for an upstream to which neither case nor a trailing slash matters.
    fn best_lenient_fit(segments: &[&str]) -> Option<usize> {
        let segments = segments.strip_suffix(&[""]).unwrap_or(segments);
        let fits = TABLE.iter().enumerate().filter_map(|(index, (path, _))| {
            Some((fit(path.trim_end_matches('/'), true, segments)?, index))
        });
        fits.max().map(|(_, index)| index)
    }

    #[derive(Clone, Copy, Debug)]
    enum Normalisation {
        Decode,
        MergeSlashes,
        BackslashAsSlash,
        StripParameters,
        RemoveDotSegments,
        LowerCase,
    }

    impl Normalisation {
        fn apply(self, path: &[u8]) -> Vec<u8> {
            match self {
                Self::Decode => decode_leniently(path),
                Self::MergeSlashes => {
                    let mut merged = path.to_vec();
                    merged.dedup_by(|a, b| *a == b'/' && *b == b'/');
                    merged
                }
                Self::BackslashAsSlash => {
                    path.iter().map(|&b| if b == b'\\' { b'/' } else { b }).collect()
                }
                Self::StripParameters => {
                    let segments = path.split(|&b| b == b'/');
                    let bare = segments.map(|s| s.split(|&b| b == b';').next().unwrap());
                    bare.collect::<Vec<_>>().join(&b'/')
                }
                Self::RemoveDotSegments => remove_dot_segments(path),
                Self::LowerCase => path.to_ascii_lowercase(),
            }
        }
    }

    fn decode_leniently(path: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < path.len() {
            let digits = path.get(at + 1..at + 3).filter(|_| path[at] == b'%');
            let byte = digits
                .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
                .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
            decoded.push(byte.unwrap_or(path[at]));
            at += if byte.is_some() { 3 } else { 1 };
        }
        decoded
    }

    fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
        let mut kept: Vec<&[u8]> = Vec::new();
        let segments: Vec<_> = path.split(|&b| b == b'/').skip(1).collect();
        for (at, segment) in segments.iter().enumerate() {
            let is_last = at + 1 == segments.len();
            match *segment {
                b".." => {
                    kept.pop();
                    kept.extend(is_last.then_some(b"".as_slice()));
                }
                b"." => kept.extend(is_last.then_some(b"".as_slice())),
                _ => kept.push(segment),
            }
        }
        [b"/".as_slice(), &kept.join(&b'/')].concat()
    }

    #[test]
    fn the_normalisations_do_what_upstreams_do() {
        use Normalisation::*;
        for (normalisation, path, expected) in [
            (Decode, "/a%2f%2E%zz%25%34", "/a/.%zz%4"),
            (MergeSlashes, "//a///b/", "/a/b/"),
            (BackslashAsSlash, "/a\\b", "/a/b"),
            (StripParameters, "/a;x=1/..;/b;", "/a/../b"),
            (RemoveDotSegments, "/a/b/../../c/./d/..", "/c/"),
            (RemoveDotSegments, "/../a/.", "/a/"),
            (LowerCase, "/A%2F", "/a%2f"),
        ] {
            assert_eq!(normalisation.apply(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    fn normalisations() -> impl Strategy<Value = Vec<Normalisation>> {
        use Normalisation::*;
        let each = prop::sample::select(vec![
            Decode,
            MergeSlashes,
            BackslashAsSlash,
            StripParameters,
            RemoveDotSegments,
            LowerCase,
        ]);
        let all = vec![
            Decode,
            Decode,
            BackslashAsSlash,
            StripParameters,
            MergeSlashes,
            RemoveDotSegments,
        ];
        prop_oneof![Just(all), prop::collection::vec(each, 1..8)]
    }

    /// Paths that fit the table or nearly so, with hostile segments and bytes strewn in.
    fn hostile_path() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "api", "o", "admin", "raw", "RAW", "v1", "x", "T1", "t2", "a.b", "...", "list",
        ]);
        let escaped = prop::sample::select(vec![
            "%61dmin", "%41dmin", "r%61w", "%6f", "%54%31", "a%20b", "%c3%a9", "100%25", "%25z",
            "x%3fy", "x%23", "%5f", "a,b", "T1%20",
        ]);
        let hostile = prop::sample::select(vec![
            "..",
            ".",
            "",
            "..;",
            "o;v=1",
            ";",
            "%2e%2e",
            ".%2E",
            "..%2fT2",
            "..%5cT2",
            "..\\T2",
            "%2f",
            "%252e%252e",
            "%25%32%65%252e",
            "..%252fT2",
            "..%3b",
            "%c0%ae%c0%ae",
            "%00",
            "..%c0%af",
            "%zz",
            "T1#",
            "%2541",
            "..%00",
            "\\",
            "%3B",
            "%5C..",
        ]);
        let segment = prop_oneof![8 => word, 2 => escaped, 2 => hostile];
        let start = prop::sample::select(vec![
            "/api/T1",
            "/api/T1",
            "/api/tEn.2/admin",
            "/api/T1/raw",
            "/api/T1/RAW/x",
            "/v1/eu/T1/o",
            "/reports/BY/T1/list",
            "/o/admin",
            "/x",
            "/%61pi/T1",
            "/API/t2",
            "/o/Admin",
            "/api/o/x",
            "/api/T1/x/o",
            "/T1/o",
            "/api",
            "",
        ]);
        let insert = prop_oneof![
            5 => Just(""),
            1 => prop::sample::select(vec!["/", "%2F", "\\", ";", "%", "%25", ".", "..", "/../"]),
        ];
        (start, prop::collection::vec(segment, 0..4), any::<bool>(), insert, 0..40_usize).prop_map(
            |(start, segments, trailing_slash, insert, at)| {
                let mut path = [&[start][..], &segments[..]].concat().join("/");
                path.extend(trailing_slash.then_some('/'));
                path.insert_str(at % (path.len() + 1), insert);
                path
            },
        )
    }

    fn tenant_place(text: &str) -> Option<usize> {
        text.split('/').position(|segment| segment == "{tenant}")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8192))]

        #[test]
        fn every_upstream_sees_the_same_tenant(
            path in hostile_path(),
            normalisations in normalisations(),
        ) {
            let table = table();
            let Ok(checked) = CheckedPath::parse(path.as_bytes()) else { return Ok(()) };
            let Found::Route(route) = table.find("GET", checked) else { return Ok(()) };
            let (mut seen, mut tenant) = (path.clone().into_bytes(), route.tenant.map(str::to_owned));
            let mut lowered = false;
            for normalisation in normalisations {
                seen = normalisation.apply(&seen);
                if let Normalisation::LowerCase = normalisation {
                    lowered = true;
                    tenant = tenant.map(|tenant| tenant.to_ascii_lowercase());
                }
            }
            let segments: Vec<_> = seen.split(|&byte| byte == b'/').collect();
            if let Some(place) = tenant_place(TABLE[*route.data].0) {
                prop_assert_eq!(segments.get(place).copied(), tenant.as_deref().map(str::as_bytes));
            }
            let segments: Vec<_> =
                segments[1..].iter().map(|s| str::from_utf8(s).unwrap()).collect();
            // Whether lower case is another route is the template's to say, the tenant is not.
            if !lowered {
                prop_assert_eq!(best_fit(&segments), Some(*route.data));
            }
            let lenient = best_lenient_fit(&segments).map(|index| tenant_place(TABLE[index].0));
            if let Some(Some(place)) = lenient {
                prop_assert_eq!(Some(place), tenant_place(TABLE[*route.data].0));
            }
        }

        #[test]
        fn the_tree_finds_what_a_plain_search_finds(path in hostile_path()) {
            let table = table();
            let Ok(checked) = CheckedPath::parse(path.as_bytes()) else { return Ok(()) };
            let segments: Vec<_> = checked.segments().collect();
            match table.find("GET", checked) {
                Found::Route(route) => prop_assert_eq!(best_fit(&segments), Some(*route.data)),
                Found::NoRoute => prop_assert_eq!(best_fit(&segments), None),
                Found::Refused(reason) => {
                    let place = |index: usize| tenant_place(TABLE[index].0);
                    let best = best_fit(&segments).and_then(place);
                    let lenient = best_lenient_fit(&segments).and_then(place);
                    let is_right = match reason {
                        PathError::InvalidTenant => !is_tenant_code(segments[best.unwrap() - 1]),
                        PathError::NearTenantRoute => lenient.is_some() && lenient != best,
                        PathError::EscapedLiteral => {
                            segments.iter().any(|segment| segment.ends_with('.'))
                                || path.contains('%')
                        }
                        _ => path.contains('%'),
                    };
                    prop_assert!(is_right, "{reason:?}");
                }
            }
        }
    }

    #[test]
    fn the_generated_paths_reach_every_outcome_often() {
        let table = table();
        let mut runner = TestRunner::deterministic();
        let (mut tenant, mut public, mut none, mut refused, mut unparsed) = (0, 0, 0, 0, 0);
        let mut hit = [0; TABLE.len()];
        for _ in 0..4000 {
            let path = hostile_path().new_tree(&mut runner).unwrap().current();
            match CheckedPath::parse(path.as_bytes()).map(|path| table.find("GET", path)) {
                Ok(Found::Route(route)) => {
                    hit[*route.data] += 1;
                    *if route.tenant.is_some() { &mut tenant } else { &mut public } += 1;
                }
                Ok(Found::NoRoute) => none += 1,
                Ok(Found::Refused(_)) => refused += 1,
                Err(_) => unparsed += 1,
            }
        }
        let counts = [tenant, public, none, refused, unparsed];
        assert!(tenant > 1000 && counts.iter().all(|&count| count > 80), "{counts:?}");
        assert!(hit.iter().all(|&count| count > 10), "{hit:?}");
    }
}
