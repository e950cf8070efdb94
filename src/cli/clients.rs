use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::clients::{
    self, EditError, IfMissing, RawClient, RawClientStatus, RawCredential, RawCredentialStatus,
    RawDeveloper, RawDeveloperStatus,
};
use crate::domain::{
    ClientId, Clock, Secret, SystemClock, Timestamp, is_scope_token, is_tenant_code, parse_duration,
};

const MIN_SECRET: usize = 8;
/// How long a withdrawal takes at most until it acts everywhere.
const ACTS_WITHIN: Duration = Duration::from_secs(10);

/// Register apps, list them, change and revoke their credentials
#[derive(Args)]
pub struct ClientsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Register an app and show its new secret once. FILE is made if it is not there; comments in
    /// it are not kept
    Add(AddArgs),
    /// Show the registered apps, without digests and tenant codes
    List(ListArgs),
    /// Give an app a second secret, shown once; the first goes on. Comments in FILE are not kept
    Rotate(RotateArgs),
    /// Revoke one credential, or the whole app. Comments in FILE are not kept
    Revoke(RevokeArgs),
    /// Refuse all tokens that an app got until now; it may get new ones. Comments in FILE are not
    /// kept
    RevokeTokens(ClientArg),
}

#[derive(Args)]
struct AddArgs {
    #[command(flatten)]
    client: ClientArg,
    /// A scope that the app may ask for; repeatable
    #[arg(long, value_name = "S")]
    scope: Vec<String>,
    /// The code of a tenant that the app may read, instead of the lookup; repeatable
    #[arg(long, value_name = "CODE")]
    tenant: Vec<String>,
    /// How long the app's tokens live, such as 30m, instead of issuer.token_ttl
    #[arg(long, value_name = "D")]
    token_ttl: Option<String>,
    /// Take over the secret on standard input instead of making one
    #[arg(long)]
    secret_stdin: bool,
    /// Write the new secret to this file, which must not be there yet, instead of showing it
    #[arg(long, value_name = "FILE", conflicts_with = "secret_stdin")]
    secret_out: Option<PathBuf>,
    /// Who is behind the app
    #[arg(long, value_name = "ID")]
    developer: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
struct ListArgs {
    /// The registry
    #[arg(long)]
    file: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
struct RotateArgs {
    #[command(flatten)]
    client: ClientArg,
    /// Let the credential that is active now expire after this time, such as 7d
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    expire_old: Option<Duration>,
    /// Write the new secret to this file, which must not be there yet, instead of showing it
    #[arg(long, value_name = "FILE")]
    secret_out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
struct RevokeArgs {
    #[command(flatten)]
    client: ClientArg,
    /// The number of the credential, as `clients list` shows it; left out: the whole app
    #[arg(long, value_name = "N")]
    credential: Option<usize>,
    /// Refuse the tokens that the app has, too, and those of the next 10 s: until then the
    /// credential may still be good somewhere
    #[arg(long, requires = "credential")]
    tokens: bool,
}

#[derive(Args)]
struct ClientArg {
    /// The registry
    #[arg(long)]
    file: PathBuf,
    /// The app's client_id
    #[arg(long)]
    id: String,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

pub fn run(args: ClientsArgs) -> anyhow::Result<ExitCode> {
    run_on(args, SystemClock.now(), &mut io::stdin().lock(), &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn run_on(
    args: ClientsArgs,
    now: Timestamp,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match args.command {
        Command::Add(args) => add(args, stdin, out),
        Command::List(args) => list(&args, now, out),
        Command::Rotate(args) => rotate(args, now, out),
        Command::Revoke(args) => revoke(&args, now, out),
        Command::RevokeTokens(client) => revoke_tokens(&client, now, out),
    }
}

fn add(args: AddArgs, stdin: &mut dyn Read, out: &mut dyn Write) -> anyhow::Result<()> {
    let AddArgs { client, scope, tenant, token_ttl, developer, secret_stdin, secret_out, output } =
        args;
    for (option, id) in [("--id", Some(&client.id)), ("--developer", developer.as_ref())] {
        let fits = id.is_none_or(|id| ClientId::parse(id).is_some());
        ensure!(fits, "{option}: not a name; use {}", ClientId::RULE);
    }
    if let Some(bad) = scope.iter().find(|scope| !is_scope_token(scope)) {
        bail!("--scope: {bad:?} is not a scope; give one word of printable ASCII to each --scope");
    }
    if let Some(position) = tenant.iter().position(|code| !is_tenant_code(code)) {
        // The code is a secret, so that its place has to do.
        let number = position + 1;
        bail!("--tenant, number {number}: not a tenant code; use 1 to 128 of A-Z a-z 0-9 . _ ~ -");
    }
    if let Some(ttl) = &token_ttl {
        clients::parse_token_ttl(ttl)
            .map_err(|message| anyhow::anyhow!("--token-ttl: {message}"))?;
    }
    let mut tenants: Vec<String> = Vec::with_capacity(tenant.len());
    for code in tenant {
        if !tenants.contains(&code) {
            tenants.push(code);
        }
    }
    let (secret, digest) = if secret_stdin {
        let secret = read_secret(stdin)?;
        let digest = clients::digest_imported(&secret);
        (secret, digest)
    } else {
        let secret = clients::generate();
        let digest = clients::digest_generated(&secret);
        (secret, digest)
    };
    let new = RawClient {
        id: client.id.clone(),
        status: RawClientStatus::Approved,
        developer: developer.map(|id| RawDeveloper { id, status: RawDeveloperStatus::Active }),
        credentials: vec![RawCredential {
            digest,
            status: RawCredentialStatus::Active,
            expires_at: None,
        }],
        scopes: scope,
        tenants,
        token_ttl,
        tokens_not_before: None,
        apis: None,
        attributes: BTreeMap::new(),
        quota: None,
    };
    with_secret_in(secret_out.as_deref(), &secret, || {
        clients::edit(&client.file, IfMissing::Create, |registry| clients::add(registry, new))
    })?;
    if secret_stdin && output == Output::Text {
        // A caller that piped the secret in knows it and did not want it on the screen.
        writeln!(out, "Client {} added to {}.", client.id, client.file.display())?;
        return Ok(());
    }
    let new = NewSecret { client: &client, secret: &secret, file: secret_out.as_deref() };
    show(new, output, "added to", out)
}

fn read_secret(stdin: &mut dyn Read) -> anyhow::Result<Secret> {
    let mut text = String::new();
    stdin
        .read_to_string(&mut text)
        .context("--secret-stdin: cannot be read; pipe in UTF-8 text")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let secret = Secret::new(line.strip_suffix('\r').unwrap_or(line));
    zeroize::Zeroize::zeroize(&mut text);
    ensure!(
        secret.expose().len() >= MIN_SECRET,
        "--secret-stdin: the secret is too short; use at least {MIN_SECRET} characters, or leave \
         --secret-stdin out to get a generated one"
    );
    Ok(secret)
}

fn rotate(args: RotateArgs, now: Timestamp, out: &mut dyn Write) -> anyhow::Result<()> {
    let RotateArgs { client, expire_old, secret_out, output } = args;
    let secret = clients::generate();
    let digest = clients::digest_generated(&secret);
    let old_ends = expire_old.map(|time| now.plus(time));
    with_secret_in(secret_out.as_deref(), &secret, || {
        clients::edit(&client.file, IfMissing::Fail, |registry| {
            clients::rotate(registry, &client.id, digest, old_ends, now)
        })
    })?;
    let new = NewSecret { client: &client, secret: &secret, file: secret_out.as_deref() };
    show(new, output, "has a second credential in", out)
}

/// The secret is in its file before the registry knows it, so that none is ever lost; where the
/// registry stays as it is, so does the folder.
fn with_secret_in(
    file: Option<&Path>,
    secret: &Secret,
    change: impl FnOnce() -> Result<(), EditError>,
) -> anyhow::Result<()> {
    let Some(path) = file else {
        return Ok(change()?);
    };
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(
        |error| match error.kind() {
            io::ErrorKind::AlreadyExists => anyhow::anyhow!(
                "--secret-out: {} exists and is not overwritten; name a new file",
                path.display()
            ),
            _ => anyhow::anyhow!(
                "--secret-out: {} cannot be written ({error}); check the folder and its \
                 permissions",
                path.display()
            ),
        },
    )?;
    let done = writeln!(new, "{}", secret.expose())
        .and_then(|()| new.sync_all())
        .with_context(|| {
            format!("--secret-out: {} cannot be written; is there space left?", path.display())
        })
        .and_then(|()| Ok(change()?));
    if done.is_err() {
        // Nobody has this secret. That it cannot be removed would say less than what went wrong.
        let _ = fs::remove_file(path);
    }
    done
}

/// What `add` and `rotate` have to say, once.
struct NewSecret<'a> {
    client: &'a ClientArg,
    secret: &'a Secret,
    /// Where the secret is instead of on the screen.
    file: Option<&'a Path>,
}

fn show(new: NewSecret, output: Output, done: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let NewSecret { client, secret, file } = new;
    match (output, file) {
        (Output::Json, None) => {
            let shown = json!({ "client_id": client.id, "client_secret": secret.expose() });
            writeln!(out, "{shown}")?;
        }
        (Output::Json, Some(file)) => {
            writeln!(out, "{}", json!({ "client_id": client.id, "secret_file": file }))?;
        }
        (Output::Text, _) => {
            writeln!(out, "Client {} {done} {}.", client.id, client.file.display())?;
            writeln!(out, "client_id:     {}", client.id)?;
            match file {
                Some(file) => writeln!(out, "client_secret: in {}", file.display())?,
                None => {
                    writeln!(out, "client_secret: {}", secret.expose())?;
                    writeln!(out, "Keep the secret now: it is not shown again.")?;
                }
            }
        }
    }
    Ok(())
}

fn revoke(args: &RevokeArgs, now: Timestamp, out: &mut dyn Write) -> anyhow::Result<()> {
    let RevokeArgs { client, credential, tokens } = args;
    clients::edit(&client.file, IfMissing::Fail, |registry| {
        clients::revoke(registry, &client.id, *credential)?;
        match tokens {
            true => clients::revoke_tokens(registry, &client.id, now.plus(ACTS_WITHIN)),
            false => Ok(()),
        }
    })?;
    let (id, file) = (&client.id, client.file.display());
    match (credential, tokens) {
        (None, _) => writeln!(out, "Client {id} is revoked.")?,
        (Some(number), true) => writeln!(
            out,
            "Credential {number} of client {id} is revoked, and so are the tokens that it got.\n\
             Tokens of the next {} s will be refused, too; then the app has to get new ones.",
            ACTS_WITHIN.as_secs()
        )?,
        (Some(number), false) => writeln!(
            out,
            "Credential {number} of client {id} is revoked.\n\
             Tokens that were issued for it live on until they expire. To end them:\n\
             tenantgate clients revoke-tokens --file {file} --id {id}"
        )?,
    }
    Ok(())
}

fn revoke_tokens(client: &ClientArg, now: Timestamp, out: &mut dyn Write) -> anyhow::Result<()> {
    clients::edit(&client.file, IfMissing::Fail, |registry| {
        clients::revoke_tokens(registry, &client.id, now)
    })?;
    writeln!(out, "Tokens that client {} got until now are refused.", client.id)?;
    Ok(())
}

fn list(args: &ListArgs, now: Timestamp, out: &mut dyn Write) -> anyhow::Result<()> {
    let registry = clients::read(&args.file)
        .map_err(|misshapen| EditError::misshapen(misshapen, &args.file))?;
    match args.output {
        Output::Json => {
            let listed: Vec<_> =
                registry.clients.iter().map(|client| as_json(client, now)).collect();
            writeln!(out, "{}", json!({ "clients": listed }))?;
        }
        Output::Text => {
            let mut rows = vec![HEADINGS.map(str::to_owned)];
            rows.extend(registry.clients.iter().map(|client| as_row(client, now)));
            write_table(&rows, out)?;
        }
    }
    Ok(())
}

fn as_json(client: &RawClient, now: Timestamp) -> serde_json::Value {
    let numbered = client.credentials.iter().enumerate();
    let credentials: Vec<_> = numbered
        .map(|(position, credential)| {
            let generated = credential.digest.starts_with("sha256:");
            json!({
                "number": position + 1,
                "kind": if generated { "generated" } else { "imported" },
                "state": clients::state(credential, now),
                "expires_at": credential.expires_at,
            })
        })
        .collect();
    json!({
        "client_id": client.id,
        "status": client.status,
        "developer": client.developer,
        "credentials": credentials,
        "scopes": client.scopes,
        "tenants": client.tenants.len(),
        "token_ttl": client.token_ttl,
        "tokens_not_before": client.tokens_not_before,
        "apis": client.apis,
        "attributes": client.attributes,
    })
}

const HEADINGS: [&str; 7] =
    ["CLIENT", "STATUS", "DEVELOPER", "CREDENTIALS", "SCOPES", "TENANTS", "TOKEN TTL"];

fn as_row(client: &RawClient, now: Timestamp) -> [String; 7] {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let status = match client.status {
        RawClientStatus::Approved => "approved",
        RawClientStatus::Revoked => "revoked",
    };
    let developer = client.developer.as_ref().map(|developer| match developer.status {
        RawDeveloperStatus::Active => developer.id.clone(),
        RawDeveloperStatus::Inactive => format!("{} (inactive)", developer.id),
    });
    let numbered = client.credentials.iter().enumerate();
    let credentials: Vec<_> = numbered
        .map(|(position, credential)| {
            format!("{} {}", position + 1, clients::state(credential, now))
        })
        .collect();
    let tenants = match client.tenants.len() {
        0 => "lookup".to_owned(),
        count => count.to_string(),
    };
    [
        client.id.clone(),
        status.to_owned(),
        or_dash(developer.unwrap_or_default()),
        or_dash(credentials.join(", ")),
        or_dash(client.scopes.join(" ")),
        tenants,
        or_dash(client.token_ttl.clone().unwrap_or_default()),
    ]
}

pub fn write_table<const N: usize>(rows: &[[String; N]], out: &mut dyn Write) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
