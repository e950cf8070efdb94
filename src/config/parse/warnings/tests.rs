use std::fs;

use serde_json::{Value, json};

use crate::config::tests::{folder, full, with};
use crate::config::{BrokenConfig, LastGood};

fn warnings(config: &Value) -> Vec<String> {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join("secrets").join(name), text);
    write("blank", "hunter2 \n").unwrap();
    write("marked", "\u{feff}hunter2\n").unwrap();
    let file = folder.path().join("tenantgate.yaml");
    fs::write(&file, config.to_string()).unwrap();
    let warnings = match LastGood::default().read(&file) {
        Ok(reading) => reading.config.warnings,
        Err(broken) => broken.warnings,
    };
    let place = format!(" ({}:1:", file.display());
    let lines = warnings.iter().map(ToString::to_string);
    lines.map(|line| line.split_once(&place).expect("a place").0.to_owned()).collect()
}

fn route(path: &str, methods: &[&str], scopes: &[&str]) -> Value {
    json!({"path": path, "methods": methods, "scopes": scopes})
}

fn public(path: &str) -> Value {
    json!({"path": path, "methods": ["GET"], "public": true})
}

fn of_routes(routes: &[Value]) -> Vec<String> {
    warnings(&with(&[("/apis/0/routes", json!(routes))]))
}

#[test]
fn a_plain_config_warns_of_nothing() {
    assert_eq!(warnings(&full()), [""; 0]);
    let separate = [
        route("/api/{tenant}/report", &["GET"], &["read"]),
        route("/api/{tenant}/admin", &["GET", "PROPFIND"], &["admin"]),
        public("/docs/**"),
    ];
    assert_eq!(of_routes(&separate), [""; 0]);
}

#[test]
fn what_is_hardly_meant_is_told_with_its_cure() {
    let secret = "/tenants/lookup/auth/oauth2/client_secret_file";
    for (place, value, expected) in [
        ("/apis/0/shadow", json!(true), "apis[0].shadow: lets EVERYTHING pass "),
        (
            "/apis/0/routes/0/methods",
            json!(["GTE"]),
            "apis[0].routes[0].methods[0]: `GTE` is a method that no client sends; \
             did you mean `GET`?",
        ),
        (
            "/apis/0/routes/0/methods",
            json!(["GET", "ANY"]),
            "apis[0].routes[0].methods[1]: `ANY` is a method that no client sends; list those ",
        ),
        (
            "/apis/0/routes/0/methods",
            json!(["*"]),
            "apis[0].routes[0].methods[0]: `*` is a method that no client sends; list those ",
        ),
        (
            "/apis/0/routes/0/methods",
            json!(["XYZZY"]),
            "apis[0].routes[0].methods[0]: `XYZZY` is a method that no client sends; write ",
        ),
        ("/listen/token", json!("0.0.0.0:9192"), "listen.token: is open on all addresses "),
        ("/listen/admin", json!("[::]:9193"), "listen.admin: is open on all addresses "),
        ("/issuer/max_token_ttl", json!("25h"), "issuer.max_token_ttl: is longer than a day"),
        ("/issuers/0/max_lifetime", json!("2d"), "issuers[0].max_lifetime: is longer than a day"),
        (
            secret,
            json!("secrets/blank"),
            "tenants.lookup.auth.oauth2.client_secret_file: names a file with blanks ",
        ),
        (
            secret,
            json!("secrets/marked"),
            "tenants.lookup.auth.oauth2.client_secret_file: names a file that starts with a byte ",
        ),
        (
            "/issuer/audience",
            json!("x-${AUDIENCE:-a}"),
            "issuer.audience: has a variable, `${NAME}`, and these are not expanded; write ",
        ),
    ] {
        let told = warnings(&with(&[(place, value)]));
        assert!(told.len() == 1 && told[0].starts_with(expected), "{expected}: {told:#?}");
        assert!(told[0].contains("; ") && !told[0].contains("hunter2"), "{told:#?}");
    }
    assert_eq!(warnings(&with(&[("/issuer/audience", json!("a$b{c}"))])), [""; 0]);
    assert_eq!(warnings(&with(&[("/listen/check", json!("0.0.0.0:9191"))])), [""; 0]);
}

