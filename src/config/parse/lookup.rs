use std::collections::BTreeMap;

use url::Url;

use super::{auth, check_claim_name, json_path};
use crate::config::reader::Reader;
use crate::config::{
    GrpcLookup, HttpLookup, Lookup, LookupLimits, LookupMethod, SecretText, SelectedClaim,
    UrlTemplate, raw,
};
use crate::domain::Secret;

const AT: &str = "tenants.lookup";
const CLIENT_ID: &str = "{client_id}";

pub fn parse(
    reader: &mut Reader,
    mut remote: raw::RemoteLookup,
    tenant_claim: Option<&str>,
) -> Option<Lookup> {
    let limits = limits(reader, &remote);
    let auth = auth::parse(reader, remote.auth.take());
    let tls = auth::tls(reader, remote.tls.take());
    if reader.given("tenants.lookup.grpc") {
        let http_only = [
            "url",
            "allow_http",
            "method",
            "headers",
            "select",
            "claims",
            "no_grants_status",
            "max_body_bytes",
            "proxy",
        ];
        reader.without_effect(AT, &http_only, "beside `grpc`");
        let grpc = remote.grpc?;
        let url = reader.url("tenants.lookup.grpc.url", grpc.url, grpc.allow_http);
        let url = url.and_then(|url| bare(reader, "tenants.lookup.grpc.url", url));
        tls_has_effect(reader, url.as_ref());
        let (url, limits, auth, tls) = (url?, limits?, auth?, tls?);
        return Some(Lookup::Grpc(Box::new(GrpcLookup { limits, url, auth, tls })));
    }

    for (key, cure) in [
        ("url", "add it, with `{client_id}` in it (or use `grpc`)"),
        ("select", "add the JSONPath of the tenant codes, such as `$.tenants[*].code`"),
    ] {
        let field = format!("{AT}.{key}");
        if !reader.given(&field) {
            reader.problem(&field, "missing", cure);
        }
    }
    let url = url(reader, remote.url, remote.allow_http);
    let select = json_path::parse(reader, "tenants.lookup.select", remote.select);
    let headers = headers(reader, remote.headers);
    let claims = claims(reader, remote.claims, tenant_claim);
    let no_grants_status = no_grants_status(reader, remote.no_grants_status);
    let proxy = remote.proxy.map(|proxy| {
        let url = reader.any_url("tenants.lookup.proxy", Some(proxy))?;
        bare(reader, "tenants.lookup.proxy", url)
    });
    Some(Lookup::Http(Box::new(HttpLookup {
        limits: limits?,
        method: match remote.method? {
            raw::LookupMethod::Get => LookupMethod::Get,
            raw::LookupMethod::Post => LookupMethod::Post,
        },
        url: url?,
        headers: headers?,
        select: select?,
        claims: claims?,
        no_grants_status: no_grants_status?,
        max_body: usize::try_from(remote.max_body_bytes?).ok()?,
        auth: auth?,
        tls: tls?,
        proxy: match proxy {
            Some(proxy) => Some(proxy?),
            None => None,
        },
    })))
}

fn limits(reader: &mut Reader, remote: &raw::RemoteLookup) -> Option<LookupLimits> {
    let timeout = reader.positive_duration("tenants.lookup.timeout", remote.timeout.clone());
    let cache_ttl = reader.duration("tenants.lookup.cache_ttl", remote.cache_ttl.clone());
    // "No grants" is never remembered for longer than grants are.
    let negative_ttl = reader.duration("tenants.lookup.negative_ttl", remote.negative_ttl.clone());
    let negative_ttl =
        negative_ttl.zip(cache_ttl).map(|(negative, positive)| negative.min(positive));
    let field = "tenants.lookup.stale_while_revalidate";
    let stale_while_revalidate = reader.duration(field, remote.stale_while_revalidate.clone());
    Some(LookupLimits {
        timeout: timeout?,
        cache_ttl: cache_ttl?,
        negative_ttl: negative_ttl?,
        stale_while_revalidate: stale_while_revalidate?,
        max_tries: remote.max_tries?,
        concurrency: usize::try_from(remote.concurrency?).ok()?,
        cache_clients: usize::try_from(remote.cache_clients?).ok()?,
    })
}

/// The variable may stand in the path or the query only, so that no client id chooses the host.
fn url(
    reader: &mut Reader,
    text: Option<raw::UrlText>,
    allow_http: Option<bool>,
) -> Option<UrlTemplate> {
    let field = "tenants.lookup.url";
    let raw::UrlText(text) = text?;
    if !text.contains(CLIENT_ID) {
        reader.problem(field, "has no `{client_id}`", "write it where the client's id belongs, such as `https://api.example.com/{client_id}/authorizedTenants`");
        return None;
    }
    if text.replace(CLIENT_ID, "").contains(['{', '}']) {
        reader.problem(field, "has another variable than `{client_id}`", "use only that one");
        return None;
    }
    let stand_in = "client-id-stand-in";
    let url =
        reader.url(field, Some(text.replace(CLIENT_ID, stand_in).as_str().into()), allow_http)?;
    let before_path = &url[..url::Position::BeforePath];
    if before_path.contains(stand_in) {
        reader.problem(
            field,
            "has `{client_id}` before the path",
            "write it into the path or the query",
        );
        return None;
    }
    tls_has_effect(reader, Some(&url));
    Some(UrlTemplate(text))
}

