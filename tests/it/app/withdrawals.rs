//! What takes access away acts whatever else is broken: every pair of something taken away and
//! something that cannot be read.

use std::os::unix::fs::PermissionsExt as _;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use tenantgate::domain::Clock as _;

use super::*;

const OTHER: &str = "https://login.test";
const PATH: &str = "/api/T1/report";

fn config() -> String {
    let issuer = |name: &str, file: &str| {
        format!(
            "  - {{ issuer: '{name}', jwks_file: {file}, audience: 'https://api.test', \
             algorithms: [EdDSA], tenant_claim: /tenants, client_claim: /azp }}\n"
        )
    };
    let auth = "    auth: { bearer: { token_file: lookup-token } }\n";
    CONFIG.replace(
        "apis:\n",
        &format!(
            "{auth}issuers:\n{}{}apis:\n",
            issuer(OTHER, "other.json"),
            issuer("https://third.test", "third.json"),
        ),
    )
}

/// The registry with one client of these further lines, and one more.
fn registry(of_acme: &str, further: &str) -> String {
    format!("{}  - id: second\n    scopes: [reports.read]\n{further}", clients_yaml(of_acme))
}

fn jwks(kids: &[&str]) -> String {
    let key = |kid: &&str| {
        let x = URL_SAFE_NO_PAD.encode(pair().public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "x": x })
    };
    json!({ "keys": kids.iter().map(key).collect::<Vec<_>>() }).to_string()
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn foreign_token(now: u64) -> String {
    let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "f1" });
    let claims = json!({
        "iss": OTHER, "aud": "https://api.test", "sub": "x", "azp": "foreigner", "iat": now,
        "exp": now + 300, "tenants": ["T1"], "scope": "reports.read",
    });
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(pair().sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// Something that cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Nothing,
    Config,
    ConfigGone,
    ClientEntry,
    KeyRecord,
    KeyFolderGone,
    ThirdIssuer,
    LookupSecret,
    DigestKey,
}

/// Something that is taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Taken {
    Client,
    Developer,
    Credential,
    Scope,
    Key,
    LastKey,
    IssuerKey,
    Issuer,
    Route,
}

const BROKEN: [Broken; 9] = [
    Broken::Nothing,
    Broken::Config,
    Broken::ConfigGone,
    Broken::ClientEntry,
    Broken::KeyRecord,
    Broken::KeyFolderGone,
    Broken::ThirdIssuer,
    Broken::LookupSecret,
    Broken::DigestKey,
];

const TAKEN: [Taken; 9] = [
    Taken::Client,
    Taken::Developer,
    Taken::Credential,
    Taken::Scope,
    Taken::Key,
    Taken::LastKey,
    Taken::IssuerKey,
    Taken::Issuer,
    Taken::Route,
];

impl Broken {
    /// What this very file says cannot be read.
    fn hides(self, taken: Taken) -> bool {
        match self {
            Self::Config | Self::ConfigGone => matches!(taken, Taken::Issuer | Taken::Route),
            Self::KeyFolderGone => matches!(taken, Taken::Key | Taken::LastKey),
            _ => false,
        }
    }

    /// `taken` is what the same files take away.
    fn apply(self, gate: &Gate, taken: Taken) {
        match self {
            Self::Nothing => {}
            Self::Config => {
                let text = std::fs::read_to_string(gate.file("tenantgate.yaml")).unwrap();
                gate.write("tenantgate.yaml", &format!("{text}nonsense: 1\n"));
            }
            Self::ConfigGone => std::fs::remove_file(gate.file("tenantgate.yaml")).unwrap(),
            Self::ClientEntry => {
                gate.write("clients.yaml", &taken.registry("    status: aproved\n"));
            }
            Self::KeyRecord => gate.write("keys/broken.json", "{"),
            Self::KeyFolderGone => std::fs::remove_dir_all(gate.file("keys")).unwrap(),
            Self::ThirdIssuer => gate.write("third.json", "{ ["),
            Self::LookupSecret => std::fs::remove_file(gate.file("lookup-token")).unwrap(),
            Self::DigestKey => gate.write("digest.key", "{ ["),
        }
    }
}

impl Taken {
    /// The registry with what is taken away, and further lines for another client.
    fn registry(self, further: &str) -> String {
        let text = registry(
            match self {
                Self::Client => "    status: revoked\n",
                Self::Developer => "    developer: { id: d, status: inactive }\n",
                _ => "",
            },
            further,
        );
        match self {
            Self::Credential => text.replace("\" }", "\", status: revoked }"),
            Self::Scope => text.replace("reports.read, other", "other"),
            _ => text,
        }
    }

