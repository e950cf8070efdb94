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
use crate::yaml::Field;

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
    let authzen = remote.authzen.is_given();
    let asked = match (remote.grpc.is_given(), authzen) {
        (true, true) => {
            reader.problem(AT, "has `grpc` and `authzen`", "keep the one that your API speaks");
            None
        }
        (true, false) => return grpc(reader, remote, limits),
        (false, true) => {
            reader.without_effect(AT, &[URL_KEYS, READING_KEYS].concat(), "beside `authzen`");
            let headers = headers(reader, &mut remote);
            self::authzen(reader, &mut remote, headers)
        }
        (false, false) => own_api(reader, &mut remote),
    };
    let auth = auth::parse(reader, remote.auth);
    let tls = auth::tls(reader, AT, remote.tls);
    let claims = claims(reader, remote.claims, tenant_claim);
    let quota = remote.quota.optional(|quota| dialects::quota(reader, quota));
    let no_grants_status = no_grants_status(reader, remote.no_grants_status);
    let proxy = proxy_url(reader, "tenants.lookup.proxy", remote.proxy);
    let asked = asked?;
    Some(Lookup::Http(Box::new(HttpLookup {
        limits: limits?,
        authzen,
        reading: AnswerReading { claims: claims?, quota: quota?, ..asked.reading },
        no_grants_status: no_grants_status?,
        max_body: usize::try_from(remote.max_body_bytes.value()?).ok()?,
        auth: auth?,
        tls: tls?,
        proxy: proxy?,
        url: asked.url,
        headers: asked.headers,
        body: asked.body,
        pages: asked.pages,
    })))
}

fn grpc(
    reader: &mut Reader,
    remote: raw::RemoteLookup,
    limits: Option<LookupLimits>,
) -> Option<Lookup> {
    reader.without_effect(AT, &[URL_KEYS, READING_KEYS, HTTP_KEYS].concat(), "beside `grpc`");
    let url = remote.grpc.value().and_then(|grpc| {
        let url = reader.url("tenants.lookup.grpc.url", grpc.url, grpc.allow_http)?;
        bare(reader, "tenants.lookup.grpc.url", url)
    });
    tls_has_effect(reader, url.as_ref(), &remote.tls);
    let auth = auth::parse(reader, remote.auth);
    let tls = auth::tls(reader, AT, remote.tls);
    let (limits, url, auth, tls) = (limits?, url?, auth?, tls?);
    Some(Lookup::Grpc(Box::new(GrpcLookup { limits, url, auth, tls })))
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
    if remote.url.is_absent() {
        let cure = "add it, with `{client_id}` in it (or use `authzen` or `grpc`)";
        reader.problem("tenants.lookup.url", "missing", cure);
    }
    if remote.select.is_absent() {
        let cure = "add the JSONPath of the tenant codes, such as `$.tenants[*].code`";
        reader.problem("tenants.lookup.select", "missing", cure);
    }
    let headers = headers(reader, remote);
    let method = remote.method.value();
    let body = method.and_then(|method| dialects::body(reader, method, remote.body.take()));
    let url = url(reader, remote);
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
    let code_pattern = remote.code_pattern.take();
    let code_pattern = code_pattern.optional(|text| dialects::code_pattern(reader, &text));
    let complete_if = remote.complete_if.take();
    let complete_if = complete_if.optional(|rule| dialects::complete_if(reader, rule));
    let template = body.as_ref().and_then(|body| Some(&body.as_ref()?.template));
    let request = dialects::Request { url: url.as_ref().map(|(_, url)| url), body: template };
    let pages = dialects::pages(reader, remote.pages.take(), &request);
    let (body, refuse) = match body? {
        Some(body) => (Some(body.template), body.refuse),
        None => (None, Vec::new()),
    };
    let reading = AnswerReading {
        format: dialects::format(remote.format.value()?),
        select: select?,
        of: dialects::codes_of(remote.of.value()?),
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
    remote: &mut raw::RemoteLookup,
    headers: Option<Vec<LookupHeader>>,
) -> Option<Asked> {
    let search = dialects::authzen(reader, remote.authzen.take().value()?)?;
    tls_has_effect(reader, Some(&search.url), &remote.tls);
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
        max_tries: remote.max_tries.value()?,
        concurrency: usize::try_from(remote.concurrency.value()?).ok()?,
        cache_clients: usize::try_from(remote.cache_clients.value()?).ok()?,
    })
}

