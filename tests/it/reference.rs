//! The decision told the plain and slow way, from the rules alone: no code of `src/` is used here,
//! nothing is cached, nothing is clever. `agreement.rs` holds the real one against it.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization as _;

use super::world::RouteLine;

/// What the caller sees of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    Allow,
    AmbiguousPath,
    SeveralCredentials,
    NoCredential,
    BadCredential,
    ScopeMissing,
    AccessDenied,
    CannotDecide,
}
use Answer::*;

type Step<T> = Result<T, Answer>;

pub struct Issuer {
    pub own: bool,
    pub audience: &'static str,
    pub algorithms: Vec<&'static str>,
    pub types: Vec<&'static str>,
    pub tenant_claim: &'static str,
    pub client_claim: &'static str,
    pub looked_up: bool,
    /// `None`: never loaded.
    pub keys: Option<Keys>,
}

/// All of them Ed25519.
pub struct Keys {
    pub by_kid: Vec<(&'static str, Vec<u8>)>,
    pub good_until: Option<u64>,
}

pub struct Client {
    pub withdrawn: bool,
    pub tokens_revoked_until: Option<u64>,
    pub apis: Option<Vec<&'static str>>,
    pub scopes: &'static str,
    pub static_tenants: Option<Vec<&'static str>>,
    /// The API key, and until when it is good.
    pub key: (&'static str, u64),
}

pub struct Api {
    pub name: &'static str,
    pub routes: Vec<RouteLine>,
    pub api_key: bool,
}

/// Everything that a decision depends on besides the request.
pub struct State {
    pub now: u64,
    pub leeway: u64,
    pub max_lifetime: u64,
    /// `None`: the token alone is the truth.
    pub max_age: Option<u64>,
    /// A tenant granted since the token was minted passes.
    pub on_miss: bool,
    pub apis: Vec<Api>,
    pub issuers: BTreeMap<&'static str, Issuer>,
    /// `None`: there is no registry.
    pub clients: Option<BTreeMap<&'static str, Client>>,
    /// What the last good lookup of a client said, and when.
    pub lookups: BTreeMap<&'static str, (Vec<&'static str>, u64)>,
    /// The current digest key, then the previous one.
    pub digest_keys: Vec<[u8; 32]>,
}

pub struct Request<'a> {
    pub profile: Option<&'a str>,
    pub method: &'a str,
    pub target: &'a [u8],
    pub authorization: &'a [Vec<u8>],
    pub api_key: &'a [Vec<u8>],
}

/// Who asks, as far as a credential proves it.
struct Caller {
    client: String,
    scopes: Vec<String>,
    /// `None`: an API key, which names no tenants.
    token: Option<Token>,
}

struct Token {
    issuer: String,
    issued_at: u64,
    /// When the grants in it were looked up; of another issuer's, when it was issued.
    grants_at: u64,
    /// The client named the tenants itself and wants no more.
    narrowed: bool,
    tenants: Vec<String>,
}

pub fn decide(state: &State, request: &Request<'_>) -> Answer {
    walk(state, request).err().unwrap_or(Allow)
}

fn walk(state: &State, request: &Request<'_>) -> Step<()> {
    let only = state.apis.len() == 1;
    let named = |api: &&Api| request.profile.map_or(only, |name| api.name == name);
    let api = state.apis.iter().find(named).ok_or(AccessDenied)?;
    let path = path(request.target).ok_or(AmbiguousPath)?;
    let route = route(&api.routes, request.method, path)?;
    if route.as_ref().is_some_and(|(route, _)| route.public) {
        return Ok(());
    }
    let caller = identify(state, api, request)?;
    let own = caller.token.as_ref().is_none_or(|token| state.issuers[&*token.issuer].own);
    let client = match &state.clients {
        Some(clients) if own => Some(clients.get(&*caller.client).ok_or(BadCredential)?),
        _ => None,
    };
    if let Some(client) = client {
        if client.withdrawn {
            return Err(BadCredential);
        }
        let issued_at = caller.token.as_ref().map(|token| token.issued_at);
        if client.tokens_revoked_until.zip(issued_at).is_some_and(|(until, at)| at <= until) {
            return Err(BadCredential);
        }
        if client.apis.as_ref().is_some_and(|apis| !apis.contains(&api.name)) {
            return Err(AccessDenied);
        }
    }
    let (route, tenant) = route.ok_or(AccessDenied)?;
    // What a token of ours says counts as far as the registry still says it.
    let registered = |scope: &str| client.is_none_or(|c| c.scopes.split(' ').any(|s| s == scope));
    let holds = |wanted: &str| caller.scopes.iter().any(|held| held == wanted);
    if !route.scopes.iter().all(|wanted| holds(wanted) && registered(wanted)) {
        return Err(ScopeMissing);
    }
    check_tenant(state, &caller, client, tenant.ok_or(AccessDenied)?)
}

