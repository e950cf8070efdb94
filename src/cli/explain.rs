use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};

use super::{CONFIG_ENV, CONFIG_FILE};
use crate::authz::{CheckInput, Denied, HeaderValue, Headers, Observer, Verdict};
use crate::domain::{
    Client, ClientId, DenyReason, Holder, Secret, SystemClock, TenantCode, Timestamp,
};
use crate::engine::{Engine, StartError, told};
use crate::gate::{Answer, Decided};
use crate::grants::Outcome;

const DENY: u8 = 3;
const UNDECIDED: u8 = 1;

/// Show each step of one decision, or whether a client may read a tenant now. Exit code: 0 allow,
/// 3 deny, 1 cannot decide.
#[derive(Args)]
#[command(group(ArgGroup::new("question").required(true).args(["path", "tenant"])))]
#[command(group(ArgGroup::new("bearer").args(["token", "token_file"])))]
pub struct ExplainArgs {
    #[arg(long, value_name = "FILE", env = CONFIG_ENV, default_value = CONFIG_FILE)]
    config: PathBuf,
    /// The API, where the config has several.
    #[arg(long, value_name = "NAME")]
    api: Option<String>,
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The request's path, as Envoy would see it.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Keeps the token out of the shell's history; `-`: standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Asks for this client instead of for a request.
    #[arg(long, value_name = "ID", requires = "tenant", conflicts_with_all = ["path", "bearer"])]
    client: Option<String>,
    #[arg(long, value_name = "CODE", requires = "client", conflicts_with_all = ["path", "bearer"])]
    tenant: Option<String>,
}

pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let engine = match Engine::open(&args.config, Arc::new(SystemClock)) {
            Ok(engine) => engine,
            Err(StartError::Config(problems)) => {
                for problem in problems {
                    eprintln!("tenantgate: {problem}");
                }
                return Ok(ExitCode::from(UNDECIDED));
            }
            Err(StartError::Other(error)) => return Err(error),
        };
        match engine.open_state().await {
            Ok(()) => {}
            Err(StartError::Config(problems)) => bail!("{}", problems[0]),
            Err(StartError::Other(error)) => return Err(error),
        }
        match (&args.client, &args.tenant) {
            (Some(client), Some(tenant)) => explain_grant(&engine, client, tenant).await,
            _ => explain_request(&engine, args).await,
        }
    })
}

/// Prints each step as it is taken.
struct Printer;

impl Observer for Printer {
    fn step(&mut self, name: &'static str, outcome: impl FnOnce() -> String) {
        show(name, &outcome());
    }
}

fn show(name: &str, outcome: &str) {
    println!("{name:<12}{outcome}");
}

struct OneHeader(Option<Secret>);

impl Headers for OneHeader {
    fn get(&self, name: &str) -> HeaderValue<'_> {
        match &self.0 {
            Some(value) if name == "authorization" => HeaderValue::One(value.expose().as_bytes()),
            _ => HeaderValue::Missing,
        }
    }
}

async fn explain_request(engine: &Engine, args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => Some(read_token(file)?),
        (None, None) => None,
    };
    let headers = OneHeader(token.map(|token| Secret::new(format!("Bearer {}", token.trim()))));
    let input = CheckInput {
        profile: args.api.as_deref(),
        method: &args.method,
        target: args.path.as_deref().unwrap_or_default().as_bytes(),
        headers: &headers,
    };
    if let Some(lookup) = engine.prepare(&input).await {
        show("lookup", &lookup);
    }
    let snapshot = engine.gate.snapshot.load_full();
    let outcome = engine.gate.explain(&snapshot, &input, &mut Printer);
    let decided = Decided::new(&snapshot, outcome);
    show_answer(&decided.answer());
    let (word, code) = match &decided.outcome.verdict {
        Verdict::Allowed(_) => ("allow".to_owned(), 0),
        Verdict::Shadowed(pass) => {
            (format!("allow (shadow mode; otherwise {})", pass.denied.reason.as_str()), 0)
        }
        Verdict::Denied(Denied { reason, .. }) => {
            (format!("deny: {}", reason.as_str()), exit_code(*reason))
        }
    };
    show("decision", &word);
    Ok(ExitCode::from(code))
}