    fn apply(self, gate: &Gate, signing: &str) {
        let change = |name: &str, change: &dyn Fn(String) -> String| {
            let text = std::fs::read_to_string(gate.file(name)).unwrap();
            gate.write(name, &change(text));
        };
        match self {
            Self::Client | Self::Developer | Self::Credential | Self::Scope => {
                gate.write("clients.yaml", &self.registry(""));
            }
            Self::Key => change(&format!("keys/{signing}.json"), &|text| {
                text.replacen('{', "{ \"retired_at\": \"2026-01-01T00:00:00Z\",", 1)
            }),
            Self::LastKey => {
                for entry in std::fs::read_dir(gate.file("keys")).unwrap() {
                    let path = entry.unwrap().path();
                    if !path.ends_with("broken.json") {
                        std::fs::remove_file(path).unwrap();
                    }
                }
            }
            Self::IssuerKey => gate.write("other.json", &jwks(&["f2"])),
            Self::Issuer => change("tenantgate.yaml", &|text| {
                let others = |line: &&str| !line.contains(OTHER);
                text.lines().filter(others).map(|line| format!("{line}\n")).collect()
            }),
            Self::Route => change("tenantgate.yaml", &|text| text.replace("\"/api/", "\"/new/")),
        }
    }

    /// Whether this takes a token of `ours`, or of the other issuer.
    fn concerns(self, ours: bool) -> bool {
        match self {
            Self::Client | Self::Developer | Self::Scope | Self::Key | Self::LastKey => ours,
            Self::IssuerKey | Self::Issuer => !ours,
            Self::Route => true,
            // What is minted from now on.
            Self::Credential => false,
        }
    }

    /// The answer to a mint.
    fn minted(self) -> (u16, &'static str) {
        match self {
            Self::Client | Self::Developer => (400, "unauthorized_client"),
            Self::Credential => (401, "invalid_client"),
            Self::Scope => (400, "invalid_scope"),
            Self::LastKey => (503, "temporarily_unavailable"),
            Self::Key | Self::IssuerKey | Self::Issuer | Self::Route => (200, ""),
        }
    }
}

/// Every file of a folder as it was.
struct Kept(Vec<(PathBuf, Vec<u8>)>);

