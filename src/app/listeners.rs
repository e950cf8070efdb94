use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Config, ListenAddress, ListenOn};
use crate::domain::{Clock, Problem};
use crate::serve::{self, Bound, Connections, Entrance, Listener, Patience, Protocols, Tls};
use crate::telemetry::Metrics;

/// Scrapers and probes only.
const ADMIN_CONNECTIONS: usize = 64;
/// The provider's portal.
const MANAGEMENT_CONNECTIONS: usize = 64;

/// A listener before it is bound.
pub struct Planned {
    address: ListenAddress,
    pub tls: Option<Arc<Tls>>,
    pub connections: Arc<Connections>,
}

impl Planned {
    /// To be called on the runtime that serves it.
    pub async fn bind(self) -> anyhow::Result<(Entrance, Bound)> {
        let Self { address, tls, connections } = self;
        let bound = Listener::bind(&address).await;
        let (listener, bound) = bound.with_context(|| {
            format!(
                "listen.{}: cannot listen on {address}; choose another address or stop what uses \
                 it",
                connections.listener
            )
        })?;
        Ok((Entrance { listener, tls, connections }, bound))
    }
}

/// Every listener of a config: what it shows, and its connections within what this process may have
/// open.
pub struct Listeners {
    pub check: Planned,
    pub token: Option<Planned>,
    pub admin: Planned,
    pub management: Option<Planned>,
}

impl Listeners {
    pub fn plan(
        config: &Config,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, Vec<Problem>> {
        let (listen, limits) = (&config.listen, &config.limits);
        let wanted = [
            limits.check_connections,
            listen.token.as_ref().map_or(0, |_| limits.token_connections),
            ADMIN_CONNECTIONS,
            listen.management.as_ref().map_or(0, |_| MANAGEMENT_CONNECTIONS),
        ];
        let descriptors = serve::raise_limit();
        let fitting = serve::fit(wanted, descriptors);
        let [check, token, admin, management] = fitting;
        if fitting != wanted {
            let message =
                "fewer connections than configured: this process may not open enough files";
            tracing::warn!(descriptors, check, token, admin, management, "{message}");
        }
        let mut problems = Vec::new();
        let mut plan = |name, on: &ListenOn, limit, patience| {
            let protocols = if name == "check" { Protocols::Http2 } else { Protocols::Http };
            let open = |files| Tls::open(name, protocols, files, clock, metrics);
            let tls = on.tls.as_ref().map(open).transpose();
            let tls = tls.map_err(|problem| problems.push(problem)).ok().flatten();
            let connections = Connections::new(name, limit, patience, metrics);
            Planned { address: on.address.clone(), tls, connections }
        };
        // Nothing that a scraper does may keep a probe waiting.
        let for_probes = Patience { in_request: Duration::ZERO, ..Patience::default() };
        let usual = Patience::default();
        let listeners = Self {
            check: plan("check", &listen.check, check, usual),
            token: listen.token.as_ref().map(|on| plan("token", on, token, usual)),
            admin: plan("admin", &listen.admin, admin, for_probes),
            management: {
                let on = listen.management.as_ref();
                on.map(|on| plan("management", on, management, usual))
            },
        };
        if problems.is_empty() { Ok(listeners) } else { Err(problems) }
    }

    pub fn status(&self) -> Status {
        let optional = [&self.token, &self.management].into_iter().flatten();
        let all: Vec<&Planned> = [&self.check, &self.admin].into_iter().chain(optional).collect();
        Status {
            connections: all.iter().map(|planned| Arc::clone(&planned.connections)).collect(),
            certificates: all.iter().filter_map(|planned| planned.tls.clone()).collect(),
        }
    }
}

/// What there is to say of the listeners while they run.
pub struct Status {
    connections: Vec<Arc<Connections>>,
    pub certificates: Vec<Arc<Tls>>,
}

impl Status {
    /// A line for each listener, and for each certificate.
    pub fn describe(&self) -> String {
        let bound = self.connections.iter().map(|connections| {
            let (open, limit) = (connections.open(), connections.limit);
            format!("connections on {}: {open} of {limit}\n", connections.listener)
        });
        bound.chain(self.certificates.iter().map(|tls| tls.describe())).collect()
    }
}
