use super::state;
use crate::config::Config;

/// The settings that are read at the start only, with what they said then.
#[derive(Default)]
pub struct RestartOnly(Vec<(&'static str, String)>);

impl RestartOnly {
    pub fn of(config: &Config) -> Self {
        let (listen, limits) = (&config.listen, &config.limits);
        Self(vec![
            ("listen.check", format!("{:?}", listen.check)),
            ("listen.token", format!("{:?}", listen.token)),
            ("listen.admin", format!("{:?}", listen.admin)),
            ("listen.feed", format!("{:?}", listen.feed)),
            ("listen.management", format!("{:?}", listen.management)),
            ("telemetry.traces", format!("{:?}", config.traces)),
            ("audit", format!("{:?}", config.audit)),
            ("state", state::fingerprint(config.state.as_ref())),
            ("limits.check_connections", limits.check_connections.to_string()),
            ("limits.check_message_bytes", limits.check_message_bytes.to_string()),
            ("limits.check_unfinished_bytes", limits.check_unfinished_bytes.to_string()),
            ("limits.token_cache_bytes", limits.token_cache_bytes.to_string()),
            ("limits.token_connections", limits.token_connections.to_string()),
            ("limits.failures_per_minute", limits.failures_per_minute.to_string()),
            ("limits.trusted_proxies", limits.trusted_proxies.to_string()),
            ("limits.forwarded_header", format!("{:?}", limits.forwarded_header)),
            ("limits.slow_hashes", limits.slow_hashes.to_string()),
        ])
    }

    /// The names of those that say something else now.
    pub fn changed(&self, config: &Config) -> Vec<&'static str> {
        let now = Self::of(config);
        let pairs = self.0.iter().zip(&now.0);
        pairs.filter(|(then, now)| then != now).map(|(then, _)| then.0).collect()
    }
}