/// The variable may be in the path or the query only, so that no client id chooses the host.
/// Beside the template the URL of a client that does not exist.
fn url(reader: &mut Reader, remote: &mut raw::RemoteLookup) -> Option<(UrlTemplate, Url)> {
    let field = "tenants.lookup.url";
    let raw::UrlText(text) = remote.url.take().value()?;
    if text.replace(CLIENT_ID, "").contains(['{', '}']) {
        reader.problem(field, "has another variable than `{client_id}`", "use only that one");
        return None;
    }
    let stand_in = "client-id-stand-in";
    let url = raw::UrlText(text.replace(CLIENT_ID, stand_in));
    let url = reader.url(field, url.into(), remote.allow_http)?;
    let before_path = &url[..url::Position::BeforePath];
    if before_path.contains(stand_in) {
        reader.problem(
            field,
            "has `{client_id}` before the path",
            "write it into the path or the query",
        );
        return None;
    }
    tls_has_effect(reader, Some(&url), &remote.tls);
    Some((UrlTemplate(text), url))
}

fn tls_has_effect(reader: &mut Reader, url: Option<&Url>, tls: &Field<raw::ClientTls>) {
    if url.is_some_and(|url| url.scheme() == "http") && tls.is_given() {
        reader.problem(
            "tenants.lookup.tls",
            "has no effect with http://",
            "use https://, or remove it",
        );
    }
}

pub fn proxy_url(
    reader: &mut Reader,
    field: &str,
    proxy: Field<raw::UrlText>,
) -> Option<Option<Url>> {
    proxy.optional(|proxy| {
        let url = reader.any_url(field, proxy.into())?;
        bare(reader, field, url)
    })
}

/// Scheme, host and port only.
fn bare(reader: &mut Reader, field: &str, url: Url) -> Option<Url> {
    if url.path() != "/" || url.query().is_some() {
        reader.problem(field, "has a path or a query", "write only scheme, host and port");
        return None;
    }
    Some(url)
}

fn headers(reader: &mut Reader, remote: &mut raw::RemoteLookup) -> Option<Vec<LookupHeader>> {
    let authenticates = remote.auth.is_given();
    reader.each("tenants.lookup.headers", remote.headers.take(), |reader, at, header| {
        let name = header.name.value();
        let name = name.and_then(|name| header_name(reader, &format!("{at}.name"), &name));
        let value = match (header.value, header.value_file) {
            (Field::Absent, Field::Absent) => {
                let cure = "add `value`, or `value_file` for a secret one";
                reader.problem(at, "has no value", cure);
                None
            }
            (Field::Absent, file) => {
                let secret = reader.header_secret_file(&format!("{at}.value_file"), file);
                secret.map(|value| (value, false))
            }
            (value, Field::Absent) => {
                let value = value.value();
                value.and_then(|value| header_value(reader, &format!("{at}.value"), value))
            }
            (_, _) => {
                reader.problem(at, "has both `value` and `value_file`", "keep one of them");
                None
            }
        };
        if name.as_deref() == Some("authorization") && authenticates {
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
    claims: Field<BTreeMap<String, Field<raw::Claim>>>,
    tenant_claim: Option<&str>,
) -> Option<BTreeMap<String, SelectedClaim>> {
    let mut all = BTreeMap::new();
    for (name, claim) in claims.value()? {
        let field = format!("tenants.lookup.claims.{name}");
        check_claim_name(reader, &field, &name);
        if tenant_claim == Some(name.as_str()) {
            reader.problem(&field, "is the name of the tenant claim", "choose another name");
        }
        let Some(claim) = claim.value() else { continue };
        let (select, display) = match claim {
            raw::Claim::Select(select) => {
                (json_path::parse(reader, &field, select.into()), Some(false))
            }
            raw::Claim::Full(raw::FullClaim { select, display }) => {
                (json_path::parse(reader, &format!("{field}.select"), select), display.value())
            }
        };
        if let Some((select, display)) = select.zip(display) {
            all.insert(name, SelectedClaim { select, display });
        }
    }
    Some(all)
}

fn no_grants_status(reader: &mut Reader, list: Field<Vec<Field<u16>>>) -> Option<Vec<u16>> {
    let list: Vec<u16> = list.value()?.into_iter().map(Field::value).collect::<Option<_>>()?;
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
