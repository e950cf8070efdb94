use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use super::clients::write_table;
use crate::admin::{ApiAccess, ManagementApi};
use crate::domain::Secret;

/// Manage a running tenantgate by its management API: what is done is in force at once, in every
/// replica
#[derive(Args)]
pub struct AdminArgs {
    #[command(flatten)]
    api: ApiArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct ApiArgs {
    /// Where `listen.management` is, such as http://127.0.0.1:9194
    #[arg(long, global = true, value_name = "URL", env = "TENANTGATE_MANAGEMENT_URL")]
    url: Option<String>,
    /// A file with the token of `management.token_file`, or one of our own issuer; `-`: standard
    /// input
    #[arg(long, global = true, value_name = "FILE", env = "TENANTGATE_MANAGEMENT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM certificates of the CA that signed the API's certificate
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A client certificate, PEM, where the API demands one. With `management.client_certificates`
    /// it needs no token besides
    #[arg(long, global = true, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The key of the client certificate
    #[arg(long, global = true, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Withdraw or restore what a tenant has granted to a client
    #[command(subcommand)]
    Grants(Grants),
    /// Show, register, stop and change clients
    #[command(subcommand)]
    Clients(Clients),
    /// Show each step of a decision of the running process. Exit code: 0 allow, 3 deny, 1 cannot
    /// decide
    Explain(ExplainArgs),
    /// Who used a tenant, and who was refused and why, by the hour
    Usage(UsageArgs),
}

#[derive(Args)]
struct UsageArgs {
    /// The tenant's code; `-`: read from standard input
    #[arg(long, value_name = "CODE")]
    tenant: Option<String>,
    #[arg(long, value_name = "ID", visible_alias = "id", alias = "client-id")]
    client: Option<String>,
    /// Hours that begin at this time or later, such as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Hours that begin before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

#[derive(Args)]
#[command(group(ArgGroup::new("question").required(true).args(["path", "tenant"])))]
struct ExplainArgs {
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The request's path, as Envoy would see it
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The request's token; `--token-file` is the one for the API
    #[arg(long, value_name = "TOKEN", requires = "path")]
    token: Option<String>,
    /// A file with the request's token
    #[arg(long, value_name = "FILE", requires = "path", conflicts_with = "token")]
    bearer_file: Option<PathBuf>,
    /// The API, where the config has several
    #[arg(long, value_name = "NAME", requires = "path")]
    api: Option<String>,
    /// Asks for this client instead of for a request
    #[arg(long, value_name = "ID", requires = "tenant", conflicts_with = "path")]
    client: Option<String>,
    #[arg(long, value_name = "CODE", requires = "client", conflicts_with = "path")]
    tenant: Option<String>,
}

#[derive(Subcommand)]
enum Grants {
    /// From now on only newer evidence counts: a token or a lookup from before does not
    Withdraw {
        #[command(flatten)]
        grant: GrantArgs,
        /// How much newer the evidence has to be, such as 10s
        #[arg(long, value_name = "D")]
        hold: Option<String>,
    },
    /// Lift a withdrawal; a token from before works again
    Restore(GrantArgs),
}

#[derive(Args)]
struct GrantArgs {
    /// The client's id
    #[arg(long, value_name = "ID", visible_alias = "id", alias = "client-id")]
    client: String,
    /// The tenant's code; `-`: read from standard input, so that it stays out of the shell's
    /// history
    #[arg(long, value_name = "CODE")]
    tenant: String,
    #[command(flatten)]
    about: AboutArgs,
}

#[derive(Args)]
struct AboutArgs {
    /// A UUID; the same one again does nothing
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
    /// For the record of management actions
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl AboutArgs {
    fn body(&self) -> Map<String, Value> {
        let named = [("request_id", &self.request_id), ("reason", &self.reason)];
        let given = named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given.map(|(name, value)| (name.to_owned(), json!(value))).collect()
    }
}

#[derive(Subcommand)]
enum Clients {
    /// All registered clients, whatever the source
    List,
    /// One client
    Show(ClientArg),
    /// Register a client and show its new secret once
    Add(AddArgs),
    /// Stop a client until it is unblocked
    Block(ActArgs),
    /// Let a blocked client go on
    Unblock(ActArgs),
    /// Refuse the tokens that a client got until now; it may get new ones
    RevokeTokens(ActArgs),
    /// Give a client a second secret, shown once; the first goes on
    RotateSecret(RotateArgs),
    /// Refuse one of a client's secrets
    RevokeSecret {
        #[command(flatten)]
        act: ActArgs,
        /// As `show` tells it
        #[arg(long, value_name = "ID")]
        credential: String,
    },
    /// Take a client out of the registry; its tokens end too
    Delete(ActArgs),
}

#[derive(Args)]
struct ClientArg {
    /// The client's id
    #[arg(value_name = "ID", required_unless_present = "id")]
    named: Option<String>,
    /// The client's id
    #[arg(
        long,
        value_name = "ID",
        visible_alias = "client",
        alias = "client-id",
        conflicts_with = "named"
    )]
    id: Option<String>,
}

impl ClientArg {
    fn id(&self) -> &str {
        self.named.as_deref().or(self.id.as_deref()).unwrap_or_default()
    }

