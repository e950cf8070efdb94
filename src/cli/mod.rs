//! The command line: one file a subcommand.

mod admin;
mod clients;
mod docs;
mod explain;
mod keys;
mod lint;
mod lookup;
mod reference;
mod serve;
mod shell;
mod state;
mod validate;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::files;
use crate::telemetry::{LogFormat, init_logs, log_panics};

/// Where the config is, unless `--config` says so.
const CONFIG_ENV: &str = "TENANTGATE_CONFIG";
const CONFIG_FILE: &str = "tenantgate.yaml";

/// External authorization for Envoy that makes an API multi-tenant safe, and the OAuth 2.0 token
/// endpoint that goes with it.
#[derive(Parser)]
#[command(name = "tenantgate", version, arg_required_else_help = true)]
struct Cli {
    /// How much to log to standard error: trace, debug, info, warn or error.
    #[arg(
        long,
        global = true,
        env = "TENANTGATE_LOG",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: LevelFilter,
    /// JSON lines, or text for people.
    #[arg(long, global = true, value_enum, default_value = "json", value_name = "FORMAT")]
    log_format: FormatArg,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArg {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl From<FormatArg> for LogFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Json => Self::Json,
            FormatArg::Text => Self::Text,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Validate(validate::ValidateArgs),
    Explain(explain::ExplainArgs),
    Lookup(lookup::LookupArgs),
    Lint(lint::LintArgs),
    Reference(reference::ReferenceArgs),
    Keys(keys::KeysArgs),
    Clients(clients::ClientsArgs),
    Admin(admin::AdminArgs),
    State(state::StateArgs),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
    #[command(hide = true)]
    Docs(docs::DocsArgs),
}

/// Runs one command. Whatever goes wrong is one clear line on standard error.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let _log = init_logs(cli.log_level, cli.log_format.into());
    log_panics();
    if let Err(error) = files::forbid_core_dumps() {
        tracing::warn!(%error, "a crash may leave keys and secrets in a core dump");
    }
    let done = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Lookup(args) => lookup::run(args),
        Command::Lint(args) => lint::run(&args),
        Command::Reference(args) => reference::run(&args),
        Command::Keys(args) => keys::run(args),
        Command::Clients(args) => clients::run(args),
        Command::Admin(args) => admin::run(&args),
        Command::State(args) => state::run(args),
        Command::Completions(args) => Ok(shell::completions(&args, Cli::command())),
        Command::Man(args) => shell::man(&args, Cli::command()),
        Command::Docs(args) => docs::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("tenantgate: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_before_and_after_the_command() {
        for line in [
            ["tenantgate", "--log-level", "debug", "validate", "--config", "a"],
            ["tenantgate", "validate", "--config", "a", "--log-level", "debug"],
        ] {
            assert_eq!(Cli::try_parse_from(line).ok().unwrap().log_level, LevelFilter::DEBUG);
        }
        let unknown = ["tenantgate", "--log-level", "loud", "validate", "--config", "a"];
        assert!(Cli::try_parse_from(unknown).is_err());
    }
}
