use std::collections::BTreeMap;

use url::Url;

use super::dialects::{self, CLIENT_ID};
use super::{auth, check_claim_name, json_path};
use crate::config::reader::Reader;
use crate::config::{
    AnswerFormat, AnswerReading, BodyTemplate, CodesOf, GrpcLookup, HttpLookup, Lookup,
    LookupHeader, LookupLimits, Pages, SecretText, SelectedClaim, UrlTemplate, raw,
};
use crate::domain::Secret;

const AT: &str = "tenants.lookup";
/// What only an API of the provider's own needs to be asked.
const URL_KEYS: &[&str] = &["url", "allow_http", "method", "body"];
/// How an answer is read, which a standard says for itself.
const READING_KEYS: &[&str] = &["select", "of", "code_pattern", "format", "complete_if", "pages"];
/// What every lookup over HTTP has.
const HTTP_KEYS: &[&str] =
    &["headers", "claims", "quota", "no_grants_status", "max_body_bytes", "proxy"];

pub fn parse(
    reader: &mut Reader,
    mut remote: raw::RemoteLookup,
    tenant_claim: Option<&str>,
) -> Option<Lookup> {
    let limits = limits(reader, &remote);
    let auth = auth::parse(reader, remote.auth.take());
    let tls = auth::tls(reader, AT, remote.tls.take());
    let kinds = ["url", "grpc", "authzen"].map(|kind| reader.given(&format!("{AT}.{kind}")));
    if let [_, true, true] = kinds {
        reader.problem(AT, "has `grpc` and `authzen`", "keep the one that your API speaks");
        return None;
    }
    if let [_, true, false] = kinds {
        let http = [URL_KEYS, READING_KEYS, HTTP_KEYS].concat();
        reader.without_effect(AT, &http, "beside `grpc`");
        let grpc = remote.grpc?;
        let url = reader.url("tenants.lookup.grpc.url", grpc.url, grpc.allow_http);
        let url = url.and_then(|url| bare(reader, "tenants.lookup.grpc.url", url));
        tls_has_effect(reader, url.as_ref());
        let (url, limits, auth, tls) = (url?, limits?, auth?, tls?);
        return Some(Lookup::Grpc(Box::new(GrpcLookup { limits, url, auth, tls })));
    }
    let asked = match kinds {
        [_, _, true] => {
            reader.without_effect(AT, &[URL_KEYS, READING_KEYS].concat(), "beside `authzen`");
            let headers = headers(reader, remote.headers.take());
            authzen(reader, remote.authzen.take()?, headers)
        }
        _ => own_api(reader, &mut remote),
    };
    let claims = claims(reader, remote.claims, tenant_claim);
    let quota = dialects::quota(reader, remote.quota);
    let no_grants_status = no_grants_status(reader, remote.no_grants_status);
    let proxy = remote.proxy.map(|proxy| proxy_url(reader, "tenants.lookup.proxy", proxy));
    let asked = asked?;
    Some(Lookup::Http(Box::new(HttpLookup {
        limits: limits?,
        authzen: kinds[2],
        reading: AnswerReading { claims: claims?, quota: quota?, ..asked.reading },
        no_grants_status: no_grants_status?,
        max_body: usize::try_from(remote.max_body_bytes?).ok()?,
        auth: auth?,
        tls: tls?,
        proxy: match proxy {
            Some(proxy) => Some(proxy?),
            None => None,
        },
        url: asked.url,
        headers: asked.headers,
        body: asked.body,
        pages: asked.pages,
    })))
}

/// How the question is put and what of the answer counts.
struct Asked {
    url: UrlTemplate,
    headers: Vec<LookupHeader>,
    body: Option<BodyTemplate>,
    reading: AnswerReading,
    pages: Option<Pages>,
}