// The path.

/// The path as it was sent, if every upstream reads it alike.
fn path(target: &[u8]) -> Option<&str> {
    let path = target.split(|byte| *byte == b'?').next()?;
    let path = str::from_utf8(path).ok().filter(|path| path.is_ascii())?;
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let decoded = decode(path)?;
    let lower = path.to_ascii_lowercase();
    let hostile = ["//", "\\", ";", "#", " ", "%2f", "%5c", "%2e", "%3b"];
    let escape_in_escape = folded(&decoded).split('%').skip(1).any(|rest| {
        let digits: Vec<char> = rest.chars().take(2).collect();
        digits.len() == 2 && digits.iter().all(char::is_ascii_hexdigit)
    });
    let refused = path.len() > 8 * 1024
        || segments.len() > 256
        || hostile.iter().any(|text| lower.contains(text))
        || folded(&decoded).matches(['/', '\\', ';']).count() != path.matches('/').count()
        || segments.iter().any(|segment| is_dots(segment))
        || segments.iter().rev().skip(1).any(|segment| folds_to_nothing(segment))
        || decoded.bytes().any(|byte| byte.is_ascii_control())
        || escape_in_escape;
    (!refused).then_some(path)
}

/// A dot segment, also for an upstream that decodes and folds it and trims spaces.
fn is_dots(segment: &str) -> bool {
    let folded = folded(&decode(segment).unwrap_or_default());
    matches!(folded.replace(char::is_whitespace, "").as_str(), "." | "..")
}

fn folds_to_nothing(segment: &str) -> bool {
    decode(segment).is_some_and(|decoded| folded(&decoded).is_empty())
}

/// Each character in lower case, by way of NFKC and upper case, without what is never seen.
fn folded(text: &str) -> String {
    let compatible = |c: char| c.to_string().nfkc().collect::<String>();
    let folded = |c: char| compatible(c).to_uppercase().to_lowercase();
    text.chars().map(folded).collect::<String>().replace(is_never_seen, "")
}

/// Unicode's default ignorable code points.
fn is_never_seen(c: char) -> bool {
    const RANGES: [(u32, u32); 17] = [
        (0xad, 0xad),
        (0x34f, 0x34f),
        (0x61c, 0x61c),
        (0x115f, 0x1160),
        (0x17b4, 0x17b5),
        (0x180b, 0x180f),
        (0x200b, 0x200f),
        (0x202a, 0x202e),
        (0x2060, 0x206f),
        (0x3164, 0x3164),
        (0xfe00, 0xfe0f),
        (0xfeff, 0xfeff),
        (0xffa0, 0xffa0),
        (0xfff0, 0xfff8),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0000, 0xe0fff),
    ];
    // The dot above, which `İ` leaves over an `i` and some upstreams do not.
    c == '\u{307}' || RANGES.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
}

/// `None`: an invalid escape, or what it stands for is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        decoded.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(decoded).ok()
}

fn is_tenant_code(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(known) && text.bytes().any(|b| b != b'.')
}

// The route.

/// How specific a match is, place by place from the left: the greater, the more.
const LITERAL: u8 = 9;
const VARIABLE: u8 = 8;
const THE_END: u8 = 7;
/// Would end here, had the path a trailing slash more, or less.
const SLASH_MISSING: u8 = 6;
const SLASH_TOO_MANY: u8 = 5;
const THE_REST: u8 = 4;

struct Fit<'a> {
    route: &'a RouteLine,
    ranks: Vec<u8>,
    /// Fits as it is, not only but for case or a trailing slash.
    exactly: bool,
}

fn places(route: &RouteLine) -> Vec<&'static str> {
    let fixed = route.path.strip_suffix("/**").unwrap_or(route.path);
    fixed.split('/').skip(1).collect()
}

