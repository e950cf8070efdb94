mod dialects;
mod schema;
mod state;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// The example of the contract, with every section.
const FULL: &str = r"
listen:
  check: 127.0.0.1:9191
  token: 127.0.0.1:9192
  admin: 127.0.0.1:9193
issuer:
  url: https://api.example.com
  audience: https://api.example.com
  token_ttl: 5m
  signing_keys: keys/
  tenant_claim: { name: tenant_list, form: digest, key_file: secrets/tenant-digest.key }
clients:
  file: clients.yaml
tenants:
  freshness: { refresh: 60s, max_age: 300s }
  lookup:
    url: http://127.0.0.1:9300/{client_id}/authorizedTenants
    select: $.tenants[*].code
    timeout: 1s
    cache_ttl: 60s
    auth:
      oauth2:
        token_url: http://127.0.0.1:9300/oauth/token
        client_id: tenantgate
        client_secret_file: secrets/lookup-client
        refresh_before_expiry: 10s
issuers:
  - issuer: https://login.example.net
    jwks_url: https://login.example.net/jwks
    audience: https://api.example.com
    algorithms: [ES256, RS256]
    tenant_claim: /tenants
    client_claim: /azp
    typ: [at+jwt]
    max_lifetime: 24h
apis:
  - name: oda
    routes:
      - path: /oda/apis/get/reports/assets/tenant/{tenant}/devicedistribution
        methods: [GET]
        ignore_case: true
        scopes: [reports.read]
";

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";

pub fn full() -> Value {
    serde_saphyr::from_str(FULL).unwrap()
}

/// A folder with the files that the tests' configs name.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("secrets")).unwrap();
    for (name, content) in [
        ("tenant-digest.key", "0123456789abcdef".repeat(4) + "\n"),
        ("previous.key", "ABCDEF0123456789".repeat(4)),
        ("short.key", "0123hunter2".to_owned()),
        ("lookup-client", "hunter2\r\n".to_owned()),
        ("empty", "\n".to_owned()),
        ("two-lines", "hunter2\nhunter2\n".to_owned()),
        ("umlaut", "hunter2\u{fc}".to_owned()),
        ("cert.pem", CERTIFICATE.to_owned()),
        ("key.pem", PRIVATE_KEY.to_owned()),
        ("jwks.json", "{\"keys\": []}".to_owned()),
    ] {
        fs::write(folder.path().join("secrets").join(name), content).unwrap();
    }
    folder
}

fn load_in(folder: &Path, config: &Value) -> Result<Config, Vec<Problem>> {
    let file = folder.join("tenantgate.yaml");
    fs::write(&file, config.to_string()).unwrap();
    let without_place = |mut problem: Problem| {
        let (message, place) = problem.message.rsplit_once(" (").expect("a place");
        assert!(place.starts_with(&format!("{}:1:", file.display())), "{place}");
        problem.message = message.to_owned();
        problem
    };
    Config::load(&file).map_err(|problems| problems.into_iter().map(without_place).collect())
}

fn load(config: &Value) -> Result<Config, Vec<Problem>> {
    load_in(folder().path(), config)
}

/// The full example with one place set; `null` removes the key.
pub fn with(changes: &[(&str, Value)]) -> Value {
    let mut config = full();
    for (place, value) in changes {
        let (holder, key) = place.rsplit_once('/').unwrap();
        let mut at = &mut config;
        for step in holder.split('/').skip(1) {
            at = match step.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[step],
            };
        }
        match (key.parse::<usize>(), value) {
            (Ok(index), value) => at[index] = value.clone(),
            (Err(_), Value::Null) => drop(at.as_object_mut().unwrap().remove(key)),
            (Err(_), value) => at[key] = value.clone(),
        }
    }
    config
}

