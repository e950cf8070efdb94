use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use schemars::JsonSchema;

use crate::clients::RawRegistry;
use crate::config::raw;
use crate::telemetry::Metrics;
use crate::yaml::{docs, schema};

/// Write the reference of the configuration, the JSON Schemas for editors and the table of the
/// metrics.
#[derive(Args)]
pub struct DocsArgs {
    /// The folder to write into, usually docs.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub fn run(args: &DocsArgs) -> anyhow::Result<ExitCode> {
    for (name, text) in files() {
        let path = args.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = args.dir.join(OPERATIONS);
    let page = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let page = with_metrics(&page).with_context(|| format!("{}: no marks", path.display()))?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn files() -> [(&'static str, String); 3] {
    [
        ("configuration.md", configuration()),
        ("tenantgate.schema.json", schema_text::<raw::Root>()),
        ("clients.schema.json", schema_text::<RawRegistry>()),
    ]
}

const OPERATIONS: &str = "operations.md";
const BEGIN: &str = "<!-- metrics: written by `tenantgate docs --dir docs` -->\n\n";
const END: &str = "\n<!-- end of metrics -->";

/// The page with the table of metrics between its marks brought up to date.
fn with_metrics(page: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    let rows = Metrics::table();
    let head = "| metric | type | labels | meaning |\n|---|---|---|---|\n";
    Some(format!("{before}{BEGIN}{head}{rows}{END}{after}"))
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `tenantgate docs --dir docs` from the types in src/config/raw/ and \
src/clients/file.rs. -->

`tenantgate serve --config FILE` reads `tenantgate.yaml`. `tenantgate validate --config FILE` \
shows everything that is wrong with it, with the client registry and with the files that they \
name, with file, line and column. What is allowed but rarely meant is a `warning:`, and an error \
with `--strict`: a public route over a closed one, a method that no client sends, a scope that \
no client has. `serve` logs warnings. A changed file is read again while tenantgate runs; what is \
broken stays as it last was, and what the other files say is applied all the same.

Without `--config` the file is the one that `TENANTGATE_CONFIG` names, else `tenantgate.yaml` in \
the current folder. Variables like `${NAME}` in it are not expanded.

Editors complete and check the files with this line at their top (and \
[clients.schema.json](clients.schema.json) for `clients.yaml`):

```yaml
# yaml-language-server: $schema=PATH/TO/docs/tenantgate.schema.json
```

Plain `http://` is accepted for loopback; elsewhere only with `allow_http: true` beside the URL.
";

const COLUMNS: usize = 120;

/// Breaks the lines of prose; a row of a table and a comment are one line each.
fn wrapped(document: &str) -> String {
    let mut text = String::new();
    for line in document.lines() {
        let mut column = 0;
        let whole = line.starts_with(['|', '<']);
        let words = if whole { vec![line] } else { line.split(' ').collect() };
        for word in words {
            let width = word.chars().count();
            if column > 0 {
                let breaks = column + 1 + width > COLUMNS;
                text.push(if breaks { '\n' } else { ' ' });
                column = if breaks { 0 } else { column + 1 };
            }
            text.push_str(word);
            column += width;
        }
        text.push('\n');
    }
    text
}

fn configuration() -> String {
    let config = docs::sections(&schema::of::<raw::Root>(), "tenantgate.yaml");
    let clients = docs::sections(&schema::of::<RawRegistry>(), "clients.yaml");
    wrapped(&format!("{INTRODUCTION}{config}{clients}"))
}

fn schema_text<T: JsonSchema>() -> String {
    format!("{:#}\n", schema::of::<T>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_files_say_what_the_types_say() {
        for (name, text) in files() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "docs/{name} is out of date; run: cargo run --bin tenantgate -- docs --dir docs"
            );
        }
    }

    #[test]
    fn the_table_of_metrics_is_that_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(OPERATIONS);
        let page = std::fs::read_to_string(&path).unwrap();
        let written = with_metrics(&page).unwrap();
        assert!(
            written == page,
            "docs/{OPERATIONS} is out of date; run: cargo run --bin tenantgate -- docs --dir docs"
        );
        assert!(written.contains("| `tenantgate_decisions_total` | counter | `api`, `reason` |"));
        assert!(written.contains("| `tenantgate_state_age_seconds` | gauge |  |"));
    }

    #[test]
    fn every_key_of_the_config_is_explained() {
        let text = configuration();
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        let silent: Vec<&str> = rows.filter(|row| row.ends_with("|  |")).collect();
        assert_eq!(silent, [""; 0]);
        for section in ["issuer.tenant_claim", "tenants.lookup.auth.oauth2", "apis[].routes[]"] {
            assert!(text.contains(&format!("\n## `{section}`\n")), "{section}");
        }
    }
}
