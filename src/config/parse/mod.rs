//! From the raw shape to the types that hold only valid values, a file a section.

mod apis;
mod audit;
mod auth;
mod dialects;
mod issuer;
mod issuers;
mod json_path;
mod limits;
mod listen;
mod lookup;
mod management;
mod state;
mod tenants;
mod warnings;

use super::reader::Reader;
use super::{
    Api, Config, Freshness, IssuerFreshness, Lookup, State, StateEngine, Tenants, TrustedIssuer,
    raw,
};
use crate::domain::is_reserved_claim;
use crate::yaml::Field;

/// What parsing gives even where it reports a problem is never used: `None` only saves work.
pub fn root(reader: &mut Reader, root: raw::Root) -> Option<Config> {
    let given = Given::of(&root);
    let listen = listen::parse(reader, root.listen);
    let own = root.issuer.as_ref().value();
    let tenant_claim_name = own.and_then(issuer::tenant_claim_name);
    let own_url = own.and_then(|issuer| Some(issuer.url.as_ref().value()?.0.clone()));
    let issuer = root.issuer.optional(|issuer| issuer::parse(reader, issuer, given));
    let clients_file = root.clients.value().and_then(|clients| clients.file.value());
    let clients_file = clients_file.map(|file| reader.path(&file));
    let wants_to_share = wants_to_share(root.tenants.as_ref().value());
    let tenants = tenants::parse(reader, root.tenants, tenant_claim_name.as_deref());
    let issuers = issuers::parse(reader, root.issuers, own_url.as_deref());
    let apis = apis::parse(reader, root.apis, given);
    let state = root.state.optional(|state| state::parse(reader, state));
    let management = root.management.value().unwrap_or_default();
    let management = management::parse(reader, management, listen.as_ref(), given);
    let tenants = tenants.map(|tenants| {
        let shared = shares(reader, wants_to_share, given, state.as_ref());
        Tenants { shared, ..tenants }
    });
    let audit = root.audit.optional(|audit| audit::parse(reader, audit));
    let traces = root.telemetry.value().unwrap_or_default().traces;
    let traces = traces.optional(|traces| {
        reader.url("telemetry.traces.otlp_grpc", traces.otlp_grpc, traces.allow_http)
    });
    let limits = limits::parse(reader, root.limits);
    needs(reader, given);
    if let (Some(issuers), Some(tenants)) = (&issuers, &tenants) {
        fresh_issuers_need_a_lookup(reader, issuers, tenants);
    }
    if let Some(listen) = &listen {
        warnings::listen(reader, listen);
    }
    if let Some(Some(issuer)) = &issuer {
        warnings::issuer(reader, issuer);
    }
    if let Some(issuers) = &issuers {
        warnings::issuers(reader, issuers);
    }
    if let Some(apis) = &apis {
        warnings::apis(reader, apis);
    }
    warnings::registry(reader, given);
    if let (Some(apis), Some(tenants)) = (&apis, &tenants) {
        api_keys_need_grants(reader, apis, tenants);
    }

    Some(Config {
        listen: listen?,
        issuer: issuer?,
        clients_file,
        tenants: tenants?,
        issuers: issuers?,
        state: state?,
        management: management?,
        audit: audit?,
        traces: traces?,
        apis: apis?,
        limits: limits?,
        files: Vec::new(),
        warnings: Vec::new(),
    })
}

/// Which sections and listeners the file has, be they right or wrong: others need them.
#[derive(Clone, Copy)]
pub struct Given {
    /// `listen.token`.
    mints: bool,
    /// `listen.management`.
    management: bool,
    issuer: bool,
    issuers: bool,
    clients: bool,
    state: bool,
    postgres: bool,
}

impl Given {
    fn of(root: &raw::Root) -> Self {
        let (listen, state) = (root.listen.as_ref().value(), root.state.as_ref().value());
        Self {
            mints: listen.is_some_and(|listen| listen.token.is_given()),
            management: listen.is_some_and(|listen| listen.management.is_given()),
            issuer: root.issuer.is_given(),
            issuers: !matches!(&root.issuers, Field::Value(none) if none.is_empty()),
            clients: root.clients.is_given(),
            state: root.state.is_given(),
            postgres: state.is_some_and(|state| state.postgres.is_given()),
        }
    }
}

fn wants_to_share(tenants: Option<&raw::Tenants>) -> Option<bool> {
    match tenants?.lookup.as_ref().value()? {
        raw::Lookup::Remote(remote) => remote.shared.value(),
        raw::Lookup::Word(_) => None,
    }
}

/// Whether replicas share the lookup's answers.
fn shares(
    reader: &mut Reader,
    wanted: Option<bool>,
    given: Given,
    state: Option<&Option<State>>,
) -> bool {
    let engine = state.and_then(|state| Some(&state.as_ref()?.engine));
    let postgres = matches!(engine, Some(StateEngine::Postgres { .. }));
    if wanted == Some(true) && !postgres && !given.postgres {
        let cure = "remove it, or add `state.postgres`";
        reader.problem("tenants.lookup.shared", "needs a database that replicas share", cure);
    }
    wanted.unwrap_or(postgres) && postgres
}

/// Sections that others cannot do without.
fn needs(reader: &mut Reader, given: Given) {
    if given.mints && !given.issuer {
        reader.problem(
            "issuer",
            "is missing, but `listen.token` wants to mint",
            "add the section, or remove `listen.token`",
        );
    }
    if given.mints && !given.clients && !given.state {
        reader.problem(
            "clients",
            "is missing, but `listen.token` wants to mint",
            "add the section or `state`, or remove `listen.token`",
        );
    }
    if !given.mints && !given.issuer && !given.issuers {
        reader.problem(
            "issuer",
            "is missing, and there are no `issuers` either: no token would be accepted",
            "add one of the two",
        );
    }
}

/// Where nothing is looked up, the key would promise what nobody keeps.
fn fresh_issuers_need_a_lookup(reader: &mut Reader, issuers: &[TrustedIssuer], tenants: &Tenants) {
    let nobody_asks = match (&tenants.lookup, tenants.freshness) {
        (Lookup::Static, _) => "tenants.lookup: static",
        (_, Freshness::Token) => "tenants.freshness: token",
        (Lookup::Http(_) | Lookup::Grpc(_), Freshness::Lookup { .. }) => return,
    };
    for (at, issuer) in issuers.iter().enumerate() {
        if issuer.freshness == IssuerFreshness::Lookup {
            reader.problem(
                &format!("issuers[{at}].freshness"),
                format!("`lookup` has no effect with `{nobody_asks}`: nothing is looked up"),
                "remove it, or configure a lookup that keeps grants fresh",
            );
        }
    }
}

/// A key carries no tenants as a token does, so somebody has to keep its client's grants fresh.
fn api_keys_need_grants(reader: &mut Reader, apis: &[Api], tenants: &Tenants) {
    if tenants.freshness != Freshness::Token || tenants.lookup == Lookup::Static {
        return;
    }
    for (index, _) in apis.iter().enumerate().filter(|(_, api)| api.api_key_header.is_some()) {
        reader.problem(
            &format!("apis[{index}].api_key"),
            "cannot work with `tenants.freshness: token`: a key names no tenants",
            "set `refresh` and `max_age` there, or remove `api_key`",
        );
    }
}

fn check_claim_name(reader: &mut Reader, field: &str, name: &str) {
    if is_reserved_claim(name) {
        let wrong = "is a claim or a response field that has a meaning of its own";
        reader.problem(field, wrong, "choose another name");
    }
}