/// What the caller or the upstream would get.
fn show_answer(answer: &Answer<'_>) {
    match answer {
        Answer::Allow(allow) => {
            for (name, value) in &allow.set {
                show("upstream", &format!("{name}: {value}"));
            }
            for name in &allow.remove {
                show("removed", name);
            }
            for (name, value) in &allow.metadata {
                show("metadata", &format!("{name}: {value}"));
            }
        }
        Answer::Deny(deny) => {
            show("reply", &format!("{} {}", deny.status, deny.body));
            let challenge = deny.headers.iter().find(|(name, _)| *name == "www-authenticate");
            if let Some((name, value)) = challenge {
                show("reply", &format!("{name}: {value}"));
            }
        }
    }
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("--token-file -: cannot be read");
    }
    std::fs::read_to_string(file)
        .with_context(|| format!("--token-file {}: cannot be read", file.display()))
}

fn exit_code(reason: DenyReason) -> u8 {
    match reason {
        DenyReason::KeysUnavailable
        | DenyReason::GrantsStale
        | DenyReason::StateUnavailable
        | DenyReason::InternalError => UNDECIDED,
        _ => DENY,
    }
}

/// Whether the client can mint at all.
fn told_secrets(client: &Client, now: Timestamp) -> String {
    let secrets = &client.credentials;
    let usable = secrets.iter().filter(|secret| secret.usable_at(now)).count();
    let revoked = secrets.iter().filter(|secret| !secret.active).count();
    let expired = secrets.len() - usable - revoked;
    let told = format!("usable {usable}, expired {expired}, revoked {revoked}");
    if usable > 0 { told } else { told + "; it gets no token: `clients rotate` gives it a new one" }
}

async fn explain_grant(engine: &Engine, client: &str, tenant: &str) -> anyhow::Result<ExitCode> {
    let Some(id) = ClientId::parse(client) else {
        bail!("--client: not a client id; it has {}", ClientId::RULE)
    };
    let Some(code) = TenantCode::parse(tenant) else {
        bail!("--tenant: not a tenant code; it has 1 to 128 of A-Z a-z 0-9 . _ ~ -, not only dots")
    };
    let decided = |word: &str, code: u8| {
        show("decision", word);
        Ok(ExitCode::from(code))
    };
    let book = engine.clients();
    if let Some(trouble) = engine.gate.snapshot.load().client_trouble(client) {
        show("client", &format!("refused: {trouble}"));
        return decided("deny: client_withdrawn", DENY);
    }
    show("client", "in good standing");
    let registered = book.as_ref().and_then(|book| book.get(client));
    if let Some(client) = registered {
        show("secrets", &told_secrets(client, engine.clock.now()));
    }
    let grants = match registered.and_then(|client| client.static_grants.clone()) {
        Some(grants) => {
            show("grants", &format!("static, {} tenants in the registry", grants.codes.len()));
            grants
        }
        None => {
            let outcome = engine.tenants.grants(&id).await;
            show("lookup", &told(&outcome));
            match outcome {
                Outcome::Granted(grants) | Outcome::Denied(grants) => grants,
                Outcome::Unavailable(_) => return decided("cannot decide", UNDECIDED),
            }
        }
    };
    let snapshot = engine.gate.snapshot.load_full();
    let holder = Holder { issuer: &snapshot.own_issuer, client };
    let held = grants.digests.contains(&snapshot.digester.current(holder, code.expose()));
    let reference = snapshot.digester.reference(code.expose());
    show("tenant", &format!("{reference} {}", if held { "is granted" } else { "is not granted" }));
    if held { decided("allow", 0) } else { decided("deny: tenant_not_granted", DENY) }
}
