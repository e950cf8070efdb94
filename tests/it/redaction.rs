//! What a panic message or a careless log line could print of the types that hold secrets.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use tenantgate::config::SecretText;
use tenantgate::domain::{
    Credential, CredentialDigest, Holder, Secret, TenantCode, TenantDigester, Timestamp,
};
use tenantgate::telemetry::{LogFormat, init_logs, log_panics};
use tenantgate::token::{TokenForm, presented};
use tracing::level_filters::LevelFilter;

const CANARY: &str = "canary-5c1e7a9f";

fn failed<T>(with: T) -> Result<(), T> {
    Err(with)
}

/// As `{:?}` and `{:#?}`, and in the message of a panic by `expect`.
fn assert_redacted(what: impl Debug) {
    let printed = format!("{what:?} {what:#?}");
    let panic = catch_unwind(AssertUnwindSafe(|| {
        failed(&what).expect("a forced panic");
    }));
    let message = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("a forced panic"));
    for text in [printed, message] {
        assert!(!text.contains(CANARY), "{text}");
        let bytes = format!("{:?}", CANARY.as_bytes());
        assert!(!text.contains(bytes.trim_matches(['[', ']'])), "{text}");
    }
}

#[test]
fn no_type_that_holds_a_secret_prints_it() {
    let code = TenantCode::parse(CANARY).unwrap();
    let digester = TenantDigester::new(&[1; 32], None);
    assert_redacted(digester.current(Holder { issuer: "i", client: "c" }, CANARY));
    assert_redacted(&code);
    assert_redacted(Secret::new(CANARY));
    assert_redacted(SecretText(Secret::new(CANARY)));
    assert_redacted(Credential {
        digest: CredentialDigest::Argon2id(CANARY.to_owned()),
        active: true,
        expires_at: Some(Timestamp::default()),
    });
    let body = format!(
        "grant_type=client_credentials&client_id=app&client_secret={CANARY}&tenant={CANARY}\
         &resource=urn:tenantgate:tenant:{CANARY}"
    );
    let mut form = TokenForm::parse(body.as_bytes(), "https://api.test").unwrap();
    assert_redacted(&form);
    assert_redacted(presented(&[], &mut form).unwrap());
}

/// In a child process, since the hook is the whole process's.
#[test]
fn a_panic_logs_its_place_and_not_its_message() {
    const CHILD: &str = "PANIC_WITH_A_CANARY";
    if std::env::var_os(CHILD).is_some() {
        let _log = init_logs(LevelFilter::TRACE, LogFormat::Json);
        log_panics();
        panic!("{CANARY}");
    }
    let test = "redaction::a_panic_logs_its_place_and_not_its_message";
    let done = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    assert!(said.contains("a panic") && said.contains("tests/it/redaction.rs"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
}

#[test]
fn a_whole_config_prints_none_of_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("digest.key", &"5c1e7a9f".repeat(8));
    write("secret", CANARY);
    write(
        "tenantgate.yaml",
        r#"
issuer:
  url: https://issuer.test
  audience: https://api.test
  signing_keys: keys
  tenant_claim: { form: digest, key_file: digest.key }
tenants:
  lookup:
    url: https://provider.test/{client_id}
    select: $.tenants[*].code
    headers: [{ name: x-secret, value_file: secret }]
    auth:
      oauth2:
        token_url: https://provider.test/token
        client_id: us
        client_secret_file: secret
apis: [{ name: oda, routes: [{ path: "/{tenant}", methods: [GET] }] }]
"#,
    );
    let config = tenantgate::config::Config::load(&folder.path().join("tenantgate.yaml"));
    let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_redacted(&config);
    let printed = format!("{config:?}");
    assert!(printed.contains("provider.test"), "the config is printed: {printed}");
    assert!(!printed.contains("5c1e7a9f") && !printed.contains("92, 30, 122, 159"), "{printed}");
}
