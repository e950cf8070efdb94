use super::*;

fn state(section: Value) -> Value {
    with(&[("/state", section)])
}

const KEY: &str = "secrets/tenant-digest.key";

#[test]
fn each_engine_is_read() {
    let folder = folder();
    let load = |section| load_in(folder.path(), &state(section)).unwrap().state.unwrap();
    let sqlite = load(json!({ "sqlite": "state/a.db", "key_file": KEY }));
    assert_eq!(sqlite.engine, StateEngine::Sqlite(folder.path().join("state/a.db")));
    assert_eq!(sqlite.poll, Duration::from_millis(500));
    fs::write(folder.path().join("secrets/url"), "postgres://u:hunter2@db:5432/x\n").unwrap();
    let postgres = json!({ "url_file": "secrets/url", "ca_file": "secrets/cert.pem" });
    let copy = "copy";
    let postgres = load(json!({ "postgres": postgres, "key_file": KEY, "snapshot_file": copy }));
    assert_eq!(postgres.snapshot, Some(folder.path().join(copy)));
    let shown = format!("{postgres:?}");
    assert_eq!(shown, "State(PostgreSQL)");
    let StateEngine::Postgres { url, ca_pem } = postgres.engine else { panic!("{shown}") };
    assert_eq!(url.0.expose(), "postgres://u:hunter2@db:5432/x");
    assert_eq!(ca_pem.as_deref(), Some(CERTIFICATE));
    assert!(load_in(folder.path(), &full()).unwrap().state.is_none());
}

#[test]
fn a_registry_may_be_in_the_state_alone() {
    let section = json!({ "sqlite": "a.db", "key_file": KEY });
    let config = with(&[("/state", section), ("/clients", Value::Null)]);
    assert_eq!(lines(&config), [""; 0]);
}

#[test]
fn each_mistake_has_its_line() {
    let url = |url: &str| json!({ "postgres": { "url": url }, "key_file": KEY });
    for (section, line) in [
        (json!({ "key_file": KEY }), "state: names no place to keep anything; "),
        (json!({ "sqlite": "a.db" }), "state.key_file: missing; "),
        (
            json!({ "sqlite": "a.db", "key_file": "secrets/short.key" }),
            "state.key_file: names a file that is not a key of 64 hex characters; ",
        ),
        (
            json!({ "sqlite": "a.db", "postgres": { "url": "postgres://h/d" }, "key_file": KEY }),
            "state.sqlite: is given beside `postgres`; ",
        ),
        (json!({ "postgres": {}, "key_file": KEY }), "state.postgres: names no database; "),
        (url("mysql://h/d"), "state.postgres.url: is not a URL of a PostgreSQL database; "),
        (url("postgres://u:hunter2@h/d"), "state.postgres.url: holds a password; "),
        (
            json!({
                "postgres": { "url": "postgres://h/d", "url_file": "secrets/empty" },
                "key_file": KEY,
            }),
            "state.postgres.url: is given beside `url_file`; ",
        ),
        (
            json!({
                "postgres": { "url": "postgres://h/d", "ca_file": "nowhere" },
                "key_file": KEY,
            }),
            "state.postgres.ca_file: ",
        ),
        (
            json!({ "sqlite": "a.db", "key_file": KEY, "snapshot_file": "copy" }),
            "state.snapshot_file: has no effect with `sqlite`; ",
        ),
        (json!({ "sqlite": "a.db", "key_file": KEY, "poll": "5s" }), "state.poll: is more than 1s"),
    ] {
        let found = lines(&state(section.clone()));
        assert!(found.len() == 1 && found[0].starts_with(line), "{section}: {found:?}");
        assert!(!found[0].contains("hunter2"));
    }
}

#[test]
fn client_certificates_need_a_ca_that_asks_for_them() {
    let folder = folder();
    let lines = |tls: serde_json::Value| {
        let config = with(&[
            ("/listen/management", json!({ "address": "127.0.0.1:0", "tls": tls })),
            ("/management", json!({ "client_certificates": true })),
        ]);
        let problems = load_in(folder.path(), &config).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let pair = json!({ "cert_file": "tls.crt", "key_file": "tls.key" });
    let found = lines(pair);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("management.client_certificates: has no effect without"));
    let of = |identities: serde_json::Value| {
        let tls = json!({
            "cert_file": "tls.crt",
            "key_file": "tls.key",
            "client_ca_file": "ca.crt",
            "client_identities": identities,
        });
        let config = with(&[
            ("/listen/management", json!({ "address": "127.0.0.1:0", "tls": tls })),
            ("/management", json!({ "client_certificates": true })),
        ]);
        load_in(folder.path(), &config).map(|config| {
            let about = |warning: &&Problem| warning.field == "management.client_certificates";
            config.warnings.iter().filter(about).count()
        })
    };
    assert_eq!(of(json!(["portal.example.com"])).ok(), Some(0));
    let any = with(&[
        (
            "/listen/management",
            json!({ "address": "127.0.0.1:0", "tls": {
            "cert_file": "tls.crt", "key_file": "tls.key", "client_ca_file": "ca.crt",
        } }),
        ),
        ("/management", json!({ "client_certificates": true })),
    ]);
    let warnings = load_in(folder.path(), &any).unwrap().warnings;
    assert!(warnings.iter().any(|w| w.message.starts_with("lets every certificate of that CA")));
}

#[test]
fn a_short_management_token_is_a_warning_and_an_odd_one_a_problem() {
    let folder = folder();
    let config = with(&[
        ("/listen/management", json!("127.0.0.1:0")),
        ("/management", json!({ "token_file": "secrets/management" })),
    ]);
    let said = |token: &str| {
        fs::write(folder.path().join("secrets/management"), token).unwrap();
        let said = match load_in(folder.path(), &config) {
            Ok(config) => config.warnings,
            Err(problems) => problems,
        };
        said.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let about = |token: &str| {
        let lines = said(token).into_iter();
        lines.filter(|line| line.contains("management.token_file")).collect::<String>()
    };
    assert_eq!(about(&"x".repeat(32)), "");
    assert!(about("short").contains("names a file with less than 32 characters"));
    assert!(about("two words").contains("other than visible ASCII characters"));
}