fn lines(config: &Value) -> Vec<String> {
    match load(config) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_contract_s_example_is_read() {
    let folder = folder();
    let file = folder.path().join("tenantgate.yaml");
    fs::write(&file, FULL).unwrap();
    let config = Config::load(&file).unwrap();

    let issuer = config.issuer.unwrap();
    assert_eq!(issuer.keys, OwnKeys::Folder(folder.path().join("keys/")));
    assert_eq!(issuer.token_ttl, Duration::from_secs(300));
    assert_eq!(issuer.max_token_ttl, Duration::from_secs(86400));
    let ClaimForm::Digest { key, previous: None } = &issuer.tenant_claim.form else { panic!() };
    assert_eq!(key[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    let Lookup::Http(lookup) = &config.tenants.lookup else { panic!() };
    assert_eq!(lookup.no_grants_status, [0; 0]);
    assert_eq!(lookup.reading.select.array.as_ref().unwrap().to_string(), "$.tenants");
    let LookupAuth::OAuth2(auth) = &lookup.auth else { panic!() };
    let OAuth2Method::ClientSecretBasic(secret) = &auth.method else { panic!() };
    assert_eq!(secret.0.expose(), "hunter2");
    let [trusted] = config.issuers.as_slice() else { panic!() };
    assert_eq!(trusted.freshness, IssuerFreshness::Token);
    let [api] = config.apis.as_slice() else { panic!() };
    assert_eq!(
        api.routes[0].name,
        "/oda/apis/get/reports/assets/tenant/{tenant}/devicedistribution"
    );
    let read = ["tenantgate.yaml", "secrets/tenant-digest.key", "secrets/lookup-client"];
    assert_eq!(config.files, read.map(|name| folder.path().join(name)));
}

#[test]
fn what_is_left_out_has_the_safe_default() {
    let smallest = json!({
        "issuers": [{
            "issuer": "https://i", "discovery": true, "audience": "a", "tenant_claim": "/t",
        }],
        "apis": [{"name": "a", "routes": [{"path": "/{tenant}/**", "methods": ["GET"]}]}],
    });
    let config = load(&smallest).unwrap();
    assert_eq!(config.listen.check.address, ListenAddress::Tcp("127.0.0.1:9191".parse().unwrap()));
    assert_eq!(config.listen.admin.address, ListenAddress::Tcp("127.0.0.1:9193".parse().unwrap()));
    assert!(config.listen.token.is_none() && config.issuer.is_none());
    assert_eq!(config.tenants.lookup, Lookup::Static);
    assert_eq!(config.tenants.on_miss, OnMiss::Deny);
    let fresh =
        Freshness::Lookup { refresh: Duration::from_secs(60), max_age: Duration::from_secs(300) };
    assert_eq!(config.tenants.freshness, fresh);
    let issuer = &config.issuers[0];
    assert_eq!(issuer.algorithms, [Algorithm::Es256]);
    assert_eq!(
        (issuer.typ.as_slice(), issuer.client_claim.as_str()),
        (["at+jwt".to_owned()].as_slice(), "/client_id")
    );
    let api = &config.apis[0];
    assert!(!api.forward_authorization && !api.shadow && api.api_key_header.is_none());
    assert!(!api.routes[0].public && !api.routes[0].allow_encoded_percent);
    assert!(!config.limits.probing.throttle);
}

#[test]
fn every_problem_of_every_section_is_reported_at_once() {
    let config = with(&[
        ("/listen/chek", json!("127.0.0.1:1")),
        ("/issuer/token_ttl", json!("soon")),
        ("/issuer/audience", Value::Null),
        ("/tenants/lookup/timeout", json!(5)),
        ("/tenants/lookup/auth/oauth2/client_secret_file", json!("secrets/nowhere")),
        ("/issuers/0/algorithms", json!(["HS256"])),
        ("/apis/0/routes/0/path", json!("/no/variable")),
        ("/apis/0/routes/0/methods", json!(["get", 5, "put"])),
        ("/limits", json!({"probing": {"window": "x"}})),
    ]);
    let fields: Vec<String> =
        load(&config).unwrap_err().into_iter().map(|problem| problem.field).collect();
    assert_eq!(
        fields,
        [
            "apis[0].routes[0].methods[0]",
            "apis[0].routes[0].methods[1]",
            "apis[0].routes[0].methods[2]",
            "apis[0].routes[0].path",
            "issuer.audience",
            "issuer.token_ttl",
            "issuers[0].algorithms[0]",
            "limits.probing.window",
            "listen.chek",
            "tenants.lookup.auth.oauth2.client_secret_file",
            "tenants.lookup.timeout",
        ]
    );
}

#[test]
fn each_line_says_what_is_wrong_and_what_to_do() {
    for (place, value, line) in [
        (
            "/listen/token",
            json!("localhost"),
            "listen.token: is not an address with a port; write it like",
        ),
        ("/listen/admin", json!("unix:/a"), "listen.admin: cannot be a Unix socket; "),
        ("/listen/check", json!("unix:"), "listen.check: names no socket; "),
        ("/listen/feed", json!("127.0.0.1:1"), "listen.feed: is not a plain Unix socket; "),
        (
            "/listen/feed",
            json!({ "address": "unix:f", "tls": { "cert_file": "c", "key_file": "k" } }),
            "listen.feed: is not a plain Unix socket; ",
        ),
        (
            "/listen/admin",
            json!("0.0.0.0:9191"),
            "listen.admin: is the same address as `listen.check`; ",
        ),
        (
            "/telemetry",
            json!({ "traces": { "otlp_grpc": "http://collector:4317" } }),
            "telemetry.traces.otlp_grpc: plain http:// outside loopback can be read and changed",
        ),
        (
            "/telemetry",
            json!({ "traces": {} }),
            "telemetry.traces.otlp_grpc: missing; add it: The collector, OTLP over gRPC, such as",
        ),
        ("/issuer", Value::Null, "issuer: is missing, but `listen.token` wants to mint; "),
        ("/clients", Value::Null, "clients: is missing, but `listen.token` wants to mint; "),
        ("/apis", Value::Null, "apis: missing; add it: "),
        ("/apis", json!([]), "apis: must be a list with at least one entry; "),
        (
            "/issuer/url",
            json!("api.example.com"),
            "issuer.url: is not a URL (relative URL without a base); ",
        ),
        (
            "/issuer/url",
            json!("http://api.example.com"),
            "issuer.url: plain http:// outside loopback ",
        ),
        ("/issuer/url", json!("https://a.b/?x"), "issuer.url: has a query; "),
        (
            "/issuer/url",
            json!("https://u:hunter2@a.b"),
            "issuer.url: has a user name or a password in it; ",
        ),
        ("/issuer/url", json!("ftp://a.b"), "issuer.url: is neither https:// nor http://; "),
        ("/issuer/audience", json!(" "), "issuer.audience: is empty; "),
        ("/issuer/token_ttl", json!("5"), "issuer.token_ttl: is not a duration; "),
        ("/issuer/token_ttl", json!("5M"), "issuer.token_ttl: is not a duration; "),
        ("/issuer/token_ttl", json!("0s"), "issuer.token_ttl: must be more than zero; "),
        (
            "/issuer/token_ttl",
            json!("25h"),
            "issuer.token_ttl: is longer than `issuer.max_token_ttl`; ",
        ),
        (
            "/issuer/token_ttl",
            json!(300),
            "issuer.token_ttl: must be a duration such as `5m`; this is a number",
        ),
        ("/issuer/leeway", json!("31s"), "issuer.leeway: is more than 30s; "),
        (
            "/issuer/tenant_claim/name",
            json!("sub"),
            "issuer.tenant_claim.name: is a claim or a response field ",
        ),
        (
            "/issuer/tenant_claim/form",
            json!("digset"),
            "issuer.tenant_claim.form: must be `digest` or `plain`; did you mean `digest`?",
        ),
        (
            "/issuer/tenant_claim/form",
            json!("plain"),
            "issuer.tenant_claim.key_file: has no effect with `form: plain`; ",
        ),
        (
            "/issuer/tenant_claim/key_file",
            Value::Null,
            "issuer.tenant_claim.key_file: is missing, and ",
        ),
        (
            "/issuer/tenant_claim/key_file",
            json!("secrets/short.key"),
            "issuer.tenant_claim.key_file: names a file that is not a key of 64 hex characters; ",
        ),
        (
            "/issuer/tenant_claim/previous_key_file",
            json!("secrets/tenant-digest.key"),
            "issuer.tenant_claim.previous_key_file: holds the same key ",
        ),
        (
            "/tenants/freshness/refresh",
            json!("300s"),
            "tenants.freshness.refresh: is not shorter than ",
        ),
        (
            "/tenants/freshness",
            json!("tokn"),
            "tenants.freshness: must be `token` or a mapping (key: value); did you mean `token`?",
        ),
        (
            "/tenants/lookup/stale_while_revalidate",
            json!("301s"),
            "tenants.lookup.stale_while_revalidate: is longer than ",
        ),
        (
            "/tenants/lookup/url",
            json!("http://127.0.0.1/x"),
            "tenants.lookup.url: has no `{client_id}`; ",
        ),
        (
            "/tenants/lookup/url",
            json!("https://{client_id}.example.com/"),
            "tenants.lookup.url: has `{client_id}` before the path; ",
        ),
        (
            "/tenants/lookup/url",
            json!("https://a/{client_id}/{tenant}"),
            "tenants.lookup.url: has another variable than ",
        ),
        (
            "/tenants/lookup/url",
            json!("http://a.example.com/{client_id}"),
            "tenants.lookup.url: plain http:// outside loopback ",
        ),
        ("/tenants/lookup/url", Value::Null, "tenants.lookup.url: missing; "),
        (
            "/tenants/lookup/select",
            json!("$.tenants["),
            "tenants.lookup.select: is not a JSONPath (",
        ),
        ("/tenants/lookup/select", json!("$..code"), "tenants.lookup.select: has a `..` "),
        (
            "/tenants/lookup/headers",
            json!([{"name": "a b", "value": "x"}]),
            "tenants.lookup.headers[0].name: is not a header's name; ",
        ),
        (
            "/tenants/lookup/headers",
            json!([{"name": "Host", "value": "x"}]),
            "tenants.lookup.headers[0].name: is a header that the HTTP client sets itself; ",
        ),
        (
            "/tenants/lookup/headers",
            json!([{"name": "Authorization", "value": "x"}]),
            "tenants.lookup.headers[0].name: is what `auth` sends; ",
        ),
        (
            "/tenants/lookup/headers",
            json!([{"name": "a", "value": "x", "value_file": "secrets/empty"}]),
            "tenants.lookup.headers[0]: has both `value` and `value_file`; ",
        ),
        (
            "/tenants/lookup/headers",
            json!([{"name": "a"}]),
            "tenants.lookup.headers[0]: has no value; ",
        ),
        (
            "/tenants/lookup/headers",
            json!([{"name": "a", "value": "x\ny"}]),
            "tenants.lookup.headers[0].value: has characters that no header can carry; ",
        ),
        (
            "/tenants/lookup/headers",
            json!([{"name": "a", "value_file": "secrets/umlaut"}]),
            "tenants.lookup.headers[0].value_file: names a file with characters ",
        ),
        (
            "/tenants/lookup/claims",
            json!({"plan": "plan"}),
            "tenants.lookup.claims.plan: is not a JSONPath (",
        ),
        (
            "/tenants/lookup/claims",
            json!({"plan": {"display": true}}),
            "tenants.lookup.claims.plan.select: missing; ",
        ),
        (
            "/tenants/lookup/claims",
            json!({"tenant_list": "$.a"}),
            "tenants.lookup.claims.tenant_list: is the name of the tenant claim; ",
        ),
        (
            "/tenants/lookup/no_grants_status",
            json!([401]),
            "tenants.lookup.no_grants_status[0]: is not an answer about grants: ",
        ),
        (
            "/tenants/lookup/no_grants_status",
            json!([503]),
            "tenants.lookup.no_grants_status[0]: must be a whole number from 201 to 499; ",
        ),
        (
            "/tenants/lookup/max_tries",
            json!(0),
            "tenants.lookup.max_tries: must be a whole number from 1 to 10; ",
        ),
        (
            "/tenants/lookup/proxy",
            json!("http://proxy:3128/x"),
            "tenants.lookup.proxy: has a path or a query; ",
        ),
        (
            "/tenants/lookup/tls",
            json!({"ca_file": "secrets/cert.pem"}),
            "tenants.lookup.tls: has no effect with http://; ",
        ),
        (
            "/tenants/lookup/auth/basic",
            json!({"username": "a", "password_file": "secrets/lookup-client"}),
            "tenants.lookup.auth: says more than one way to authenticate; ",
        ),
        ("/tenants/lookup/auth", json!({}), "tenants.lookup.auth: says no way to authenticate; "),
        (
            "/tenants/lookup/auth/oauth2/token_url",
            json!("http://a.b/token"),
            "tenants.lookup.auth.oauth2.token_url: plain http:// ",
        ),
        (
            "/tenants/lookup/auth/oauth2/client_secret_file",
            Value::Null,
            "tenants.lookup.auth.oauth2.client_secret_file: missing, and ",
        ),
        (
            "/tenants/lookup/auth/oauth2/client_secret_file",
            json!("secrets/empty"),
            "tenants.lookup.auth.oauth2.client_secret_file: names an empty file; ",
        ),
        (
            "/tenants/lookup/auth/oauth2/client_secret_file",
            json!("secrets/two-lines"),
            "tenants.lookup.auth.oauth2.client_secret_file: names a file with control characters \
             or several lines; ",
        ),
        (
            "/tenants/lookup/auth/oauth2/private_key_file",
            json!("secrets/key.pem"),
            "tenants.lookup.auth.oauth2.private_key_file: has no effect without ",
        ),
        (
            "/tenants/lookup/auth/oauth2/scope",
            json!("a \"b\""),
            "tenants.lookup.auth.oauth2.scope: is not a list of scopes ",
        ),
        (
            "/tenants/lookup/auth/oauth2/refresh_before_expiry",
            json!("5m"),
            "tenants.lookup.auth.oauth2.refresh_before_expiry: is not shorter than ",
        ),
        (
            "/issuers/0/issuer",
            json!("https://api.example.com"),
            "issuers[0].issuer: is our own `issuer.url`; ",
        ),
        ("/issuers/0/jwks_url", Value::Null, "issuers[0]: says nowhere to get its keys from; "),
        (
            "/issuers/0/discovery",
            json!(true),
            "issuers[0]: says more than one place to get its keys from; ",
        ),
        ("/issuers/0/jwks_url", json!("http://a.b/jwks"), "issuers[0].jwks_url: plain http:// "),
        (
            "/issuers/0/tenant_claim",
            json!("tenants"),
            "issuers[0].tenant_claim: is not a JSON Pointer (RFC 6901); ",
        ),
        (
            "/issuers/0/tenant_claim",
            json!("/a~2"),
            "issuers[0].tenant_claim: is not a JSON Pointer (RFC 6901); ",
        ),
        ("/issuers/0/typ", json!([]), "issuers[0].typ: must be a list with at least one entry; "),
        (
            "/issuers/0/algorithms",
            json!(["HS256"]),
            "issuers[0].algorithms[0]: must be `ES256` or `ES384` or `EdDSA` or `RS256` or \
             `PS256`; ",
        ),
        (
            "/apis/0/routes/0/path",
            json!("api/{tenant}"),
            "apis[0].routes[0].path: does not start with `/`; ",
        ),
        ("/apis/0/routes/0/path", json!("/api"), "apis[0].routes[0].path: has no `{tenant}`; "),
        (
            "/apis/0/routes/0/path",
            json!("/api/{tennant}/x"),
            "apis[0].routes[0].path: has `{tennant}`, but no `{tenant}`; did you mean `{tenant}`?",
        ),
        (
            "/apis/0/routes/0/path",
            json!("/api/:tenant"),
            "apis[0].routes[0].path: has `:tenant`, but no `{tenant}`; did you mean `{tenant}`?",
        ),
        (
            "/apis/0/routes/0/path",
            json!("/api/{Tenant}"),
            "apis[0].routes[0].path: has the variable `{Tenant}`; ",
        ),
        (
            "/apis/0/routes/0/methods",
            json!([]),
            "apis[0].routes[0].methods: must be a list with at least one entry; ",
        ),
        (
            "/apis/0/routes/0/methods",
            Value::Null,
            "apis[0].routes[0].methods: missing; add it: The methods of this route",
        ),
        (
            "/apis/0/routes/0/scopes",
            json!(["a b"]),
            "apis[0].routes[0].scopes[0]: is not a scope (RFC 6749); ",
        ),
        (
            "/apis/0/routes/0/public",
            json!(true),
            "apis[0].routes[0].scopes: has no effect on a public route; ",
        ),
        (
            "/apis/0/routes/0/public",
            json!("yes"),
            "apis[0].routes[0].public: must be `true` or `false`; ",
        ),
        (
            "/apis/0/api_key",
            json!({"header": "Authorization"}),
            "apis[0].api_key.header: is a header with a meaning of its own; ",
        ),
        (
            "/apis/0/api_key",
            json!({"header": "x y"}),
            "apis[0].api_key.header: is not a header's name; ",
        ),
        (
            "/limits",
            json!({"token_conections": 5}),
            "limits.token_conections: unknown key; did you mean `token_connections`?",
        ),
    ] {
        let lines = lines(&with(&[(place, value)]));
        assert_eq!(lines.len(), 1, "{line}: {lines:?}");
        assert!(lines[0].starts_with(line), "{lines:?}");
        let (wrong, cure) = lines[0].split_once("; ").unwrap_or_else(|| panic!("{lines:?}"));
        assert!(!wrong.is_empty() && !cure.is_empty());
    }
}

#[test]
fn a_broken_value_does_not_draw_further_complaints() {
    for (place, value) in [
        ("/tenants/freshness/max_age", json!(5)),
        ("/issuer", json!("x")),
        ("/clients", json!(["x"])),
        ("/issuers/0/jwks_url", json!(5)),
        ("/tenants/lookup/auth/oauth2", json!("x")),
        ("/tenants/lookup/headers", json!([{"name": "a", "value": 5}])),
        ("/tenants/lookup/grpc", json!("x")),
    ] {
        let config = with(&[
            ("/tenants/freshness/refresh", json!("400s")),
            ("/tenants/freshness/max_age", json!("500s")),
            (place, value),
        ]);
        let lines: Vec<String> =
            lines(&config).into_iter().filter(|line| !line.contains("beside `grpc`")).collect();
        assert_eq!(lines.len(), 1, "{place}: {lines:?}");
    }
}

#[test]
fn routes_and_apis_that_collide_name_each_other() {
    let route = |path: &str| json!({"path": path, "methods": ["GET"]});
    let routes = json!([
        route("/a/{tenant}/x"),
        route("bad"),
        route("/a/{tenant}/x"),
        route("/a/{b}/{tenant}")
    ]);
    let api = json!({"name": "oda", "routes": [route("/{tenant}/**")]});
    let mut config = with(&[("/apis/0/routes", routes)]);
    config["apis"].as_array_mut().unwrap().push(api);
    let lines = lines(&config);
    assert!(
        lines.contains(
            &"apis[0].routes[2].path: matches GET on the same paths as \
                             apis[0].routes[0]; take the method or the route out of one of \
                             them"
                .to_owned()
        ),
        "{lines:?}"
    );
    assert!(lines.contains(
        &"apis[1].name: is the name of an API above; give each API its own name".to_owned()
    ));
}

#[test]
fn an_api_key_needs_a_registry_and_on_miss_a_lookup() {
    let no_mint =
        [("/listen/token", Value::Null), ("/clients", Value::Null), ("/apis/0/api_key", json!({}))];
    assert!(
        lines(&with(&no_mint))[0].starts_with("apis[0].api_key: accepts registered credentials, ")
    );
    let on_static = [("/tenants/lookup", json!("static")), ("/tenants/on_miss", json!("lookup"))];
    assert!(lines(&with(&on_static))[0].starts_with("tenants.on_miss: "));
    let on_token = [("/tenants/freshness", json!("token")), ("/tenants/on_miss", json!("lookup"))];
    assert!(lines(&with(&on_token))[0].starts_with("tenants.on_miss: "));
    for nobody_asks in
        [("/tenants/lookup", json!("static")), ("/tenants/freshness", json!("token"))]
    {
        let fresh_issuer = [("/issuers/0/freshness", json!("lookup")), nobody_asks];
        let problems = lines(&with(&fresh_issuer));
        assert!(problems[0].starts_with("issuers[0].freshness: `lookup` has no effect "));
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
    assert!(lines(&with(&[("/issuers/0/freshness", json!("lookup"))])).is_empty());
    let key_on_token = [("/tenants/freshness", json!("token")), ("/apis/0/api_key", json!({}))];
    assert!(lines(&with(&key_on_token))[0].starts_with("apis[0].api_key: cannot work with "));
    let nobody =
        [("/listen/token", Value::Null), ("/issuer", Value::Null), ("/issuers", Value::Null)];
    assert!(
        lines(&with(&nobody))[0]
            .starts_with("issuer: is missing, and there are no `issuers` either")
    );
}

#[test]
fn a_mass_withdrawal_is_applied_unless_it_is_to_be_held() {
    let rule = |change: Value| {
        load(&with(&[("/tenants/mass_withdrawal", change)])).unwrap().tenants.mass_withdrawal
    };
    let default = MassWithdrawal { share: 0.5, at_least: 10, action: MassAction::Apply };
    assert_eq!(rule(json!({})), default);
    let held = rule(json!({"share": 0.2, "at_least": 3, "action": "hold"}));
    assert_eq!(held, MassWithdrawal { share: 0.2, at_least: 3, action: MassAction::Hold });
    for (key, value) in [
        ("share", json!(0)),
        ("share", json!(1.5)),
        ("at_least", json!(0)),
        ("action", json!("wait")),
    ] {
        let problems = lines(&with(&[("/tenants/mass_withdrawal", json!({key: value}))]));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with(&format!("tenants.mass_withdrawal.{key}: ")),
            "{problems:?}"
        );
    }
}

#[test]
fn every_way_to_authenticate_is_read() {
    let auth = |auth: Value| {
        let config = load(&with(&[("/tenants/lookup/auth", auth)])).unwrap();
        let Lookup::Http(lookup) = config.tenants.lookup else { panic!() };
        lookup.auth
    };
    let LookupAuth::Bearer(token) =
        auth(json!({"bearer": {"token_file": "secrets/lookup-client"}}))
    else {
        panic!()
    };
    assert_eq!(token.0.expose(), "hunter2");
    let basic = json!({"basic": {"username": "a", "password_file": "secrets/lookup-client"}});
    assert!(matches!(auth(basic), LookupAuth::Basic { username, .. } if username == "a"));
    let jwt = json!({"oauth2": {
        "token_url": "https://a/token", "client_id": "a", "method": "private_key_jwt",
        "private_key_file": "secrets/key.pem", "algorithm": "RS256", "kid": "k",
    }});
    let LookupAuth::OAuth2(jwt) = auth(jwt) else { panic!() };
    assert!(matches!(
        jwt.method,
        OAuth2Method::PrivateKeyJwt { algorithm: Algorithm::Rs256, kid: Some(_), .. }
    ));
}

#[test]
fn a_grpc_lookup_takes_none_of_the_http_keys() {
    let grpc = json!({"grpc": {"url": "http://127.0.0.1:9400"}, "timeout": "2s"});
    let config = load(&with(&[("/tenants/lookup", grpc)])).unwrap();
    let Lookup::Grpc(lookup) = config.tenants.lookup else { panic!() };
    assert_eq!(lookup.limits.timeout, Duration::from_secs(2));
    let both = lines(&with(&[("/tenants/lookup/grpc", json!({"url": "http://127.0.0.1:9400/x"}))]));
    let fields: Vec<&str> = both.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(fields, ["tenants.lookup.grpc.url", "tenants.lookup.select", "tenants.lookup.url"]);
}

#[test]
fn certificates_are_read_together_with_their_key() {
    let https = ("/tenants/lookup/url", json!("https://a.b/{client_id}"));
    let tls = |tls: Value| with(&[https.clone(), ("/tenants/lookup/tls", tls)]);
    let (cert, key) = ("secrets/cert.pem", "secrets/key.pem");
    let all = json!({"ca_file": cert, "cert_file": cert, "key_file": key});
    let Lookup::Http(lookup) = load(&tls(all)).unwrap().tenants.lookup else { panic!() };
    let identity = lookup.tls.identity_pem.unwrap();
    assert!(identity.0.expose().contains("CERTIFICATE") && identity.0.expose().contains("PRIVATE"));
    for (broken, line) in [
        (
            json!({"cert_file": "secrets/cert.pem"}),
            "tenants.lookup.tls.key_file: missing, and `cert_file` needs it; ",
        ),
        (
            json!({"ca_file": "secrets/lookup-client"}),
            "tenants.lookup.tls.ca_file: names a file without PEM certificates; ",
        ),
        (
            json!({"cert_file": "secrets/cert.pem", "key_file": "secrets/cert.pem"}),
            "tenants.lookup.tls.key_file: names a file without a PEM private key; ",
        ),
    ] {
        let lines = lines(&tls(broken));
        assert!(lines.len() == 1 && lines[0].starts_with(line), "{lines:?}");
    }
}

#[test]
fn http_outside_loopback_needs_to_be_asked_for() {
    let host = |host: &str| json!(format!("http://{host}/{{client_id}}"));
    for loopback in ["localhost", "127.0.0.1:9300", "127.8.8.8", "[::1]:80"] {
        assert!(lines(&with(&[("/tenants/lookup/url", host(loopback))])).is_empty(), "{loopback}");
    }
    for other in ["10.0.0.1", "localhost.example.com", "0.0.0.0", "[::2]"] {
        assert_eq!(lines(&with(&[("/tenants/lookup/url", host(other))])).len(), 1, "{other}");
        let allowed =
            [("/tenants/lookup/url", host(other)), ("/tenants/lookup/allow_http", json!(true))];
        assert!(lines(&with(&allowed)).is_empty(), "{other}");
    }
}

#[test]
fn no_cached_answer_is_served_past_max_age() {
    let config = with(&[
        ("/tenants/freshness", json!({"refresh": "2s", "max_age": "50s"})),
        ("/tenants/lookup/cache_ttl", json!("40s")),
        ("/tenants/lookup/stale_while_revalidate", json!("40s")),
    ]);
    let Lookup::Http(lookup) = load(&config).unwrap().tenants.lookup else { panic!() };
    assert_eq!(lookup.limits.cache_ttl, Duration::from_secs(40));
    assert_eq!(lookup.limits.stale_while_revalidate, Duration::from_secs(10));
    let Lookup::Http(lookup) =
        load(&with(&[("/tenants/lookup/cache_ttl", json!("1h"))])).unwrap().tenants.lookup
    else {
        panic!()
    };
    assert_eq!(lookup.limits.cache_ttl, Duration::from_secs(300));
}

#[test]
fn listeners_may_share_port_zero_and_check_may_be_a_socket() {
    let folder = folder();
    let config = with(&[
        ("/listen/check", json!("unix:run/check.sock")),
        ("/listen/feed", json!({ "address": "unix:run/feed.sock", "mode": "0600" })),
        ("/listen/token", json!("127.0.0.1:0")),
        ("/listen/admin", json!("localhost:0")),
    ]);
    let config = load_in(folder.path(), &config).unwrap();
    let socket = folder.path().join("run/check.sock");
    let socket = ListenAddress::Unix(socket, SocketAccess::default());
    assert_eq!(config.listen.check.address, socket);
    let feed = config.listen.feed.unwrap().address;
    let access = SocketAccess { mode: 0o600, group: None };
    assert_eq!(feed, ListenAddress::Unix(folder.path().join("run/feed.sock"), access));
    assert_eq!(config.listen.admin.address, ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()));
}

#[test]
fn the_previous_digest_key_and_issuer_types_are_read() {
    let config = with(&[
        ("/issuer/tenant_claim/previous_key_file", json!("secrets/previous.key")),
        ("/issuers/0/typ", json!(["application/AT+JWT", "JWT"])),
        ("/issuers/0/jwks_url", Value::Null),
        ("/issuers/0/jwks_file", json!("secrets/jwks.json")),
    ]);
    let config = load(&config).unwrap();
    let ClaimForm::Digest { previous: Some(previous), .. } =
        config.issuer.unwrap().tenant_claim.form
    else {
        panic!()
    };
    assert_eq!(previous[0], 0xab);
    assert_eq!(config.issuers[0].typ, ["at+jwt", "jwt"]);
    assert!(
        matches!(&config.issuers[0].keys, KeySource::File(path) if path.ends_with("jwks.json"))
    );
}

#[test]
fn no_secret_shows_in_a_problem_or_in_debug() {
    let header = json!([{"name": "a", "value": "hunter2"}]);
    let whole = load(&with(&[("/tenants/lookup/headers", header)])).unwrap();
    let text = format!("{whole:?} {whole:#?}");
    assert!(text.contains("secrets/lookup-client") && !text.contains("hunter2"));
    assert!(!text.contains("[1, 35, 69"), "the digest key is printed");

    let misplaced = [
        ("/issuer/tenant_claim/key_file", json!("secrets/short.key")),
        ("/tenants/lookup/auth/oauth2/method", json!("hunter2")),
        (
            "/tenants/lookup/headers",
            json!([{"name": "a", "value": "hunter2\n"}, {"name": "hunter2 ", "value": "x"}]),
        ),
        ("/tenants/lookup/proxy", json!("http://u:hunter2@proxy")),
        ("/tenants/lookup/auth/bearer", json!({"token_file": "secrets/umlaut"})),
        ("/tenants/lookup/timeout", json!("hunter2")),
    ];
    let lines = lines(&with(&misplaced));
    assert!(lines.len() >= misplaced.len());
    assert!(!lines.join("\n").contains("hunter2"), "{lines:#?}");
}

#[test]
fn a_missing_or_broken_file_is_one_problem_that_names_it() {
    let problems = Config::load(Path::new("/nowhere/tenantgate.yaml")).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("/nowhere/tenantgate.yaml: cannot be read ("));
    let folder = folder();
    let file: PathBuf = folder.path().join("tenantgate.yaml");
    fs::write(&file, "listen: {\napis").unwrap();
    let problems = Config::load(&file).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].field.contains("tenantgate.yaml:1:9"), "{problems:?}");
}

