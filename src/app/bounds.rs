use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::serve::{self, Connections, Patience};
use crate::telemetry::Metrics;

/// Scrapers and probes; nobody else has business there.
const ADMIN_CONNECTIONS: usize = 64;

/// The connections of each listener, within what this process may have open.
pub struct Bounds {
    pub check: Arc<Connections>,
    pub token: Arc<Connections>,
    pub admin: Arc<Connections>,
}

impl Bounds {
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let limits = &config.limits;
        let token = config.listen.token.as_ref().map_or(0, |_| limits.token_connections);
        let wanted = [limits.check_connections, token, ADMIN_CONNECTIONS];
        let descriptors = serve::raise_limit();
        let [check, token, admin] = serve::fit(wanted, descriptors);
        if [check, token, admin] != wanted {
            tracing::warn!(
                descriptors,
                check,
                token,
                admin,
                "fewer connections than configured: this process may not open enough files"
            );
        }
        let connections = |name, limit, patience| Connections::new(name, limit, patience, metrics);
        // Nothing that a scraper does may keep a probe waiting.
        let for_probes = Patience { in_request: Duration::ZERO, ..Patience::default() };
        Self {
            check: connections("check", check, Patience::default()),
            token: connections("token", token, Patience::default()),
            admin: connections("admin", admin, for_probes),
        }
    }

    /// A line for each listener.
    pub fn describe(&self) -> String {
        let all = [&self.check, &self.token, &self.admin];
        let bound = all.into_iter().filter(|connections| connections.limit > 0);
        let line = |connections: &Arc<Connections>| {
            let (open, limit) = (connections.open(), connections.limit);
            format!("connections on {}: {open} of {limit}\n", connections.listener)
        };
        bound.map(line).collect()
    }
}
