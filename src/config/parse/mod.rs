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

/// What parsing gives even where it reports a problem is never used: `None` only saves work.
pub fn root(reader: &mut Reader, root: raw::Root) -> Option<Config> {
    let listen = listen::parse(reader, root.listen);
    let tenant_claim_name = issuer::tenant_claim_name(root.issuer.as_ref());
    let own_url = root.issuer.as_ref().and_then(|issuer| Some(issuer.url.as_ref()?.0.clone()));
    let issuer = root.issuer.map(|issuer| issuer::parse(reader, issuer));
    let clients_file = root.clients.and_then(|clients| clients.file);
    let clients_file = clients_file.map(|file| reader.path(&file));
    let wants_to_share = wants_to_share(root.tenants.as_ref());
    let tenants = tenants::parse(reader, root.tenants, tenant_claim_name.as_deref());
    let issuers = issuers::parse(reader, root.issuers, own_url.as_deref());
    let apis = apis::parse(reader, root.apis);
    let state = root.state.map(|state| state::parse(reader, state));
    let management =
        management::parse(reader, root.management.unwrap_or_default(), listen.as_ref());
    let tenants = tenants.map(|tenants| {
        let shared = shares(reader, wants_to_share, state.as_ref());
        Tenants { shared, ..tenants }
    });
    let audit = root.audit.map(|audit| audit::parse(reader, audit));
    let traces = root.telemetry.and_then(|telemetry| telemetry.traces);
    let traces = traces.map(|traces| {
        let field = "telemetry.traces.otlp_grpc";
        if !reader.given(field) {
            reader.problem(field, "missing", "name the collector, such as `http://127.0.0.1:4317`");
        }
        reader.url(field, traces.otlp_grpc, traces.allow_http)
    });
    let limits = limits::parse(reader, root.limits);
    needs(reader);
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
    warnings::registry(reader);
    if let (Some(apis), Some(tenants)) = (&apis, &tenants) {
        api_keys_need_grants(reader, apis, tenants);
    }

    Some(Config {
        listen: listen?,
        issuer: match issuer {
            Some(issuer) => Some(issuer?),
            None => None,
        },
        clients_file,
        tenants: tenants?,
        issuers: issuers?,
        state: match state {
            Some(state) => Some(state?),
            None => None,
        },
        management: management?,
        audit: match audit {
            Some(audit) => Some(audit?),
            None => None,
        },
        traces: match traces {
            Some(collector) => Some(collector?),
            None => None,
        },
        apis: apis?,
        limits: limits?,
        files: Vec::new(),
        warnings: Vec::new(),
    })
}

fn wants_to_share(tenants: Option<&raw::Tenants>) -> Option<bool> {
    match tenants?.lookup.as_ref()? {
        raw::Lookup::Remote(remote) => remote.shared,
        raw::Lookup::Word(_) => None,
    }
}

/// Whether replicas share the lookup's answers.
fn shares(reader: &mut Reader, wanted: Option<bool>, state: Option<&Option<State>>) -> bool {
    let engine = state.and_then(|state| Some(&state.as_ref()?.engine));
    let postgres = matches!(engine, Some(StateEngine::Postgres { .. }));
    if wanted == Some(true) && !postgres && !reader.given("state.postgres") {
        let cure = "remove it, or add `state.postgres`";
        reader.problem("tenants.lookup.shared", "needs a database that replicas share", cure);
    }
    wanted.unwrap_or(postgres) && postgres
}

/// Sections that others cannot do without.
fn needs(reader: &mut Reader) {
    let mints = reader.given("listen.token");
    if mints && !reader.given("issuer") {
        reader.problem(
            "issuer",
            "is missing, but `listen.token` wants to mint",
            "add the section, or remove `listen.token`",
        );
    }
    if mints && !reader.given("clients") && !reader.given("state") {
        reader.problem(
            "clients",
            "is missing, but `listen.token` wants to mint",
            "add the section or `state`, or remove `listen.token`",
        );
    }
    if !mints && !reader.given("issuer") && !reader.given("issuers") {
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
