//! Text -> JSON values. The text was written by others: it is bounded, and what is wrong with it is
//! said without repeating it.

use serde_json::Value;

use super::File;

/// A config dump of thousands of routes has tens of MiB.
pub const MAX_BYTES: u64 = 256 << 20;

/// Every document that is not empty.
pub fn read(file: &File) -> Result<Vec<Value>, String> {
    let File { name, text } = file;
    if text.trim_start().starts_with(['{', '['])
        && let Ok(document) = serde_json::from_str(text)
    {
        return Ok(vec![document]);
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let error = error.without_snippet();
            let at = error.location().map(|at| format!(":{}:{}", at.line(), at.column()));
            let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            let text = text.replace('\n', " ");
            format!("{name}{}: neither JSON nor YAML: {text}", at.unwrap_or_default())
        })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