#[test]
fn a_process_that_only_checks_may_fetch_its_own_keys() {
    let folder = folder();
    let url = "http://127.0.0.1:9192/oauth2/jwks";
    let fetched = [("/issuer/jwks_url", json!(url)), ("/issuer/signing_keys", Value::Null)];
    let config = with(&[&fetched[..], &[("/listen/token", Value::Null)]].concat());
    let read = load_in(folder.path(), &config).unwrap();
    let OwnKeys::Url { url: found, .. } = &read.issuer.as_ref().unwrap().keys else {
        panic!("{read:?}")
    };
    assert_eq!(found.as_str(), url);
    for (changes, told) in [
        (fetched.to_vec(), "issuer.jwks_url: does not let this process sign, "),
        (
            vec![("/issuer/jwks_url", json!(url))],
            "issuer.jwks_url: is given beside `signing_keys`; ",
        ),
        (vec![("/issuer/signing_keys", Value::Null)], "issuer.signing_keys: missing; "),
    ] {
        let lines = lines(&with(&changes));
        assert!(lines.iter().any(|line| line.starts_with(told)), "{lines:?}");
    }
}

#[test]
fn how_another_issuer_s_keys_and_tenants_are_read_can_be_said() {
    let folder = folder();
    let config = with(&[
        ("/issuers/0/tenant_claim", json!({ "pointer": "/realm/tenants", "of": "keys" })),
        ("/issuers/0/allow_missing_kid", json!(true)),
        ("/issuers/0/proxy", json!("http://proxy.internal:3128")),
        ("/issuers/0/tls", json!({ "ca_file": "secrets/cert.pem" })),
    ]);
    let read = load_in(folder.path(), &config).unwrap();
    let issuer = &read.issuers[0];
    assert_eq!((&*issuer.tenant_claim, issuer.tenants_of), ("/realm/tenants", Some(CodesOf::Keys)));
    assert!(issuer.allow_missing_kid && issuer.proxy.is_some());
    assert_eq!(issuer.tls.ca_pem.as_deref(), Some(CERTIFICATE));
    for (field, value, told) in [
        ("/issuers/0/tenant_claim", json!({ "of": "keys" }), "issuers[0].tenant_claim.pointer: "),
        ("/issuers/0/tenant_claim", json!({ "pointer": "x" }), "issuers[0].tenant_claim.pointer: "),
        ("/issuers/0/tls", json!({ "cert_file": "secrets/cert.pem" }), "issuers[0].tls.key_file: "),
        ("/issuers/0/proxy", json!("http://proxy/path"), "issuers[0].proxy: "),
    ] {
        let lines = lines(&with(&[(field, value)]));
        assert!(lines.iter().any(|line| line.starts_with(told)), "{lines:?}");
    }
}
