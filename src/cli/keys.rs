use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::domain::{Algorithm, Clock as _, SystemClock, Timestamp, parse_duration};
use crate::keys::SigningAlgorithm;
use crate::keys::store::{self, Existing, KeyRecord, KeyState, KeyStoreError, to_rfc3339};

/// Signing keys and the key for tenant digests
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a signing key
    Generate {
        /// The key directory (`issuer.signing_keys`); made if it is missing
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        #[arg(long, value_name = "ALG", default_value = "ES256")]
        #[arg(value_parser = signing_algorithm())]
        alg: SigningAlgorithm,
        /// How long the key is published before it signs [default: 0s for the first key, else 10s]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        activate_after: Option<Duration>,
    },
    /// Show the signing keys
    List {
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// End a signing key: it is no longer published and its tokens stop
    Retire {
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        #[arg(long, value_name = "KID", allow_hyphen_values = true)]
        kid: String,
        /// Retire even the only key that can sign now, which stops minting
        #[arg(long)]
        force: bool,
    },
    /// Make a key for tenant digests: 64 hex characters
    Digest {
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn signing_algorithm() -> impl clap::builder::TypedValueParser<Value = SigningAlgorithm> {
    let names = SigningAlgorithm::ALL.map(|signing| Algorithm::from(signing).as_str());
    PossibleValuesParser::new(names)
        .try_map(|name| SigningAlgorithm::parse(&name).ok_or("not an algorithm that signs here"))
}

pub fn run(args: KeysArgs) -> anyhow::Result<ExitCode> {
    let text = execute(args, SystemClock.now())?;
    io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// What to print.
fn execute(args: KeysArgs, now: Timestamp) -> Result<String, KeyStoreError> {
    Ok(match args.command {
        KeysCommand::Generate { dir, alg, activate_after } => {
            generated(&store::generate(&dir, alg, activate_after, now)?, now)
        }
        KeysCommand::List { dir, output } => {
            let records = store::read_records(&dir).map_err(KeyStoreError::Broken)?;
            match output {
                Output::Text => table(&records, now),
                Output::Json => format!("{:#}\n", as_json(&records, now)),
            }
        }
        KeysCommand::Retire { dir, kid, force } => {
            let key = store::retire(&dir, &kid, force, now)?;
            let since = key.retired_at.map(to_rfc3339).unwrap_or_default();
            format!("{kid} is retired since {since}; its tokens stop when replicas have reloaded\n")
        }
        KeysCommand::Digest { out, force } => {
            let existing = if force { Existing::Replace } else { Existing::Keep };
            store::write_digest_key(&out, existing)?;
            format!("wrote {}\n", out.display())
        }
    })
}

fn generated(key: &KeyRecord, now: Timestamp) -> String {
    let (kid, alg) = (key.kid(), key.public.algorithm.as_str());
    let wait = key.activate_at.since(now);
    if wait.is_zero() {
        return format!("{alg} key {kid} signs at once\n");
    }
    format!(
        "{alg} key {kid} is published now and signs from {}, in {}, so that every replica knows it \
         first\n(--activate-after 0s makes a key that signs at once)\n",
        to_rfc3339(key.activate_at),
        humantime::format_duration(wait),
    )
}

fn table(records: &[KeyRecord], now: Timestamp) -> String {
    if records.is_empty() {
        return "no keys; `tenantgate keys generate` makes one\n".to_owned();
    }
    // A thumbprint has 43 characters.
    let row = |cells: [&str; 5]| {
        let [kid, alg, state, created, activates] = cells;
        format!("{kid:<43}  {alg:<5}  {state:<9}  {created:<20}  {activates}\n")
    };
    let mut text = row(["KID", "ALG", "STATE", "CREATED", "ACTIVATES"]);
    for key in records {
        text += &row([
            key.kid(),
            key.public.algorithm.as_str(),
            store::state(key, records, now).as_str(),
            &to_rfc3339(key.created_at),
            &to_rfc3339(key.activate_at),
        ]);
    }
    let signs = |key| store::state(key, records, now) == KeyState::Signing;
    if !records.iter().any(signs) {
        text += "no key can sign now\n";
    }
    text
}

fn as_json(records: &[KeyRecord], now: Timestamp) -> serde_json::Value {
    let keys: Vec<_> = records
        .iter()
        .map(|key| {
            json!({
                "kid": key.kid(),
                "alg": key.public.algorithm.as_str(),
                "state": store::state(key, records, now).as_str(),
                "created_at": to_rfc3339(key.created_at),
                "activate_at": to_rfc3339(key.activate_at),
                "retired_at": key.retired_at.map(to_rfc3339),
            })
        })
        .collect();
    json!({ "keys": keys })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        keys: KeysArgs,
    }

    fn parse(words: &[&str]) -> Result<KeysArgs, clap::Error> {
        let words = std::iter::once("keys").chain(words.iter().copied());
        Command::try_parse_from(words).map(|command| command.keys)
    }

    #[test]
    fn generate_retire_and_list_work_together() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("keys");
        let dir = dir.to_str().unwrap();
        let go = |words: &[&str], time| execute(parse(words).unwrap(), Timestamp::from_secs(time));
        go(&["generate", "--dir", dir], 1000).unwrap();
        go(&["generate", "--dir", dir, "--alg", "EdDSA", "--activate-after", "1m"], 1000).unwrap();
        let states = |seconds| {
            let records = store::read_records(dir.as_ref()).unwrap();
            let now = Timestamp::from_secs(seconds);
            assert_eq!(table(&records, now).lines().count(), 3);
            as_json(&records, now)["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| format!("{} {}", key["alg"], key["state"]).replace('"', ""))
                .collect::<Vec<_>>()
        };
        assert_eq!(states(1059), ["ES256 signing", "EdDSA pending"]);
        assert_eq!(states(1060), ["ES256 published", "EdDSA signing"]);
        let first = store::read_records(dir.as_ref()).unwrap()[0].kid().to_owned();
        let refused = go(&["retire", "--dir", dir, "--kid", &first], 1059).unwrap_err();
        assert!(refused.to_string().contains("only key that can sign"), "{refused}");
        go(&["retire", "--dir", dir, "--kid", &first], 1060).unwrap();
        assert_eq!(states(1060), ["ES256 retired", "EdDSA signing"]);
        let json = go(&["list", "--dir", dir, "--output", "json"], 1060).unwrap();
        assert!(json.contains("\"retired_at\": \"1970-01-01T00:17:40Z\""), "{json}");
        let file = home.path().join("digest.key");
        let digest = ["digest", "--out", file.to_str().unwrap()];
        go(&digest, 0).unwrap();
        let refused = go(&digest, 0).unwrap_err();
        assert!(refused.to_string().contains("give --force to replace it"), "{refused}");
        go(&[&digest[..], &["--force"]].concat(), 0).unwrap();
    }

    #[test]
    fn the_table_says_when_nothing_can_sign() {
        let home = tempfile::tempdir().unwrap();
        let later = Some(Duration::from_secs(9));
        let now = Timestamp::from_secs(1000);
        let key = store::generate(home.path(), SigningAlgorithm::Es256, later, now).unwrap();
        let text = table(&[key], now);
        assert!(
            text.contains("  pending    1970-01-01T00:16:40Z  1970-01-01T00:16:49Z\n"),
            "{text}"
        );
        assert!(text.ends_with("no key can sign now\n"), "{text}");
        assert!(table(&[], now).contains("no keys"));
    }

    #[test]
    fn generating_tells_when_the_key_signs() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(1000);
        let next = || {
            let key = store::generate(home.path(), SigningAlgorithm::EdDsa, None, now).unwrap();
            generated(&key, now)
        };
        assert!(next().ends_with(" signs at once\n"));
        let second = next();
        assert!(second.contains("signs from 1970-01-01T00:16:50Z, in 10s, so that"), "{second}");
    }

    #[test]
    fn unknown_algorithms_and_durations_are_refused() {
        for words in [["--alg", "PS256"], ["--alg", "es256"], ["--activate-after", "soon"]] {
            assert!(parse(&[&["generate", "--dir", "d"], &words[..]].concat()).is_err());
        }
        assert!(parse(&["generate"]).is_err());
        // A thumbprint may begin with a hyphen.
        assert!(parse(&["retire", "--dir", "d", "--kid", "-abc"]).is_ok());
    }
}