/// A template without a letter has no case to ignore.
fn ignores_case(route: &RouteLine) -> bool {
    let lettered = |place: &&str| place.bytes().any(|b| b.is_ascii_alphabetic());
    route.ignore_case && places(route).iter().filter(|place| !is_variable(place)).any(lettered)
}

fn is_variable(place: &str) -> bool {
    place.starts_with('{')
}

fn tenant_at(route: &RouteLine) -> Option<usize> {
    places(route).iter().position(|place| *place == "{tenant}")
}

fn fit<'a>(route: &'a RouteLine, segments: &[&str]) -> Option<Fit<'a>> {
    let places = places(route);
    let (last, before) = segments.split_last()?;
    let bare = (last.is_empty() || other_reading(last).is_some_and(|read| read.is_empty()))
        .then_some(before);
    let (end, slash) = match (route.path.ends_with("/**"), bare) {
        (true, _) => (THE_REST, segments),
        (false, _) if places.len() == segments.len() => (THE_END, segments),
        (false, Some(bare)) if places.len() == bare.len() => (SLASH_TOO_MANY, bare),
        (false, _) if places.strip_suffix(&[""]).is_some_and(|p| p.len() == segments.len()) => {
            (SLASH_MISSING, segments)
        }
        (false, _) => return None,
    };
    let compared = places.len() - usize::from(end == SLASH_MISSING);
    if slash.len() < compared {
        return None;
    }
    let mut exactly = matches!(end, THE_END | THE_REST);
    let mut ranks = Vec::new();
    for (place, segment) in places[..compared].iter().zip(slash) {
        if is_variable(place) {
            ranks.push((!segment.is_empty()).then_some(VARIABLE)?);
        } else {
            ranks.push(place.eq_ignore_ascii_case(segment).then_some(LITERAL)?);
            exactly &= place == segment || ignores_case(route);
        }
    }
    ranks.push(end);
    Some(Fit { route, ranks, exactly })
}

/// Whether two templates match the same paths.
fn same_shape(a: &RouteLine, b: &RouteLine) -> bool {
    let alike = |(a, b): (&&str, &&str)| is_variable(a) && is_variable(b) || a == b;
    let literal_case = |route| {
        if ignores_case(route) { route.path.to_ascii_lowercase() } else { route.path.into() }
    };
    let (x, y) = (literal_case(a), literal_case(b));
    let split = |text: &'_ str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (x, y) = (split(&x), split(&y));
    ignores_case(a) == ignores_case(b)
        && x.len() == y.len()
        && x.iter().zip(&y).all(|(x, y)| alike((&x.as_str(), &y.as_str())))
}

/// Of the routes that match the same paths as this one, the one for the method.
fn of_shape<'a>(routes: &'a [RouteLine], like: &RouteLine, method: &str) -> Option<&'a RouteLine> {
    let shape = || routes.iter().filter(|route| same_shape(route, like));
    let get = || shape().find(|route| route.head && route.methods.contains(&"GET"));
    let named = shape().find(|route| route.methods.contains(&method));
    named.or_else(|| get().filter(|_| method == "HEAD"))
}

/// Whether a route lets pass what the other one refuses.
fn is_laxer(route: &RouteLine, other: &RouteLine) -> bool {
    let missing = other.scopes.iter().any(|scope| !route.scopes.contains(scope));
    !other.public && (route.public || missing)
        || route.allow_encoded_percent && !other.allow_encoded_percent
}

/// The route that decides and the tenant that the path names. `None`: no route.
fn route<'a, 'p>(
    routes: &'a [RouteLine],
    method: &str,
    path: &'p str,
) -> Step<Option<(&'a RouteLine, Option<&'p str>)>> {
    let segments: Vec<&str> = path[1..].split('/').collect();
    let fits: Vec<Fit<'_>> = routes.iter().filter_map(|route| fit(route, &segments)).collect();
    let best = fits
        .iter()
        .filter(|fit| fit.exactly)
        .max_by_key(|fit| (&fit.ranks, !ignores_case(fit.route)));
    let chosen = best.and_then(|best| of_shape(routes, best.route, method));
    if path.contains("%25") && !chosen.is_some_and(|route| route.allow_encoded_percent) {
        return Err(AmbiguousPath);
    }
    let Some(best) = best else { return Ok(None) };
    let at = tenant_at(best.route);
    let near = |fit: &Fit<'_>| {
        let other_tenant = tenant_at(fit.route).is_some() && tenant_at(fit.route) != at;
        let laxer = chosen.is_some_and(|chosen| {
            of_shape(routes, fit.route, method).is_none_or(|near| is_laxer(chosen, near))
        });
        fit.ranks > best.ranks && (other_tenant || laxer)
    };
    if fits.iter().any(near) || escapes_a_literal(routes, &segments, &best.ranks) {
        return Err(AmbiguousPath);
    }
    let Some(at) = at else { return Ok(chosen.map(|route| (route, None))) };
    let before = places(best.route).into_iter().zip(&segments).take(at);
    if !is_tenant_code(segments[at])
        || before.into_iter().any(|(place, sent)| is_variable(place) && sent.contains('%'))
    {
        return Err(AmbiguousPath);
    }
    Ok(chosen.map(|route| (route, Some(segments[at]))))
}