impl Kept {
    fn of(gate: &Gate) -> Self {
        let mut files = Vec::new();
        for folder in [gate.folder.path().to_owned(), gate.file("keys")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    files.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        Self(files)
    }

    fn restore(&self, gate: &Gate) {
        std::fs::remove_dir_all(gate.file("keys")).ok();
        std::fs::create_dir(gate.file("keys")).unwrap();
        for (path, bytes) in &self.0 {
            std::fs::write(path, bytes).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

struct Case {
    gate: Gate,
    kept: Kept,
    ours: String,
    theirs: String,
    signing: String,
}

impl Case {
    async fn start() -> Self {
        let gate = Gate::prepared(&config(), |folder| {
            command(&["keys", "generate", "--dir"], &folder.join("keys"));
            let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
            write("clients.yaml", &registry("", ""));
            write("lookup-token", "secret-of-the-lookup");
            write("other.json", &jwks(&["f1"]));
            write("third.json", &jwks(&["f1"]));
        })
        .await;
        let ours = gate.mint().await;
        let theirs = foreign_token(gate.clock.now().secs());
        let signing = kid(&ours);
        Self { kept: Kept::of(&gate), gate, ours, theirs, signing }
    }

    async fn reload(&self, broken: Broken, case: &str) {
        let outcome = self.gate.running.reload().await;
        assert_eq!(outcome.is_err(), broken != Broken::Nothing, "{case}: {outcome:?}");
    }

    async fn is_taken(&self, taken: Taken, case: &str) {
        for (token, ours) in [(&self.ours, true), (&self.theirs, false)] {
            let passes = self.gate.status(PATH, token).await == 200;
            assert_eq!(passes, !taken.concerns(ours), "{case}, ours: {ours}");
        }
        let (status, body) = self.gate.request("&scope=reports.read").await;
        let error = body["error"].as_str().unwrap_or_default();
        assert_eq!((status, error), taken.minted(), "{case}: {body}");
        assert_eq!(self.gate.admin("/readyz").await.0, 200, "{case}: still of use");
    }

    async fn passes(&self, case: &str) {
        for token in [&self.ours, &self.theirs] {
            assert_eq!(self.gate.status(PATH, token).await, 200, "{case}");
        }
    }

    async fn restore(&self, case: &str) {
        self.kept.restore(&self.gate);
        self.reload(Broken::Nothing, case).await;
        self.passes(case).await;
    }

    async fn withdraw(&self, taken: Taken, broken: Broken) {
        let case = format!("{taken:?} taken while {broken:?} breaks");
        taken.apply(&self.gate, &self.signing);
        broken.apply(&self.gate, taken);
        self.reload(broken, &case).await;
        self.is_taken(taken, &case).await;
        self.restore(&case).await;

        let case = format!("{taken:?} taken while {broken:?} is broken already");
        broken.apply(&self.gate, Taken::Issuer);
        self.reload(broken, &case).await;
        self.passes(&case).await;
        if broken == Broken::ClientEntry {
            broken.apply(&self.gate, taken);
        }
        if broken != Broken::ClientEntry || taken.registry("") == registry("", "") {
            taken.apply(&self.gate, &self.signing);
        }
        self.reload(broken, &case).await;
        self.is_taken(taken, &case).await;
        self.restore(&case).await;
    }
}

async fn with(broken: Broken) {
    let case = Case::start().await;
    for taken in TAKEN.into_iter().filter(|taken| !broken.hides(*taken)) {
        case.withdraw(taken, broken).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawal_acts_whatever_else_is_broken() {
    let cases = BROKEN.map(|broken| tokio::spawn(with(broken)));
    for case in cases {
        case.await.unwrap();
    }
}

#[tokio::test]
async fn a_client_whose_entry_cannot_be_read_is_withdrawn_and_nobody_else_is() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    for broken in ["status: revokd", "statuss: revoked", "token_ttl: soon", "tenants: 5"] {
        gate.write("clients.yaml", &clients_yaml(&format!("    {broken}\n")));
        gate.running.reload().await.unwrap_err();
        assert_eq!(gate.status(PATH, &token).await, 401, "{broken}");
        gate.write("clients.yaml", &registry("", &format!("    {broken}\n")));
        gate.running.reload().await.unwrap_err();
        assert_eq!(gate.status(PATH, &token).await, 200, "{broken}");
    }
    // An API that is not there only narrows.
    gate.write("clients.yaml", &clients_yaml("    apis: [oda, removed]\n"));
    gate.running.reload().await.unwrap_err();
    assert_eq!(gate.status(PATH, &token).await, 200);
    gate.write("clients.yaml", &clients_yaml("    apis: [removed]\n"));
    gate.running.reload().await.unwrap_err();
    assert_eq!(gate.status(PATH, &token).await, 403);
}

#[tokio::test]
async fn a_registry_that_is_gone_or_no_list_stays_as_it_was() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    for text in ["- id: a", "[]", "hello", "5", "", "null", "clients: {}"] {
        gate.write("clients.yaml", text);
        gate.running.reload().await.unwrap_err();
        assert_eq!(gate.status(PATH, &token).await, 200, "{text}");
        let (_, described) = gate.admin("/readyz?verbose").await;
        assert!(described.contains("source clients: broken"), "{text}: {described}");
    }
    let (_, metrics) = gate.admin("/metrics").await;
    for line in
        ["tenantgate_source_ok{source=\"clients\"} 0", "tenantgate_source_ok{source=\"config\"} 1"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(
        metrics.contains("tenantgate_source_last_success_timestamp_seconds{source=\"clients\"}")
    );
}

#[tokio::test]
async fn revoked_tokens_stop_and_new_ones_pass() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    gate.write("clients.yaml", &clients_yaml("    tokens_not_before: 2028-01-15T08:00:00Z\n"));
    gate.running.reload().await.unwrap();
    assert_eq!(gate.status(PATH, &token).await, 401, "issued in that very second");
    gate.clock.advance(Duration::from_secs(1));
    assert_eq!(gate.status(PATH, &gate.mint().await).await, 200);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_mint_goes_on_with_the_registry() {
    let gate = Gate::start().await;
    let config = std::fs::read_to_string(gate.file("tenantgate.yaml")).unwrap();
    let changed = config.replace(", token: \"127.0.0.1:0\"", "");
    assert_ne!(changed, config);
    gate.write("tenantgate.yaml", &format!("{changed}limits: {{ slow_hashes: 7 }}\n"));
    gate.write("clients.yaml", &clients_yaml("    status: revoked\n"));
    gate.running.reload().await.unwrap();
    assert_eq!(gate.request("").await.1["error"], "unauthorized_client");
    let (_, described) = gate.admin("/readyz?verbose").await;
    for setting in ["listen.token", "limits.slow_hashes"] {
        let line = format!("changed, takes effect at the next start: {setting}");
        assert!(described.contains(&line), "{described}");
    }
    assert!(!described.contains("next start: listen.check"), "{described}");
}

#[tokio::test]
async fn a_withdrawal_is_noticed_by_itself_while_another_file_is_broken() {
    let gate = Gate::start().await;
    let token = gate.mint().await;
    let config = std::fs::read_to_string(gate.file("tenantgate.yaml")).unwrap();
    gate.write("tenantgate.yaml", &format!("{config}nonsense: 1\n"));
    gate.running.reload().await.unwrap_err();
    assert_eq!(gate.status(PATH, &token).await, 200);
    gate.write("clients.yaml", &clients_yaml("    status: revoked\n"));
    assert!(gate.becomes(PATH, &token, 401).await);
}