#[test]
fn who_verifies_without_the_registry_is_told() {
    let config = with(&[("/clients", Value::Null), ("/listen/token", Value::Null)]);
    let told = warnings(&config);
    assert!(told.len() == 1 && told[0].starts_with("clients: is missing, so that "), "{told:?}");
    let foreign_only = with(&[
        ("/clients", Value::Null),
        ("/listen/token", Value::Null),
        ("/issuer", Value::Null),
    ]);
    assert_eq!(warnings(&foreign_only), [""; 0]);
}

#[test]
fn a_variable_is_told_with_the_problem_that_it_makes() {
    let folder = folder();
    let file = folder.path().join("tenantgate.yaml");
    let config = with(&[("/issuer/url", json!("${URL}")), ("/apis/0/shadow", json!(true))]);
    fs::write(&file, config.to_string()).unwrap();
    let BrokenConfig { problems, warnings, .. } = LastGood::default().read(&file).err().unwrap();
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(problem.field, "issuer.url");
    assert!(problem.message.contains(" (variables, `${NAME}`, are not expanded)"), "{problem}");
    // Warnings are beside errors.
    assert_eq!(warnings.len(), 1);
}

#[test]
fn a_public_route_that_a_closed_one_overlaps_is_told() {
    let closed = route("/api/{tenant}/**", &["GET"], &["read"]);
    for (open, overlaps) in [
        ("/**", true),
        ("/api/{tenant}/health", true),
        ("/API/status/**", true),
        ("/{any}/T1", true),
        ("/api", false),
        ("/api/", false),
        ("/apis/**", false),
        ("/{any}", false),
    ] {
        let told = of_routes(&[closed.clone(), public(open)]);
        let expected = "apis[0].routes[1].path: is public and matches paths of apis[0].routes[0] ";
        let found = told.iter().any(|line| line.starts_with(expected));
        assert_eq!(found, overlaps, "{open}: {told:#?}");
    }
    let other_method = route("/api/{tenant}/**", &["PUT"], &["read"]);
    assert_eq!(of_routes(&[other_method, public("/docs/**")]), [""; 0]);
}

#[test]
fn routes_that_ask_for_less_right_beside_a_stricter_one_are_told() {
    let strict = route("/api/{tenant}/keys", &["GET"], &["admin"]);
    let near = "differs from apis[0].routes[0] only in case or a trailing slash, and does not \
                ask for the same; ";
    for lax in ["/api/{tenant}/keys/", "/api/{tenant}/KEYS", "/Api/{tenant}/Keys/"] {
        let told = of_routes(&[strict.clone(), route(lax, &["GET"], &["read"])]);
        let expected = format!("apis[0].routes[1].path: {near}");
        assert!(told.len() == 1 && told[0].starts_with(&expected), "{lax}: {told:#?}");
    }
    let told = of_routes(&[strict.clone(), route("/api/{tenant}/**", &["GET"], &["read"])]);
    let expected = "apis[0].routes[0].path: is passed by where `.json` follows it: \
                    apis[0].routes[1] has that, and does not ask for all that this one does; ";
    assert!(told.len() == 1 && told[0].starts_with(expected), "{told:#?}");
    for (path, methods, scopes) in [
        ("/api/{tenant}/**", ["GET"], &["admin", "read"][..]),
        ("/api/{tenant}/**", ["PUT"], &["read"]),
        ("/api/{tenant}/keys/{id}", ["GET"], &["read"]),
        ("/other/{tenant}/keys/", ["GET"], &["read"]),
    ] {
        assert_eq!(of_routes(&[strict.clone(), route(path, &methods, scopes)]), [""; 0], "{path}");
    }
}
