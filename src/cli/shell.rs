use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print what completes commands and options in a shell, such as `source <(tenantgate completions
/// bash)`
#[derive(Args)]
pub struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write a man page for each command
#[derive(Args)]
pub struct ManArgs {
    /// The folder to write into; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn completions(args: &CompletionsArgs, mut command: Command) -> ExitCode {
    clap_complete::generate(args.shell, &mut command, "tenantgate", &mut io::stdout());
    ExitCode::SUCCESS
}

pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let place = || format!("--out {}: cannot be written", args.out.display());
    std::fs::create_dir_all(&args.out).with_context(place)?;
    clap_mangen::generate_to(command, &args.out).with_context(place)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_has_a_man_page() {
        let folder = tempfile::tempdir().unwrap();
        let args = ManArgs { out: folder.path().join("man1") };
        man(&args, Cli::command()).unwrap();
        for page in ["tenantgate.1", "tenantgate-serve.1", "tenantgate-clients-add.1"] {
            let text = std::fs::read_to_string(args.out.join(page)).unwrap();
            assert!(text.contains("tenantgate"), "{page}");
        }
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tenantgate", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("validate") && text.contains("strict"), "{shell}");
        }
    }
}