fn own_api(reader: &mut Reader, remote: &mut raw::RemoteLookup) -> Option<Asked> {
    for (key, cure) in [
        ("url", "add it, with `{client_id}` in it (or use `authzen` or `grpc`)"),
        ("select", "add the JSONPath of the tenant codes, such as `$.tenants[*].code`"),
    ] {
        let field = format!("{AT}.{key}");
        if !reader.given(&field) {
            reader.problem(&field, "missing", cure);
        }
    }
    let headers = headers(reader, remote.headers.take());
    let body = remote.method.and_then(|method| dialects::body(reader, method, remote.body.take()));
    let url = url(reader, remote.url.take(), remote.allow_http);
    if let (Some((template, _)), Some(headers), Some(body)) = (&url, &headers, &body) {
        let body = body.as_ref().is_some_and(|body| body.template.first.contains(CLIENT_ID));
        let named = template.0.contains(CLIENT_ID)
            || headers.iter().any(|header| header.per_client)
            || body;
        if !named {
            reader.problem(
                "tenants.lookup.url",
                "has no `{client_id}`",
                "write it where the client's id belongs, such as \
                 `https://api.example.com/{client_id}/authorizedTenants`, \
                 or into `body` or a header",
            );
        }
    }
    let select = json_path::parse(reader, "tenants.lookup.select", remote.select.take());
    let code_pattern = dialects::code_pattern(reader, remote.code_pattern.take());
    let complete_if = dialects::complete_if(reader, remote.complete_if.take());
    let template = body.as_ref().and_then(|body| Some(&body.as_ref()?.template));
    let request = dialects::Request { url: url.as_ref().map(|(_, url)| url), body: template };
    let pages = dialects::pages(reader, remote.pages.take(), &request);
    let (body, refuse) = match body? {
        Some(body) => (Some(body.template), body.refuse),
        None => (None, Vec::new()),
    };
    let reading = AnswerReading {
        format: dialects::format(remote.format?),
        select: select?,
        of: dialects::codes_of(remote.of?),
        code_pattern: code_pattern?,
        complete_if: complete_if?,
        refuse,
        claims: BTreeMap::new(),
        quota: None,
    };
    Some(Asked { url: url?.0, headers: headers?, body, reading, pages: pages? })
}

fn authzen(
    reader: &mut Reader,
    authzen: raw::AuthZen,
    headers: Option<Vec<LookupHeader>>,
) -> Option<Asked> {
    let search = dialects::authzen(reader, authzen)?;
    tls_has_effect(reader, Some(&search.url));
    let reading = AnswerReading {
        format: AnswerFormat::Json,
        select: search.select,
        of: CodesOf::Values,
        code_pattern: None,
        complete_if: Some(search.complete_if),
        refuse: search.body.refuse,
        claims: BTreeMap::new(),
        quota: None,
    };
    Some(Asked {
        url: UrlTemplate(search.url.into()),
        headers: headers?,
        body: Some(search.body.template),
        reading,
        pages: Some(search.pages),
    })
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

/// The variable may be in the path or the query only, so that no client id chooses the host.
/// Beside the template the URL of a client that does not exist.
fn url(
    reader: &mut Reader,
    text: Option<raw::UrlText>,
    allow_http: Option<bool>,
) -> Option<(UrlTemplate, Url)> {
    let field = "tenants.lookup.url";
    let raw::UrlText(text) = text?;
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
    Some((UrlTemplate(text), url))
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

pub fn proxy_url(reader: &mut Reader, field: &str, proxy: raw::UrlText) -> Option<Url> {
    let url = reader.any_url(field, Some(proxy))?;
    bare(reader, field, url)
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
) -> Option<Vec<LookupHeader>> {
    reader.each("tenants.lookup.headers", headers, |reader, at, header| {
        let name = header.name.and_then(|name| header_name(reader, &format!("{at}.name"), &name));
        let value = match (header.value, header.value_file) {
            (Some(_), Some(_)) => {
                reader.problem(at, "has both `value` and `value_file`", "keep one of them");
                None
            }
            (None, Some(file)) => {
                let secret = reader.header_secret_file(&format!("{at}.value_file"), Some(file));
                secret.map(|value| (value, false))
            }
            (Some(value), None) => header_value(reader, &format!("{at}.value"), value),
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
        let (name, (value, per_client)) = name.zip(value)?;
        Some(LookupHeader { name, value, per_client })
    })
}

/// The value, and whether it has the client's id in it.
fn header_value(reader: &mut Reader, field: &str, value: String) -> Option<(SecretText, bool)> {
    if !value.bytes().all(|b| matches!(b, b' '..=b'~')) {
        reader.problem(field, "has characters that no header can carry", "use ASCII");
        return None;
    }
    if has_variable(&value.replace(CLIENT_ID, "")) {
        reader.problem(field, "has another variable than `{client_id}`", "use only that one");
        return None;
    }
    let per_client = value.contains(CLIENT_ID);
    Some((SecretText(Secret::new(value)), per_client))
}

/// Whether a name is in braces. Other braces may be somebody's JSON.
fn has_variable(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    text.split('{').skip(1).any(|rest| rest.split_once('}').is_some_and(|(name, _)| is_name(name)))
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
                "is not an answer about grants: redirects, 401, 408 and 429 stay \"unavailable\"",
                "remove it",
            );
        }
    }
    Some(list)
}
