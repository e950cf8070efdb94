use clap::Parser;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000_000);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    clients: ClientsArgs,
}

/// A registry in a folder of its own.
struct Registry(tempfile::TempDir);

impl Registry {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("clients.yaml")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    /// What the command prints, or its error.
    fn run(&self, command: &str, stdin: &str) -> Result<String, String> {
        let (name, options) = command.split_once(' ').unwrap_or((command, ""));
        let file = self.file();
        let line = ["clients", name, "--file", file.to_str().unwrap()];
        let line = Line::parse_from(line.into_iter().chain(options.split_terminator(' ')));
        let mut out = Vec::new();
        run_on(line.clients, NOW, &mut stdin.as_bytes(), &mut out)
            .map_err(|error| format!("{error:#}"))?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn secret(&self, command: &str) -> String {
        let shown: serde_json::Value =
            serde_json::from_str(&self.run(command, "").unwrap()).unwrap();
        assert_eq!(shown.as_object().unwrap().len(), 2);
        assert_eq!(shown["client_id"], "app");
        shown["client_secret"].as_str().unwrap().to_owned()
    }
}

fn digest(secret: &str) -> String {
    clients::digest_generated(&Secret::new(secret))
}

#[test]
fn a_new_secret_is_shown_once_and_only_its_digest_is_kept() {
    let registry = Registry::new();
    let text = registry.run("add --id other --developer acme --token-ttl 30m", "").unwrap();
    let secret = text.lines().find_map(|line| line.strip_prefix("client_secret: ")).unwrap();
    assert_eq!(text.matches(secret).count(), 1);
    assert!(registry.text().contains(&digest(secret)) && !registry.text().contains(secret));

    let first = registry.secret("add --id app --output json");
    let second = registry.secret("rotate --id app --output json");
    assert_ne!(first, second);
    for secret in [first, second] {
        assert!(registry.text().contains(&digest(&secret)));
        assert!(!registry.text().contains(&secret));
    }
}

#[test]
fn a_secret_goes_to_a_new_private_file_and_only_if_the_registry_has_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let registry = Registry::new();
    let out = |name: &str| registry.0.path().join(name);
    let option = |name: &str| format!("--id app --secret-out {}", out(name).display());
    for (command, file, output) in [("add", "first", ""), ("rotate", "second", " --output json")] {
        let shown = registry.run(&format!("{command} {}{output}", option(file)), "").unwrap();
        let text = fs::read_to_string(out(file)).unwrap();
        let secret = text.strip_suffix('\n').unwrap();
        assert!(registry.text().contains(&digest(secret)) && !shown.contains(secret));
        assert!(shown.contains(out(file).to_str().unwrap()), "{shown}");
        assert_eq!(fs::metadata(out(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let (before, first) = (registry.text(), fs::read(out("first")).unwrap());
    for (command, file, told) in [
        ("add", "first", "exists and is not overwritten; name a new file"),
        ("rotate", "first", "exists and is not overwritten; name a new file"),
        ("rotate", "no/folder", "cannot be written"),
        ("add", "third", "client app is registered already"),
        ("rotate", "third", "active credentials already"),
    ] {
        let error = registry.run(&format!("{command} {}", option(file)), "").unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    assert_eq!((registry.text(), fs::read(out("first")).unwrap()), (before, first));
    assert!(!out("third").exists());
}

#[test]
fn a_secret_from_standard_input_loses_one_newline_and_is_kept_as_argon2id() {
    let registry = Registry::new();
    let printed = registry.run("add --id app --secret-stdin", "correct horse\n").unwrap();
    assert!(!printed.contains("correct horse") && !registry.text().contains("correct horse"));
    let text = registry.text();
    let phc = text.lines().find_map(|line| line.split_once("digest: ")).unwrap().1;
    assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");

    let read = |text: &str| read_secret(&mut text.as_bytes()).map(|s| s.expose().to_owned());
    assert_eq!(read("correct horse\n\n").unwrap(), "correct horse\n");
    assert_eq!(read("correct horse\r\n").unwrap(), "correct horse");
    for short in ["", "\n", "1234567\n"] {
        assert!(read(short).unwrap_err().to_string().contains("too short; use at least 8"));
    }
}

#[test]
fn bad_options_write_nothing_and_never_show_a_tenant_code() {
    let registry = Registry::new();
    for (options, told) in [
        ("--id a/b", "--id: not a name; use 1 to 128"),
        ("--id a --developer ..", "--developer: not a name; use 1 to 128"),
        ("--id a --scope x\"y", "--scope: \"x\\\"y\" is not a scope; give"),
        ("--id a --tenant T1 --tenant CANARY/1", "--tenant, number 2: not a tenant code; use"),
        ("--id a --token-ttl soon", "--token-ttl: not a duration"),
    ] {
        let error = registry.run(&format!("add {options}"), "").unwrap_err();
        assert!(error.starts_with(told) && !error.contains("CANARY"), "{error}");
        assert!(!registry.file().exists());
    }
}

#[test]
fn the_list_shows_states_and_counts_but_no_digest_and_no_code() {
    let registry = Registry::new();
    registry.run("add --id app --tenant CANARY1 --tenant CANARY2 --scope s", "").unwrap();
    registry.run("rotate --id app --expire-old 0s", "").unwrap();
    registry.run("add --id other-app", "").unwrap();
    registry.run("revoke --id other-app --credential 1", "").unwrap();
    registry.run("revoke --id other-app", "").unwrap();
    assert_eq!(
        registry.run("list", "").unwrap(),
        "CLIENT     STATUS    DEVELOPER  CREDENTIALS          SCOPES  TENANTS  TOKEN TTL\n\
         app        approved  -          1 expired, 2 active  s       2        -\n\
         other-app  revoked   -          1 revoked            -       lookup   -\n"
    );
    let json = registry.run("list --output json", "").unwrap();
    assert!(!json.contains("CANARY") && !json.contains("sha256:"), "{json}");
    let listed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(listed["clients"][0]["tenants"], 2);
    assert_eq!(listed["clients"][0]["credentials"][1]["state"], "active");
}
