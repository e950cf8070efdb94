use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
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
    ClientId, Clock, Secret, SystemClock, Timestamp, is_scope_token, is_tenant_code,
};

const MIN_SECRET: usize = 8;

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
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    expire_old: Option<Duration>,
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
    let (now, mut out) = (SystemClock.now(), io::stdout().lock());
    match args.command {
        Command::Add(args) => add(args, &mut io::stdin().lock(), &mut out),
        Command::List(args) => list(&args, now, &mut out),
        Command::Rotate(args) => rotate(args, now, &mut out),
        Command::Revoke(args) => revoke(&args, &mut out),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn add(args: AddArgs, stdin: &mut dyn Read, out: &mut dyn Write) -> anyhow::Result<()> {
    let AddArgs { client, scope, tenant, token_ttl, secret_stdin, developer, output } = args;
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
        apis: None,
        attributes: BTreeMap::new(),
    };
    clients::edit(&client.file, IfMissing::Create, |registry| clients::add(registry, new))?;
    if secret_stdin && output == Output::Text {
        // Whoever piped the secret in knows it and did not want it on the screen.
        writeln!(out, "Client {} added to {}.", client.id, client.file.display())?;
        return Ok(());
    }
    show(&client, &secret, output, "added to", out)
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
    let RotateArgs { client, expire_old, output } = args;
    let secret = clients::generate();
    let digest = clients::digest_generated(&secret);
    let old_ends = expire_old.map(|time| now.plus(time));
    clients::edit(&client.file, IfMissing::Fail, |registry| {
        clients::rotate(registry, &client.id, digest, old_ends, now)
    })?;
    show(&client, &secret, output, "has a second credential in", out)
}

fn show(
    client: &ClientArg,
    secret: &Secret,
    output: Output,
    done: &str,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match output {
        Output::Json => {
            let shown = json!({ "client_id": client.id, "client_secret": secret.expose() });
            writeln!(out, "{shown}")?;
        }
        Output::Text => {
            writeln!(out, "Client {} {done} {}.", client.id, client.file.display())?;
            writeln!(out, "client_id:     {}", client.id)?;
            writeln!(out, "client_secret: {}", secret.expose())?;
            writeln!(out, "Keep the secret now: it is not shown again.")?;
        }
    }
    Ok(())
}

fn revoke(args: &RevokeArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let RevokeArgs { client, credential } = args;
    clients::edit(&client.file, IfMissing::Fail, |registry| {
        clients::revoke(registry, &client.id, *credential)
    })?;
    match credential {
        Some(number) => writeln!(out, "Credential {number} of client {} is revoked.", client.id)?,
        None => writeln!(out, "Client {} is revoked.", client.id)?,
    }
    Ok(())
}

fn list(args: &ListArgs, now: Timestamp, out: &mut dyn Write) -> anyhow::Result<()> {
    let registry =
        clients::read(&args.file).map_err(|misshapen| EditError::Problems(misshapen.problems))?;
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
            json!({
                "number": position + 1,
                "kind": if credential.digest.starts_with("sha256:") { "generated" } else { "imported" },
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

fn write_table<const N: usize>(rows: &[[String; N]], out: &mut dyn Write) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
