//! From the raw shape to the types that hold only valid values, a file a section.

mod apis;
mod auth;
mod issuer;
mod issuers;
mod json_path;
mod limits;
mod listen;
mod lookup;
mod tenants;

use super::reader::Reader;
use super::{Config, raw};
use crate::domain::is_reserved_claim;

/// What parsing gives even where it reports a problem is never used: `None` only saves work.
pub fn root(reader: &mut Reader, root: raw::Root) -> Option<Config> {
    let listen = listen::parse(reader, root.listen);
    let tenant_claim_name = issuer::tenant_claim_name(root.issuer.as_ref());
    let own_url = root.issuer.as_ref().and_then(|issuer| Some(issuer.url.as_ref()?.0.clone()));
    let issuer = root.issuer.map(|issuer| issuer::parse(reader, issuer));
    let clients_file = root.clients.and_then(|clients| clients.file);
    let clients_file = clients_file.map(|file| reader.path(&file));
    let tenants = tenants::parse(reader, root.tenants, tenant_claim_name.as_deref());
    let issuers = issuers::parse(reader, root.issuers, own_url.as_deref());
    let apis = apis::parse(reader, root.apis);
    let limits = limits::parse(reader, root.limits);
    needs(reader);

    Some(Config {
        listen: listen?,
        issuer: match issuer {
            Some(issuer) => Some(issuer?),
            None => None,
        },
        clients_file,
        tenants: tenants?,
        issuers: issuers?,
        apis: apis?,
        limits: limits?,
        files: Vec::new(),
    })
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
    if mints && !reader.given("clients") {
        reader.problem(
            "clients",
            "is missing, but `listen.token` wants to mint",
            "add the section, or remove `listen.token`",
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

fn check_claim_name(reader: &mut Reader, field: &str, name: &str) {
    if is_reserved_claim(name) {
        let wrong = "is a claim or a response field that has a meaning of its own";
        reader.problem(field, wrong, "choose another name");
    }
}