    /// An id needs no encoding in a path.
    fn path(&self, verb: &str) -> String {
        format!("/v1/clients/{}{verb}", self.id())
    }
}

#[derive(Args)]
struct ActArgs {
    #[command(flatten)]
    client: ClientArg,
    #[command(flatten)]
    about: AboutArgs,
}

#[derive(Args)]
struct RotateArgs {
    #[command(flatten)]
    act: ActArgs,
    /// Write the new secret to this file, which must not be there yet, instead of showing it
    #[arg(long, value_name = "FILE")]
    secret_out: Option<PathBuf>,
}

#[derive(Args)]
struct AddArgs {
    #[command(flatten)]
    act: ActArgs,
    /// A scope that the client may ask for; repeatable
    #[arg(long, value_name = "S")]
    scope: Vec<String>,
    /// The code of a tenant that the client may read, instead of the lookup; repeatable
    #[arg(long, value_name = "CODE")]
    tenant: Vec<String>,
    /// How long the client's tokens live, such as 30m
    #[arg(long, value_name = "D")]
    token_ttl: Option<String>,
    /// Who is behind the client
    #[arg(long, value_name = "ID")]
    developer: Option<String>,
    /// An API that the client may call; repeatable; left out: all
    #[arg(long, value_name = "NAME")]
    api: Vec<String>,
    /// Write the new secret to this file, which must not be there yet, instead of showing it
    #[arg(long, value_name = "FILE")]
    secret_out: Option<PathBuf>,
}

pub fn run(args: &AdminArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let session = Session { caller: caller(&args.api)?, output: args.api.output };
    runtime.block_on(async {
        match &args.command {
            Command::Grants(grants) => session.grants(grants).await?,
            Command::Clients(clients) => session.clients(clients).await?,
            Command::Explain(args) => return session.explain(args).await,
            Command::Usage(args) => session.usage(args).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn caller(args: &ApiArgs) -> anyhow::Result<ManagementApi> {
    let Some(url) = &args.url else {
        bail!("--url: missing; say where `listen.management` is, such as http://127.0.0.1:9194");
    };
    let token = match &args.token_file {
        Some(file) => Some(Secret::new(read(file, "--token-file")?.trim())),
        None if args.cert_file.is_some() => None,
        None => bail!("--token-file: missing; name the file of `management.token_file`"),
    };
    let ca = args.ca_file.as_ref().map(|file| read(file, "--ca-file")).transpose()?;
    let identity = match (&args.cert_file, &args.key_file) {
        (Some(cert), Some(key)) => {
            let pem = read(cert, "--cert-file")? + "\n" + &read(key, "--key-file")?;
            Some(Secret::new(pem))
        }
        _ => None,
    };
    let (token, ca, identity) = (token.as_ref(), ca.as_deref(), identity.as_ref());
    Ok(ManagementApi::new(&ApiAccess { url, token, ca, identity })?)
}

fn read(file: &Path, option: &str) -> anyhow::Result<String> {
    let read = match file == Path::new("-") {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    read.with_context(|| format!("{option} {}: cannot be read", file.display()))
}

struct Session {
    caller: ManagementApi,
    output: Output,
}

impl Session {
    async fn post(&self, path: &str, body: Map<String, Value>) -> anyhow::Result<Value> {
        Ok(self.caller.call(Method::POST, path, &[], Some(&Value::Object(body))).await?)
    }

    async fn grants(&self, command: &Grants) -> anyhow::Result<()> {
        let (grant, hold, path, done) = match command {
            Grants::Withdraw { grant, hold } => (grant, hold.as_ref(), "withdraw", "is withdrawn"),
            Grants::Restore(grant) => (grant, None, "restore", "is restored"),
        };
        let mut body = grant.about.body();
        body.insert("client_id".to_owned(), json!(grant.client));
        body.insert("tenant".to_owned(), json!(code(&grant.tenant)?));
        body.extend(hold.map(|hold| ("hold".to_owned(), json!(hold))));
        let answer = self.post(&format!("/v1/grants:{path}"), body).await?;
        self.show(&format!("The grant of client {} {done}.", grant.client), &answer)
    }

    async fn clients(&self, command: &Clients) -> anyhow::Result<()> {
        match command {
            Clients::List => self.list().await,
            Clients::Show(client) => {
                let answer = self.caller.call(Method::GET, &client.path(""), &[], None).await?;
                self.show("", &answer)
            }
            Clients::Add(args) => self.add(args).await,
            Clients::Block(act) => self.act(act, ":block", "is blocked").await,
            Clients::Unblock(act) => self.act(act, ":unblock", "may go on").await,
            Clients::RevokeTokens(act) => {
                self.act(act, ":revoke-tokens", "has to get new tokens").await
            }
            Clients::RotateSecret(RotateArgs { act, secret_out }) => {
                let path = act.client.path(":rotate-secret");
                self.with_secret(&path, act.about.body(), secret_out.as_deref()).await
            }
            Clients::RevokeSecret { act, credential } => {
                let mut body = act.about.body();
                body.insert("credential_id".to_owned(), json!(credential));
                let answer = self.post(&act.client.path(":revoke-secret"), body).await?;
                self.show(&format!("Secret {credential} is refused from now on."), &answer)
            }
            Clients::Delete(act) => {
                let body = Value::Object(act.about.body());
                let path = act.client.path("");
                self.caller.call(Method::DELETE, &path, &[], Some(&body)).await?;
                let id = act.client.id();
                let answer = json!({ "client_id": id, "deleted": true });
                self.show(&format!("Client {id} is deleted."), &answer)
            }
        }
    }

    async fn usage(&self, args: &UsageArgs) -> anyhow::Result<()> {
        let mut body = Map::new();
        let mut give = |name: &str, value: Option<String>| {
            body.extend(value.map(|value| (name.to_owned(), json!(value))));
        };
        give("tenant", args.tenant.as_deref().map(code).transpose()?);
        give("client_id", args.client.clone());
        give("from", args.from.clone());
        give("to", args.to.clone());
        let answer = self.post("/v1/usage:query", body).await?;
        let mut out = io::stdout().lock();
        if self.output == Output::Json {
            writeln!(out, "{answer}")?;
            return Ok(());
        }
        let headings = ["HOUR", "CLIENT", "TENANT", "OUTCOME", "COUNT", "LAST"];
        let mut rows = vec![headings.map(str::to_owned)];
        rows.extend(answer["rows"].as_array().into_iter().flatten().map(|row| {
            ["hour", "client_id", "tenant", "outcome", "count", "last"].map(|name| {
                let text = in_words(&row[name]);
                if text.is_empty() { "-".to_owned() } else { text }
            })
        }));
        write_table(&rows, &mut out)?;
        if answer["truncated"] == true {
            writeln!(out, "There is more: ask for fewer hours.")?;
        }
        Ok(())
    }

    async fn explain(&self, args: &ExplainArgs) -> anyhow::Result<ExitCode> {
        let mut body = Map::new();
        let mut give = |name: &str, value: &Option<String>| {
            body.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
        };
        give("path", &args.path);
        give("method", &args.path.as_ref().map(|_| args.method.clone()));
        let bearer =
            args.bearer_file.as_ref().map(|file| read(file, "--bearer-file")).transpose()?;
        give("token", &bearer.or_else(|| args.token.clone()));
        give("api", &args.api);
        give("client_id", &args.client);
        give("tenant", &args.tenant);
        let answer = self.post("/v1/explain", body).await?;
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{answer}")?,
            Output::Text => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                for step in answer["steps"].as_array().into_iter().flatten() {
                    writeln!(out, "{:<12}{}", text(&step["step"]), text(&step["outcome"]))?;
                }
                let decision = match answer["reason"].as_str() {
                    Some(reason) => format!("{}: {reason}", text(&answer["decision"])),
                    None => text(&answer["decision"]),
                };
                writeln!(out, "{:<12}{decision}", "decision")?;
            }
        }
        Ok(ExitCode::from(match answer["decision"].as_str() {
            Some("allow") => 0,
            Some("deny") => 3,
            _ => 1,
        }))
    }

    async fn act(&self, act: &ActArgs, verb: &str, done: &str) -> anyhow::Result<()> {
        let answer = self.post(&act.client.path(verb), act.about.body()).await?;
        self.show(&format!("Client {} {done}.", act.client.id()), &answer)
    }

    async fn add(&self, args: &AddArgs) -> anyhow::Result<()> {
        let mut body = args.act.about.body();
        body.insert("client_id".to_owned(), json!(args.act.client.id()));
        body.insert("scope".to_owned(), json!(args.scope));
        let mut give = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        give("tenants", (!args.tenant.is_empty()).then(|| json!(args.tenant)));
        give("token_ttl", args.token_ttl.as_ref().map(|ttl| json!(ttl)));
        give("developer", args.developer.as_ref().map(|id| json!({ "id": id })));
        give("apis", (!args.api.is_empty()).then(|| json!(args.api)));
        self.with_secret("/v1/clients", body, args.secret_out.as_deref()).await
    }

    /// The file is there before the call is made, so that no secret is lost for a bad path.
    async fn with_secret(
        &self,
        path: &str,
        body: Map<String, Value>,
        out: Option<&Path>,
    ) -> anyhow::Result<()> {
        let file = out.map(|path| new_file(path).map(|file| (path, file))).transpose()?;
        let answer = self.post(path, body).await;
        let Some((path, mut file)) = file else {
            return self.show("Keep the secret now: it is not shown again.", &answer?);
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // Nobody needs the empty file; what went wrong says more.
                let _ = fs::remove_file(path);
                return Err(error);
            }
        };
        let secret = answer.as_object_mut().and_then(|answer| answer.remove("client_secret"));
        let secret = Secret::new(secret.as_ref().and_then(Value::as_str).unwrap_or_default());
        writeln!(file, "{}", secret.expose()).and_then(|()| file.sync_all()).with_context(
            || {
                let path = path.display();
                format!("--secret-out: {path} cannot be written, and the secret is lost; rotate it")
            },
        )?;
        answer["secret_file"] = json!(path);
        self.show("", &answer)
    }

    async fn list(&self) -> anyhow::Result<()> {
        let (mut clients, mut after) = (Vec::new(), String::new());
        loop {
            let query = [("limit", "1000"), ("after", after.as_str())];
            let mut page = self.caller.call(Method::GET, "/v1/clients", &query, None).await?;
            let Value::Array(more) = page["clients"].take() else {
                bail!("--url: the answer is not that of a management API");
            };
            clients.extend(more);
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        let mut out = io::stdout().lock();
        if self.output == Output::Json {
            writeln!(out, "{}", json!({ "clients": clients }))?;
            return Ok(());
        }
        let headings = ["CLIENT", "SOURCE", "STATUS", "SCOPE", "TENANTS"];
        let mut rows = vec![headings.map(str::to_owned)];
        rows.extend(clients.iter().map(|client| {
            let text = |name: &str| client[name].as_str().unwrap_or("-").to_owned();
            let status = match client["blocked"].as_bool() {
                Some(true) => "blocked".to_owned(),
                _ => text("status"),
            };
            let tenants = client["tenants"].as_array();
            let tenants = tenants.map_or("lookup".to_owned(), |list| list.len().to_string());
            [text("client_id"), text("source"), status, text("scope"), tenants]
        }));
        write_table(&rows, &mut out)?;
        Ok(())
    }

    fn show(&self, done: &str, answer: &Value) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if self.output == Output::Json {
            writeln!(out, "{answer}")?;
            return Ok(());
        }
        for (name, value) in answer.as_object().into_iter().flatten() {
            writeln!(out, "{:<20}{}", format!("{name}:"), in_words(value))?;
        }
        if !done.is_empty() {
            writeln!(out, "{done}")?;
        }
        Ok(())
    }
}

/// A tenant's code, which `-` keeps out of the shell's history.
fn code(tenant: &str) -> anyhow::Result<String> {
    let code = match tenant {
        "-" => io::read_to_string(io::stdin()).context("--tenant -: cannot be read")?,
        code => code.to_owned(),
    };
    Ok(code.trim().to_owned())
}

fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().map(in_words).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn new_file(path: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.with_context(|| {
        format!(
            "--secret-out {}: cannot be made; name a file that is not there yet",
            path.display()
        )
    })
}
