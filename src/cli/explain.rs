use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};

use super::{CONFIG_ENV, CONFIG_FILE};
use crate::authz::{BearerHeader, CheckInput};
use crate::domain::{ClientId, DenyReason, Secret, SystemClock, TenantCode};
use crate::engine::{Ask, Engine, Explanation, StartError, Word};

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
            Err(StartError::Config { problems, .. }) => {
                for problem in problems {
                    eprintln!("tenantgate: {problem}");
                }
                return Ok(ExitCode::from(UNDECIDED));
            }
            Err(StartError::Other(error)) => return Err(error),
        };
        match engine.open_state().await {
            Ok(()) => {}
            Err(StartError::Config { problems, .. }) => bail!("{}", problems[0]),
            Err(StartError::Other(error)) => {
                return Err(error.context(
                    "what is withdrawn by calls is not known here; ask the running process, by \
                     `tenantgate admin explain`",
                ));
            }
        }
        match (&args.client, &args.tenant) {
            (Some(client), Some(tenant)) => explain_grant(&engine, client, tenant).await,
            _ => explain_request(&engine, args).await,
        }
    })
}

fn show(name: &str, outcome: &str) {
    println!("{name:<12}{outcome}");
}

fn show_all(explanation: &Explanation) -> ExitCode {
    for (name, outcome) in &explanation.steps {
        show(name, outcome);
    }
    let (word, code) = match explanation.verdict {
        Some(Word::Allow) => ("allow".to_owned(), 0),
        Some(Word::Shadowed(reason)) => {
            (format!("allow (shadow mode; otherwise {})", reason.as_str()), 0)
        }
        Some(Word::Deny(reason)) => (format!("deny: {}", reason.as_str()), exit_code(reason)),
        None => ("cannot decide".to_owned(), UNDECIDED),
    };
    show("decision", &word);
    ExitCode::from(code)
}

async fn explain_request(engine: &Engine, args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => Some(read_token(file)?),
        (None, None) => None,
    };
    let headers = BearerHeader::new(token.map(Secret::new).as_ref());
    let input = CheckInput {
        profile: args.api.as_deref(),
        method: &args.method,
        target: args.path.as_deref().unwrap_or_default().as_bytes(),
        headers: &headers,
    };
    if let Some(lookup) = engine.prepare(&input).await {
        show("lookup", &lookup);
    }
    Ok(show_all(&engine.explain_request(&input)))
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
        | DenyReason::FeedUnavailable
        | DenyReason::InternalError => UNDECIDED,
        _ => DENY,
    }
}

async fn explain_grant(engine: &Engine, client: &str, tenant: &str) -> anyhow::Result<ExitCode> {
    let Some(id) = ClientId::parse(client) else {
        bail!("--client: not a client id; it has {}", ClientId::RULE)
    };
    let Some(code) = TenantCode::parse(tenant) else {
        bail!("--tenant: not a tenant code; it has 1 to 128 of A-Z a-z 0-9 . _ ~ -, not only dots")
    };
    Ok(show_all(&engine.explain_grant(&id, &code, Ask::Lookup).await))
}
