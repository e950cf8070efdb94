use url::Url;

use super::dialects::codes_of;
use super::{auth, lookup};
use crate::config::reader::Reader;
use crate::config::{ClientTls, CodesOf, IssuerFreshness, KeySource, TrustedIssuer, raw};
use crate::domain::Algorithm;
use crate::yaml::Field;

pub fn parse(
    reader: &mut Reader,
    issuers: Field<Vec<Field<raw::TrustedIssuer>>>,
    own: Option<&str>,
) -> Option<Vec<TrustedIssuer>> {
    let mut seen: Vec<String> = Vec::new();
    reader.each("issuers", issuers, |reader, at, issuer| {
        if let Field::Value(name) = &issuer.issuer {
            let field = format!("{at}.issuer");
            if own == Some(name) {
                reader.problem(
                    &field,
                    "is our own `issuer.url`",
                    "remove this entry: own tokens are accepted anyway",
                );
            }
            if seen.contains(name) {
                reader.problem(&field, "appears a second time", "keep one entry for each issuer");
            }
            seen.push(name.clone());
        }
        one(reader, at, issuer)
    })
}

fn one(reader: &mut Reader, at: &str, issuer: raw::TrustedIssuer) -> Option<TrustedIssuer> {
    let field = |key: &str| format!("{at}.{key}");
    let name = reader.text(&field("issuer"), issuer.issuer.clone());
    let keys = keys(reader, at, &issuer);
    let audience = reader.text(&field("audience"), issuer.audience);
    if issuer.jwks_file.is_given() {
        reader.without_effect(at, &["tls", "proxy"], "with `jwks_file`");
    }
    let (tls, proxy) = reach(reader, at, issuer.tls, issuer.proxy);
    let tenant_claim = tenant_claim(reader, &field("tenant_claim"), issuer.tenant_claim);
    let client_claim = pointer(reader, &field("client_claim"), issuer.client_claim);
    let max_lifetime = reader.positive_duration(&field("max_lifetime"), issuer.max_lifetime);
    let leeway = reader.leeway(&field("leeway"), issuer.leeway);
    let typ = reader.each(&field("typ"), issuer.typ, |reader, field, text| {
        reader.text(field, text.into()).map(|text| media_type(&text))
    });
    let algorithms: Option<Vec<_>> =
        issuer.algorithms.value()?.into_iter().map(|name| name.value().map(algorithm)).collect();
    Some(TrustedIssuer {
        issuer: name?,
        keys: keys?,
        audience: audience?,
        algorithms: algorithms?,
        tenants_of: tenant_claim.as_ref().and_then(|(_, of)| *of),
        tenant_claim: tenant_claim?.0,
        tls: tls?,
        proxy: proxy?,
        allow_missing_kid: issuer.allow_missing_kid.value()?,
        client_claim: client_claim?,
        typ: typ?,
        max_lifetime: max_lifetime?,
        leeway: leeway?,
        freshness: match issuer.freshness.value()? {
            raw::IssuerFreshness::Token => IssuerFreshness::Token,
            raw::IssuerFreshness::Lookup => IssuerFreshness::Lookup,
        },
    })
}

fn keys(reader: &mut Reader, at: &str, issuer: &raw::TrustedIssuer) -> Option<KeySource> {
    let field = |key: &str| format!("{at}.{key}");
    let discovery = issuer.discovery.value()?;
    match (&issuer.jwks_url, &issuer.jwks_file, discovery) {
        (url, Field::Absent, false) if url.is_given() => {
            let url = reader.url(&field("jwks_url"), url.clone(), issuer.allow_http);
            url.map(KeySource::Url)
        }
        (Field::Absent, file, false) if file.is_given() => {
            Some(KeySource::File(reader.path(file.as_ref().value()?)))
        }
        (Field::Absent, Field::Absent, true) => {
            let url = raw::UrlText(issuer.issuer.clone().value()?);
            let url = reader.url(&field("issuer"), url.into(), issuer.allow_http);
            url.map(KeySource::Discovery)
        }
        (url, file, _) => {
            let any = url.is_given() || file.is_given();
            let count = if any { "more than one place" } else { "nowhere" };
            reader.problem(
                at,
                format!("says {count} to get its keys from"),
                "keep exactly one of `jwks_url`, `jwks_file` and `discovery: true`",
            );
            None
        }
    }
}

/// How keys are reached.
pub fn reach(
    reader: &mut Reader,
    at: &str,
    tls: Field<raw::ClientTls>,
    proxy: Field<raw::UrlText>,
) -> (Option<ClientTls>, Option<Option<Url>>) {
    let tls = auth::tls(reader, at, tls);
    (tls, lookup::proxy_url(reader, &format!("{at}.proxy"), proxy))
}

fn tenant_claim(
    reader: &mut Reader,
    field: &str,
    claim: Field<raw::IssuerTenantClaim>,
) -> Option<(String, Option<CodesOf>)> {
    match claim.value()? {
        raw::IssuerTenantClaim::Pointer(text) => Some((pointer(reader, field, text.into())?, None)),
        raw::IssuerTenantClaim::Full(full) => {
            let field = format!("{field}.pointer");
            if full.pointer.is_absent() {
                reader.problem(&field, "missing", "write a JSON Pointer, such as `/tenants`");
            }
            Some((pointer(reader, &field, full.pointer)?, full.of.value().map(codes_of)))
        }
    }
}

/// RFC 6901, and at least one step: a claim is never the whole token.
fn pointer(reader: &mut Reader, field: &str, text: Field<raw::PointerText>) -> Option<String> {
    let raw::PointerText(text) = text.value()?;
    let escapes_close = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if text.len() < 2 || !text.starts_with('/') || !escapes_close {
        reader.problem(
            field,
            "is not a JSON Pointer (RFC 6901)",
            "write it like `/tenants`, with `~1` for a `/` in a name and `~0` for a `~`",
        );
        return None;
    }
    Some(text)
}

/// In the form in which types are compared (RFC 7515, section 4.1.9).
fn media_type(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    text.strip_prefix("application/").unwrap_or(&text).to_owned()
}

fn algorithm(algorithm: raw::Algorithm) -> Algorithm {
    match algorithm {
        raw::Algorithm::Es256 => Algorithm::Es256,
        raw::Algorithm::Es384 => Algorithm::Es384,
        raw::Algorithm::EdDsa => Algorithm::EdDsa,
        raw::Algorithm::Rs256 => Algorithm::Rs256,
        raw::Algorithm::Ps256 => Algorithm::Ps256,
    }
}