/// Whether an upstream may read a segment as what a route no less specific than the best has at
/// that place, although no route there has what was sent.
fn escapes_a_literal(routes: &[RouteLine], segments: &[&str], best: &[u8]) -> bool {
    let has = |route: &RouteLine, at: usize, text: &str| {
        places(route).get(at).is_some_and(|p| !is_variable(p) && p.eq_ignore_ascii_case(text))
    };
    segments.iter().enumerate().any(|(at, sent)| {
        let Some(meant) = other_reading(sent) else { return false };
        routes.iter().any(|route| {
            let Some(ranks) = ranks_until(route, segments, at) else { return false };
            let here =
                |other: &&RouteLine| ranks_until(other, segments, at).as_ref() == Some(&ranks);
            has(route, at, &meant)
                && (best.starts_with(&ranks) || ranks.as_slice() > best)
                && !routes.iter().filter(here).any(|other| has(other, at, sent))
        })
    })
}

/// How specific a route is up to a place, if it fits until there.
fn ranks_until(route: &RouteLine, segments: &[&str], at: usize) -> Option<Vec<u8>> {
    let places = places(route);
    let before = places.get(..at)?.iter().zip(segments);
    let rank = |(place, segment): (&&str, &&str)| match is_variable(place) {
        true => (!segment.is_empty()).then_some(VARIABLE),
        false => place.eq_ignore_ascii_case(segment).then_some(LITERAL),
    };
    before.map(rank).collect()
}

/// Decoded and folded, up to a `?` or `#`, without blanks around it and dots behind it.
fn other_reading(segment: &str) -> Option<String> {
    let decoded = decode(segment).filter(|_| segment.contains('%') || segment.ends_with('.'))?;
    let folded = folded(&decoded);
    let first = folded.split(['?', '#']).next()?;
    let end = |c: char| c == '.' || c.is_whitespace();
    Some(first.trim_end_matches(end).trim_start().to_owned())
}

// The credential.

fn identify(state: &State, api: &Api, request: &Request<'_>) -> Step<Caller> {
    let keys = if api.api_key { request.api_key } else { &[] };
    match (request.authorization, keys) {
        ([], []) => Err(NoCredential),
        ([value], []) => token(state, bearer(value)?).ok_or(BadCredential)?,
        ([], [key]) => {
            let clients = state.clients.as_ref().ok_or(BadCredential)?;
            let holder = clients.iter().find(|(_, client)| client.key.0.as_bytes() == key);
            let (id, client) = holder.ok_or(BadCredential)?;
            if state.now >= client.key.1 {
                return Err(BadCredential);
            }
            let scopes = client.scopes.split(' ').map(str::to_owned).collect();
            Ok(Caller { client: (*id).to_owned(), scopes, token: None })
        }
        _ => Err(SeveralCredentials),
    }
}

fn bearer(value: &[u8]) -> Step<&str> {
    if value.contains(&b',') {
        return Err(SeveralCredentials);
    }
    if value.len() < 7 || !value[..7].eq_ignore_ascii_case(b"bearer ") {
        return Err(NoCredential);
    }
    let token = value[7..].trim_ascii();
    if token.is_empty() {
        return Err(NoCredential);
    }
    str::from_utf8(token).map_err(|_| BadCredential)
}