fn tls_has_effect(reader: &mut Reader, url: Option<&Url>) {
    if url.is_some_and(|url| url.scheme() == "http") && reader.given("tenants.lookup.tls") {
        reader.problem(
            "tenants.lookup.tls",
            "has no effect with http://",
            "use https://, or remove it",
        );
    }
}

/// Scheme, host and port only.
fn bare(reader: &mut Reader, field: &str, url: Url) -> Option<Url> {
    if url.path() != "/" || url.query().is_some() {
        reader.problem(field, "has a path or a query", "write only scheme, host and port");
        return None;
    }
    Some(url)
}

fn headers(
    reader: &mut Reader,
    headers: Option<Vec<Option<raw::Header>>>,
) -> Option<Vec<(String, SecretText)>> {
    reader.each("tenants.lookup.headers", headers, |reader, at, header| {
        let name = header.name.and_then(|name| header_name(reader, &format!("{at}.name"), &name));
        let value = match (header.value, header.value_file) {
            (Some(_), Some(_)) => {
                reader.problem(at, "has both `value` and `value_file`", "keep one of them");
                None
            }
            (None, Some(file)) => {
                reader.header_secret_file(&format!("{at}.value_file"), Some(file))
            }
            (Some(value), None) if value.bytes().all(|b| matches!(b, b' '..=b'~')) => {
                Some(SecretText(Secret::new(value)))
            }
            (Some(_), None) => {
                reader.problem(
                    &format!("{at}.value"),
                    "has characters that no header can carry",
                    "use ASCII",
                );
                None
            }
            (None, None) => {
                if !["value", "value_file"].iter().any(|key| reader.given(&format!("{at}.{key}"))) {
                    reader.problem(
                        at,
                        "has no value",
                        "add `value`, or `value_file` for a secret one",
                    );
                }
                None
            }
        };
        if name.as_deref() == Some("authorization") && reader.given("tenants.lookup.auth") {
            reader.problem(
                &format!("{at}.name"),
                "is what `auth` sends",
                "remove this header, or `auth`",
            );
        }
        name.zip(value)
    })
}

/// In lower case.
fn header_name(reader: &mut Reader, field: &str, text: &str) -> Option<String> {
    const OURS: [&str; 7] = [
        "connection",
        "content-length",
        "host",
        "if-none-match",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    let Ok(name) = http::HeaderName::from_bytes(text.as_bytes()) else {
        reader.problem(field, "is not a header's name", "write it like `x-api-version`");
        return None;
    };
    if OURS.contains(&name.as_str()) {
        reader.problem(field, "is a header that the HTTP client sets itself", "remove it");
        return None;
    }
    Some(name.as_str().to_owned())
}

fn claims(
    reader: &mut Reader,
    claims: Option<BTreeMap<String, Option<raw::Claim>>>,
    tenant_claim: Option<&str>,
) -> Option<BTreeMap<String, SelectedClaim>> {
    let mut all = BTreeMap::new();
    for (name, claim) in claims? {
        let field = format!("tenants.lookup.claims.{name}");
        check_claim_name(reader, &field, &name);
        if tenant_claim == Some(name.as_str()) {
            reader.problem(&field, "is the name of the tenant claim", "choose another name");
        }
        let Some(claim) = claim else { continue };
        let (select, display) = match claim {
            raw::Claim::Select(select) => {
                (json_path::parse(reader, &field, Some(select)), Some(false))
            }
            raw::Claim::Full(raw::FullClaim { select, display }) => {
                (json_path::parse(reader, &format!("{field}.select"), select), display)
            }
        };
        if let Some((select, display)) = select.zip(display) {
            all.insert(name, SelectedClaim { select, display });
        }
    }
    Some(all)
}

fn no_grants_status(reader: &mut Reader, list: Option<Vec<Option<u16>>>) -> Option<Vec<u16>> {
    let list: Vec<u16> = list?.into_iter().collect::<Option<_>>()?;
    for (index, status) in list.iter().enumerate() {
        if matches!(status, 300..=399 | 401 | 408 | 429) {
            let field = format!("tenants.lookup.no_grants_status[{index}]");
            reader.problem(
                &field,
                "is no answer about grants: redirects, 401, 408 and 429 stay \"unavailable\"",
                "remove it",
            );
        }
    }
    Some(list)
}
