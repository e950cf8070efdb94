use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::lint::{self, Report, Severity};

/// Look for what is wrong between a gateway and tenantgate: each finding with its place, why it
/// matters and the cure. Exit 1 if there are errors.
#[derive(Args)]
pub struct LintArgs {
    #[command(subcommand)]
    input: Input,
}

#[derive(Subcommand)]
enum Input {
    /// Envoy's config: a config dump from its admin listener, or a bootstrap (JSON or YAML).
    Envoy {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Resources of Envoy Gateway, the Gateway API and Istio, with Istio's mesh config. Give them
    /// all at once: they are read together.
    Kubernetes {
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        output: OutputArg,
    },
}

#[derive(Args)]
struct OutputArg {
    /// A line a finding, or one JSON object.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let (report, output) = match &args.input {
        Input::Envoy { file, output } => {
            (lint::envoy(&read(file)?).map_err(anyhow::Error::msg)?, output.output)
        }
        Input::Kubernetes { files, output } => {
            let read = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
            let report = lint::kubernetes(&read);
            (report.map_err(|wrong| anyhow::Error::msg(wrong.join("\n")))?, output.output)
        }
    };
    match output {
        Output::Json => println!("{:#}", lint::to_json(&report)),
        Output::Text => print_text(&report),
    }
    let errors = report.count(Severity::Error);
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Findings are the result; what else there is to say goes to standard error.
fn print_text(report: &Report) {
    for skipped in &report.skipped {
        eprintln!("skipped {}: {}", skipped.place, skipped.why);
    }
    for finding in &report.findings {
        println!("{finding}");
    }
    let [errors, warnings] = [Severity::Error, Severity::Warning].map(|kind| report.count(kind));
    eprintln!("errors: {errors}, warnings: {warnings}");
}

fn read(path: &Path) -> anyhow::Result<lint::File> {
    let name = path.display().to_string();
    let file = fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    let mut text = String::new();
    let mut bounded = file.take(lint::MAX_BYTES + 1);
    bounded.read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    if text.len() as u64 > lint::MAX_BYTES {
        bail!("{name}: larger than {} MiB; split it", lint::MAX_BYTES >> 20);
    }
    Ok(lint::File { name, text })
}
