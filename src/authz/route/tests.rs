use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::domain::is_tenant_code;

const IGNORE_CASE: bool = true;

/// Requires nothing.
impl Demands for &'static str {
    fn is_public(&self) -> bool {
        false
    }

    fn scopes(&self) -> &[String] {
        &[]
    }
}

impl Demands for usize {
    fn is_public(&self) -> bool {
        false
    }

    fn scopes(&self) -> &[String] {
        &[]
    }
}

/// What a route requires, and its template.
struct Asks {
    path: &'static str,
    public: bool,
    scopes: Vec<String>,
}

impl Demands for Asks {
    fn is_public(&self) -> bool {
        self.public
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

fn asking(
    path: &'static str,
    methods: &[&str],
    public: bool,
    scopes: &[&str],
) -> RouteRule<Asks> {
    RouteRule {
        template: Template::parse(path, false).expect(path),
        methods: methods.iter().map(ToString::to_string).collect(),
        head: true,
        allow_encoded_percent: false,
        data: Asks { path, public, scopes: scopes.iter().map(ToString::to_string).collect() },
    }
}

fn rule(path: &str, ignore_case: bool, methods: &[&str]) -> RouteRule<&'static str> {
    RouteRule {
        template: Template::parse(path, ignore_case).expect(path),
        methods: methods.iter().map(ToString::to_string).collect(),
        head: true,
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
    shown(router, |data| data, method, path)
}

fn shown<T: Demands>(
    router: &Router<T>,
    name: fn(&T) -> &'static str,
    method: &str,
    path: &str,
) -> String {
    let checked = match CheckedPath::parse(path.as_bytes()) {
        Ok(checked) => checked,
        Err(reason) => return format!("refuse {}", reason.as_str()),
    };
    match router.find(method, checked) {
        Found::Route(route) => match route.tenant {
            Some(tenant) => format!("{} {tenant}", name(route.data)),
            None => name(route.data).to_owned(),
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
    let corpus = include_str!("../../../tests/corpus/paths.txt");
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
    let router = Router::new(vec![allowing, rule("/api/{tenant}/**", false, &["GET"])]).unwrap();
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
            // The same tenant either way: the templates decide.
            ("/api/T1/s/T", "/api/{tenant}/s/** T1"),
            ("/api/T1/s/t/", "/api/{tenant}/s/** T1"),
            // No tenant is concerned.
            ("/DOCS/a", "/**"),
            ("/docs/a/", "/**"),
        ],
    );
}

#[test]
fn a_stricter_route_is_not_passed_by_through_a_laxer_one() {
    let mut raw = asking("/api/{tenant}/raw/**", &["GET"], false, &["read"]);
    raw.allow_encoded_percent = true;
    let router = Router::new(vec![
        asking("/api/{tenant}/**", &["GET", "PUT"], false, &["read"]),
        asking("/api/{tenant}/keys", &["GET"], false, &["admin"]),
        asking("/api/{tenant}/both/", &["GET"], false, &["read", "admin"]),
        asking("/api/{tenant}/same", &["GET"], false, &["read"]),
        asking("/api/{tenant}/lax", &["GET", "PUT"], false, &[]),
        asking("/api/{tenant}/deep/{x}/Keys/**", &["GET"], false, &["admin"]),
        asking("/open/**", &["GET"], true, &[]),
        asking("/open/{tenant}/x", &["GET"], true, &[]),
        asking("/open/{tenant}/closed", &["GET"], false, &[]),
        raw,
        asking("/api/{tenant}/raw/once", &["GET"], false, &["read"]),
    ])
    .unwrap();
    for (method, path, expected) in [
        ("GET", "/api/T1/keys", "/api/{tenant}/keys T1"),
        ("GET", "/api/T1/keys/", "refuse near_stricter_route"),
        ("GET", "/api/T1/KEYS", "refuse near_stricter_route"),
        ("GET", "/api/T1/Keys/", "refuse near_stricter_route"),
        ("GET", "/API/T1/keys", "no_route"),
        ("GET", "/api/T1/keys;", "refuse semicolon"),
        ("GET", "/api/T1/keys;/", "refuse semicolon"),
        ("GET", "/api/T1/keys%3b", "refuse encoded_semicolon"),
        ("GET", "/api/T1/keys//", "refuse empty_segment"),
        // What some upstreams read as nothing ends the path with a slash.
        ("GET", "/api/T1/keys/%20", "refuse near_stricter_route"),
        ("GET", "/api/T1/keys/%3fx", "refuse near_stricter_route"),
        ("GET", "/api/T1/keys/%23", "refuse near_stricter_route"),
        ("GET", "/api/T1/keys/...", "refuse near_stricter_route"),
        ("GET", "/api/T1/keys/%e2%80%8b", "refuse near_stricter_route"),
        ("GET", "/api/T1/keys/x", "/api/{tenant}/** T1"),
        ("GET", "/api/T1/keys.json", "/api/{tenant}/** T1"),
        ("GET", "/api/T1/both", "refuse near_stricter_route"),
        ("GET", "/api/T1/BOTH/", "refuse near_stricter_route"),
        ("GET", "/api/T1/deep/1/keys/2/3", "refuse near_stricter_route"),
        // It asks no more than what was found.
        ("GET", "/api/T1/same/", "/api/{tenant}/** T1"),
        ("GET", "/api/T1/LAX", "/api/{tenant}/** T1"),
        // What the stricter route leaves out is denied there.
        ("PUT", "/api/T1/keys/", "refuse near_stricter_route"),
        ("PUT", "/api/T1/SAME", "refuse near_stricter_route"),
        ("PUT", "/api/T1/lax/", "/api/{tenant}/** T1"),
        // Denied either way.
        ("POST", "/api/T1/keys/", "no_route"),
        // A public route is the laxest, also for the same tenant.
        ("GET", "/open/T1/CLOSED", "refuse near_tenant_route"),
        ("GET", "/open/T1/closed", "/open/{tenant}/closed T1"),
        // An escape that only one of the two allows.
        ("GET", "/api/T1/raw/once%25", "/api/{tenant}/raw/** T1"),
        ("GET", "/api/T1/raw/once/", "refuse near_stricter_route"),
        ("HEAD", "/api/T1/keys/", "refuse near_stricter_route"),
        ("HEAD", "/api/T1/keys.json", "/api/{tenant}/** T1"),
    ] {
        assert_eq!(shown(&router, |asks| asks.path, method, path), expected, "{method} {path}");
    }
}

#[test]
fn letters_that_fold_into_a_fixed_segment_do_not_pass_by_it() {
    let router = Router::new(vec![
        rule("/**", false, &["GET"]),
        rule("/keys/{tenant}/**", false, &["GET"]),
        rule("/api/{tenant}/**", false, &["GET"]),
        rule("/api/{tenant}/Files", IGNORE_CASE, &["GET"]),
        rule("/api/{tenant}/x/ids", false, &["GET"]),
        rule("/api/{tenant}/strasse", false, &["GET"]),
    ])
    .unwrap();
    let escaped = |text: &str| -> String {
        let escape = |c: char| match c {
            ' '..='~' => c.to_string(),
            _ => c.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect(),
        };
        text.chars().map(escape).collect()
    };
    for path in [
        "/\u{212a}eys/T2/x",
        "/key\u{17f}/T2/x",
        "/\u{212a}EY\u{17f}/T2",
        // Full width, bold, circled.
        "/\u{ff4b}\u{ff45}\u{ff59}\u{ff53}/T2",
        "/\u{ff2b}eys/T2",
        "/\u{1d424}eys/T2",
        "/\u{24d0}pi/T2/x",
        "/ap\u{2071}/T2/x",
        // A soft hyphen, a zero-width space, a variation selector.
        "/ke\u{ad}ys/T2",
        "/keys\u{200b}/T2",
        "/api\u{fe0f}/T2",
        // Blanks that are trimmed.
        "/keys\u{a0}/T2",
        "/\u{3000}keys/T2",
        "/keys\u{2028}/T2",
        // Full-width dots at the end, and what ends there.
        "/keys\u{ff0e}/T2",
        "/keys\u{ff1f}x/T2",
        "/keys\u{ff03}/T2",
        // Ligatures and other letters that fold to several.
        "/api/T1/\u{fb01}les",
        "/api/T1/\u{fb01}LE\u{17f}",
        "/api/T1/stra\u{df}e",
        "/api/T1/stra\u{1e9e}e",
        "/api/T1/\u{fb06}rasse",
        // Without a dot, and with one more.
        "/api/T1/f\u{131}les",
        "/api/T1/F\u{130}LES",
        "/api/T1/x/I\u{307}DS",
        "/api/T1/x/\u{131}ds",
    ] {
        assert_eq!(outcome(&router, "GET", &escaped(path)), "refuse escaped_literal", "{path:?}");
    }
    for (path, expected) in [
        ("/api/T1/caf\u{e9}", "/api/{tenant}/** T1"),
        ("/api/T1/f\u{ed}les", "/api/{tenant}/** T1"),
        ("/api/T1/\u{43a}eys", "/api/{tenant}/** T1"),
        ("/api/T1/x/\u{212a}", "/api/{tenant}/** T1"),
        ("/stra\u{df}e", "/**"),
        ("/\u{65e5}\u{672c}\u{ff1f}", "/**"),
    ] {
        assert_eq!(outcome(&router, "GET", &escaped(path)), expected, "{path:?}");
    }
}

#[test]
fn head_is_allowed_where_get_is() {
    let mut without = rule("/c/{tenant}", false, &["GET"]);
    without.head = false;
    let router = Router::new(vec![
        rule("/a/{tenant}", false, &["GET"]),
        rule("/b/{tenant}/{x}", false, &["PUT", "GET"]),
        rule("/b/{tenant}/{y}", false, &["HEAD"]),
        without,
        rule("/d/{tenant}", false, &["PUT"]),
    ])
    .unwrap();
    for (path, expected) in [
        ("/a/T1", "/a/{tenant} T1"),
        // A rule that names it decides.
        ("/b/T1/1", "/b/{tenant}/{y} T1"),
        ("/c/T1", "no_route"),
        ("/d/T1", "no_route"),
    ] {
        assert_eq!(outcome(&router, "HEAD", path), expected, "{path}");
    }
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
        head: true,
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
        let same = if ignore_case { place.eq_ignore_ascii_case(segment) } else { place == segment };
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
    let all =
        vec![Decode, Decode, BackslashAsSlash, StripParameters, MergeSlashes, RemoveDotSegments];
    prop_oneof![Just(all), prop::collection::vec(each, 1..8)]
}

/// Paths that fit the table or nearly so, with hostile segments and bytes mixed in.
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
        // The template says whether lower case is another route, but not whether it is another
        // tenant.
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
