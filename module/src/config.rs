use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The JSON text of the filter in Envoy's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// The path of `tenantgate.yaml`. What changes in the file is taken without Envoy's doing.
    pub config: PathBuf,
    /// Where the sidecar offers its feed, `unix:/path/to/socket`. `None`: this reads all files
    /// itself.
    pub feed: Option<String>,
    /// The API, where the config has several.
    pub api: Option<String>,
    /// Whether to set dynamic metadata, which costs as much as the decision.
    #[serde(default)]
    pub metadata: bool,
}

/// The JSON text of a route.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The API that requests of this route are for.
    pub api: String,
}

impl FilterConfig {
    /// The socket of the feed.
    pub fn socket(&self) -> Result<Option<&Path>, String> {
        let Some(feed) = &self.feed else { return Ok(None) };
        match feed.strip_prefix("unix:").map(Path::new) {
            Some(path) if path.is_absolute() => Ok(Some(path)),
            _ => Err("the filter's config: feed: is not a socket; write it like \
                      unix:/run/tenantgate/feed.sock"
                .into()),
        }
    }
}

/// Reads the text. The error names the key and the place.
pub fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("the filter's config: {error}"))
}