/// `None`: not a good token. An inner error: cannot be decided.
fn token(state: &State, text: &str) -> Option<Step<Caller>> {
    let parts: Vec<&str> = text.split('.').collect();
    let [header, payload, signature] = parts[..] else { return None };
    if text.len() > 16 * 1024 || header.len() > 4 * 1024 {
        return None;
    }
    let signed = &text[..header.len() + 1 + payload.len()];
    let (header, claims) = (json(header)?, json(payload)?);
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let forbidden = ["crit", "b64", "zip", "jku", "x5u", "jwk", "x5c", "enc", "cty"];
    if forbidden.iter().any(|name| header.get(name).is_some()) {
        return None;
    }
    let kid = header["kid"].as_str().filter(|kid| (1..=128).contains(&kid.chars().count()))?;
    let typ = header["typ"].as_str()?.to_ascii_lowercase();
    let iss = claims["iss"].as_str()?;
    let issuer = state.issuers.get(iss)?;
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    if !issuer.algorithms.contains(&header["alg"].as_str()?) || !issuer.types.contains(&typ) {
        return None;
    }
    let is_good = |keys: &&Keys| keys.good_until.is_none_or(|until| state.now < until);
    let Some(keys) = issuer.keys.as_ref().filter(is_good) else { return Some(Err(CannotDecide)) };
    let mut named = keys.by_kid.iter().filter(|(name, _)| *name == kid);
    let ((_, key), None) = (named.next()?, named.next()) else { return None };
    if header["alg"] != "EdDSA" {
        return None;
    }
    let key = signature::UnparsedPublicKey::new(&signature::ED25519, key);
    key.verify(signed.as_bytes(), &signature).ok()?;
    Some(Ok(caller(state, iss, issuer, &claims)?))
}

/// What a payload with a good signature says.
fn caller(state: &State, iss: &str, issuer: &Issuer, claims: &Value) -> Option<Caller> {
    let named = match &claims["aud"] {
        Value::String(audience) => audience == issuer.audience,
        Value::Array(all) => {
            all.iter().all(Value::is_string) && all.iter().any(|one| one == issuer.audience)
        }
        _ => false,
    };
    let (issued_at, expires_at) = (date(&claims["iat"])?, date(&claims["exp"])?);
    let not_before = claims.get("nbf").map_or(Some(issued_at), date)?;
    let latest = state.now + state.leeway;
    let in_time = issued_at <= latest
        && not_before <= latest
        && state.now < expires_at + state.leeway
        && issued_at < expires_at
        && expires_at - issued_at <= state.max_lifetime;
    let subject = claims["sub"].as_str().filter(|subject| !subject.is_empty())?;
    let client = claims.pointer(issuer.client_claim)?.as_str()?;
    let visible = (1..=256).contains(&client.len()) && client.bytes().all(|b| b.is_ascii_graphic());
    let ours = !issuer.own
        || client == subject
            && is_client_id(client)
            && claims["jti"].as_str().is_some_and(|jti| !jti.is_empty());
    if !named || !in_time || !visible || !ours || issuer.looked_up && !is_client_id(client) {
        return None;
    }
    let scope = claims.get("scope").or(claims.get("scp").filter(|_| !issuer.own));
    let scopes = scope.map_or(Some(Vec::new()), |scope| list(scope, &[' ']))?;
    let scope_byte = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let tenants = claims.pointer(issuer.tenant_claim);
    let tenants = tenants.map_or(Some(Vec::new()), |tenants| list(tenants, &[',', ' ']))?;
    let digests = |text: &String| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 15);
    if !scopes.iter().all(|scope| scope.bytes().all(scope_byte))
        || issuer.own && !tenants.iter().all(digests)
    {
        return None;
    }
    let grants_at = match claims.get("grants_at") {
        Some(at) if issuer.own => date(at)?.min(issued_at),
        _ => issued_at,
    };
    let narrowed = match claims.get("narrowed").filter(|_| issuer.own) {
        Some(narrowed) => narrowed.as_bool()?,
        None => false,
    };
    let token = Token { issuer: iss.to_owned(), issued_at, grants_at, narrowed, tenants };
    Some(Caller { client: client.to_owned(), scopes, token: Some(token) })
}

fn is_client_id(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._~@:+-".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(known) && text.bytes().any(|b| b != b'.')
}

/// A JSON object in which no member is named twice: then it has as many as there are colons
/// outside of strings.
fn json(part: &str) -> Option<Value> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    let value: Value = serde_json::from_str(&text).ok().filter(Value::is_object)?;
    let (mut colons, mut in_string, mut escaped) = (0, false, false);
    for c in text.chars() {
        colons += usize::from(c == ':' && !in_string);
        in_string ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    (members(&value) == colons).then_some(value)
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        Value::Array(array) => array.iter().map(members).sum(),
        _ => 0,
    }
}

/// Seconds since 1970, at most the year 9999.
fn date(value: &Value) -> Option<u64> {
    let seconds = value.as_f64()?.floor();
    (0.0..=253_402_300_799.0).contains(&value.as_f64()?).then_some(seconds as u64)
}

fn list(value: &Value, separators: &[char]) -> Option<Vec<String>> {
    match value {
        Value::String(text) => {
            let parts = text.split(separators).filter(|part| !part.is_empty());
            Some(parts.map(str::to_owned).collect())
        }
        Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

// The tenant.

fn check_tenant(state: &State, caller: &Caller, client: Option<&Client>, tenant: &str) -> Step<()> {
    if let Some(token) = &caller.token {
        let own = state.issuers[&*token.issuer].own;
        let forms = digests(state, &token.issuer, &caller.client, tenant);
        let named = |entry: &String| if own { forms.contains(entry) } else { entry == tenant };
        if !token.tenants.iter().any(named) {
            return granted_since(state, caller, token, client, tenant);
        }
    }
    if let Some(tenants) = client.and_then(|client| client.static_tenants.as_ref()) {
        return tenants.contains(&tenant).then_some(()).ok_or(AccessDenied);
    }
    let looked_up =
        caller.token.as_ref().is_none_or(|token| state.issuers[&*token.issuer].looked_up);
    let Some(max_age) = state.max_age.filter(|_| looked_up) else {
        return caller.token.as_ref().map(|_| ()).ok_or(CannotDecide);
    };
    let own = caller.token.as_ref().is_none_or(|token| state.issuers[&*token.issuer].own);
    let lookup = state.lookups.get(&*caller.client);
    let is_young = |at: u64| state.now.saturating_sub(at) <= max_age;
    match (lookup, &caller.token) {
        (Some((_, at)), None) if !is_young(*at) => Err(CannotDecide),
        // A lookup older than the one behind the token says nothing against it. Only our own
        // tokens tell when that was.
        (Some((held, at)), token)
            if token.as_ref().is_none_or(|token| !own || *at >= token.grants_at)
                && !held.contains(&tenant) =>
        {
            Err(AccessDenied)
        }
        (Some((_, at)), Some(token)) if is_young(*at) || own && is_young(token.grants_at) => Ok(()),
        (None, Some(token)) if is_young(token.grants_at) => Ok(()),
        (Some(_), None) => Ok(()),
        (Some(_) | None, _) => Err(CannotDecide),
    }
}

/// A tenant that the token lacks passes only where the config asks for it, by a young lookup that
/// is no older than the one behind the token.
fn granted_since(
    state: &State,
    caller: &Caller,
    token: &Token,
    client: Option<&Client>,
    tenant: &str,
) -> Step<()> {
    let is_static = client.is_some_and(|client| client.static_tenants.is_some());
    let may = state.on_miss && state.issuers[&*token.issuer].own && !token.narrowed && !is_static;
    match (state.lookups.get(&*caller.client), state.max_age) {
        (Some((held, at)), Some(max_age))
            if may
                && *at >= token.grants_at
                && state.now.saturating_sub(*at) <= max_age
                && held.contains(&tenant) =>
        {
            Ok(())
        }
        _ => Err(AccessDenied),
    }
}

/// What stands for the tenant in our own tokens, under each digest key: the key's id and the
/// start of HMAC(key, issuer, client, tenant).
fn digests(state: &State, issuer: &str, client: &str, tenant: &str) -> Vec<String> {
    let digest = |key: &[u8; 32]| {
        let id =
            digest::digest(&digest::SHA256, &[b"tenantgate digest key id\0", &key[..]].concat());
        let mut input = Vec::new();
        for part in [issuer, client, tenant] {
            input.extend((part.len() as u64).to_be_bytes());
            input.extend(part.as_bytes());
        }
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &input);
        URL_SAFE_NO_PAD.encode([&id.as_ref()[..3], &tag.as_ref()[..12]].concat())
    };
    state.digest_keys.iter().map(digest).collect()
}
