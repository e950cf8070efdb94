//! A compact JWS becomes facts, or is refused with one reason. The table in `docs/security.md`
//! names the rule behind every line here.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::facts::Facts;
use super::issuer::{Issuer, IssuerPolicy, TenantsOf, Trust};
use super::json::parse_strict;
use super::trust::{KeySet, TrustedKey};
use crate::domain::{
    Algorithm, ClientId, DenyReason, GRANTS_AT, GrantBook, Holder, Moment, NARROWED, ScopeSet,
    Subject, TenantDigest, TenantDigester, TenantForm, TenantSet, Timestamp, TokenRef,
    is_tenant_code,
};

pub(super) const MAX_TOKEN: usize = 16 * 1024;
const MAX_HEADER: usize = 4 * 1024;
const MAX_KID: usize = 128;
/// 9999-12-31T23:59:59Z: later dates are mistakes or attacks on arithmetic.
const LAST_SECOND: u64 = 253_402_300_799;

/// Header members that change what the signature or the payload means, or point at keys.
const REFUSED_HEADERS: [&str; 9] = ["crit", "b64", "zip", "jku", "x5u", "jwk", "x5c", "enc", "cty"];

/// Why a token is refused: the reason, and for logs and `explain` the rule.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRefusal {
    pub reason: DenyReason,
    pub rule: &'static str,
    /// The issuer whose keys lack the token's `kid`; it may have a new key.
    pub unknown_key_of: Option<Arc<IssuerPolicy>>,
}

const fn refuse(reason: DenyReason, rule: &'static str) -> TokenRefusal {
    TokenRefusal { reason, rule, unknown_key_of: None }
}

/// What verification needs besides the token.
pub struct Verifier<'a> {
    pub trust: &'a Trust,
    pub digester: &'a TenantDigester,
    pub grants: &'a dyn GrantBook,
    pub now: Moment,
}

/// A token whose signature is not checked yet: good only for choosing a key.
struct Unverified<'t> {
    signed: &'t str,
    signature: &'t str,
    header: Header,
    payload: Value,
}

struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
    /// In lower case, without `application/`.
    typ: String,
}

/// A payload whose signature has been checked with a key of this issuer.
struct Verified<'a> {
    issuer: &'a IssuerPolicy,
    payload: Value,
}

impl Verifier<'_> {
    pub fn verify(&self, token: &str) -> Result<Facts, TokenRefusal> {
        let unverified = Unverified::parse(token)?;
        let (issuer, key) = self.select_key(&unverified)?;
        if !key.verify(unverified.signed.as_bytes(), unverified.signature) {
            return Err(refuse(DenyReason::TokenSignatureInvalid, "signature"));
        }
        let verified = Verified { issuer: &issuer.policy, payload: unverified.payload };
        self.facts(issuer, key, &verified)
    }

    /// By issuer, then by `kid`: one `kid` at two issuers names two keys.
    fn select_key(&self, token: &Unverified<'_>) -> Result<(&Issuer, &TrustedKey), TokenRefusal> {
        let Some(Value::String(name)) = token.payload.get("iss") else {
            return Err(refuse(DenyReason::TokenClaimsInvalid, "iss must be a string"));
        };
        let issuer = self
            .trust
            .issuer(name)
            .ok_or(refuse(DenyReason::TokenIssuerUnknown, "iss is not a trusted issuer"))?;
        if token.header.kid.is_none() && !issuer.policy.allow_missing_kid {
            return Err(refuse(DenyReason::TokenHeaderRefused, "kid is required"));
        }
        if !issuer.policy.types.contains(&token.header.typ) {
            return Err(refuse(DenyReason::TokenTypeRefused, "typ"));
        }
        if !issuer.policy.algorithms.contains(&token.header.algorithm) {
            return Err(refuse(DenyReason::TokenAlgorithmRefused, "alg not allowed by the issuer"));
        }
        let keys = issuer
            .keys(self.now.monotonic)
            .ok_or(refuse(DenyReason::KeysUnavailable, "the issuer's keys are not available"))?;
        let Some(kid) = &token.header.kid else {
            return Ok((issuer, only_key(keys, token.header.algorithm)?));
        };
        let key = keys.get(kid).ok_or_else(|| TokenRefusal {
            unknown_key_of: Some(Arc::clone(&issuer.policy)),
            ..refuse(DenyReason::TokenKeyUnknown, "kid is not a key of the issuer")
        })?;
        if key.algorithm() != token.header.algorithm {
            return Err(refuse(DenyReason::TokenAlgorithmRefused, "alg is not the key's"));
        }
        Ok((issuer, key))
    }

    fn facts(
        &self,
        issuer: &Issuer,
        key: &TrustedKey,
        verified: &Verified<'_>,
    ) -> Result<Facts, TokenRefusal> {
        let policy = verified.issuer;
        verified.check_audience()?;
        let times = verified.times()?;
        times.check(policy, self.now.wall)?;
        let jti = verified.string("jti");
        if policy.own && jti.is_none() {
            return Err(refuse(DenyReason::TokenClaimsInvalid, "jti is required"));
        }
        let client = verified.client()?;
        let grants = match policy.fresh_grants {
            true => Some(self.grants.cell(&Verified::looked_up_client(client)?)),
            false => None,
        };
        Ok(Facts {
            issuer: Arc::clone(&issuer.policy),
            key: issuer.uid(key).ok_or(refuse(DenyReason::TokenKeyUnknown, "kid"))?,
            client: client.into(),
            subject: Subject::of(Holder { issuer: &policy.issuer, client }),
            id: jti.map(TokenRef::of),
            scopes: verified.scopes()?,
            not_before: times.not_before,
            issued_at: times.issued_at,
            expires_at: times.expires_at,
            grants_at: verified.grants_at(times.issued_at)?,
            tenants: verified.tenants(client, self.digester)?,
            narrowed: verified.narrowed()?,
            grants,
        })
    }
}

impl<'t> Unverified<'t> {
    fn parse(token: &'t str) -> Result<Self, TokenRefusal> {
        let malformed = |rule| refuse(DenyReason::TokenMalformed, rule);
        if token.len() > MAX_TOKEN {
            return Err(refuse(DenyReason::TokenTooLarge, "at most 16 KiB"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed("three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(malformed("three parts"))?;
        if payload.contains('.') {
            return Err(malformed("three parts"));
        }
        if header.len() > MAX_HEADER {
            return Err(refuse(DenyReason::TokenTooLarge, "a header of at most 4 KiB"));
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part);
        let header = decode(header).map_err(|_| malformed("header is base64url"))?;
        let payload = decode(payload).map_err(|_| malformed("payload is base64url"))?;
        // Only whether it can be read: whoever verifies it reads it for himself.
        decode(signature).map_err(|_| malformed("signature is base64url"))?;
        let header = parse_strict(&header).map_err(|_| malformed("header is JSON"))?;
        let payload = parse_strict(&payload).map_err(|_| malformed("payload is JSON"))?;
        if !payload.is_object() {
            return Err(malformed("payload is a JSON object"));
        }
        Ok(Self { signed, signature, header: Header::parse(&header)?, payload })
    }
}

impl Header {
    fn parse(header: &Value) -> Result<Self, TokenRefusal> {
        let refused = |rule| refuse(DenyReason::TokenHeaderRefused, rule);
        let members = header.as_object().ok_or(refused("header is a JSON object"))?;
        if let Some(name) = REFUSED_HEADERS.into_iter().find(|name| members.contains_key(*name)) {
            return Err(refused(name));
        }
        let string = |name: &str| members.get(name).and_then(Value::as_str);
        let algorithm = string("alg")
            .and_then(Algorithm::parse)
            .ok_or(refuse(DenyReason::TokenAlgorithmRefused, "alg"))?;
        let kid = match members.get("kid") {
            None => None,
            Some(kid) => {
                let kid = kid.as_str().ok_or(refused("kid is a string"))?;
                if kid.is_empty() || kid.chars().count() > MAX_KID {
                    return Err(refused("kid has 1 to 128 characters"));
                }
                Some(kid.to_owned())
            }
        };
        let typ = string("typ").ok_or(refuse(DenyReason::TokenTypeRefused, "typ is required"))?;
        let typ = typ.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ).to_owned();
        Ok(Self { algorithm, kid, typ })
    }
}

/// Choosing one of several would be a guess.
fn only_key(keys: &KeySet, algorithm: Algorithm) -> Result<&TrustedKey, TokenRefusal> {
    let mut fitting = keys.iter().filter(|key| key.algorithm() == algorithm);
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        (None, _) => Err(refuse(
            DenyReason::TokenKeyUnknown,
            "no key of the issuer fits, and kid is missing",
        )),
        (Some(_), Some(_)) => Err(refuse(
            DenyReason::TokenKeyUnknown,
            "several keys of the issuer fit, and kid is missing",
        )),
    }
}

struct Times {
    issued_at: Timestamp,
    not_before: Timestamp,
    expires_at: Timestamp,
}

impl Times {
    fn check(&self, policy: &IssuerPolicy, now: Timestamp) -> Result<(), TokenRefusal> {
        let claims = |rule| refuse(DenyReason::TokenClaimsInvalid, rule);
        if self.issued_at > now.plus(policy.leeway) {
            return Err(refuse(DenyReason::TokenNotYetValid, "iat is in the future"));
        }
        if self.expires_at <= self.issued_at {
            return Err(claims("exp must be after iat"));
        }
        if self.expires_at.since(self.issued_at) > policy.max_lifetime {
            return Err(refuse(DenyReason::TokenLifetimeTooLong, "exp - iat"));
        }
        within_lifetime(self.not_before, self.expires_at, policy, now)
    }
}

/// `exp` and `nbf`, for a new token and again for a remembered one.
pub(super) fn within_lifetime(
    not_before: Timestamp,
    expires_at: Timestamp,
    policy: &IssuerPolicy,
    now: Timestamp,
) -> Result<(), TokenRefusal> {
    if now >= expires_at.plus(policy.leeway) {
        return Err(refuse(DenyReason::TokenExpired, "exp"));
    }
    if not_before > now.plus(policy.leeway) {
        return Err(refuse(DenyReason::TokenNotYetValid, "nbf"));
    }
    Ok(())
}

impl Verified<'_> {
    fn string(&self, claim: &str) -> Option<&str> {
        self.payload.get(claim)?.as_str().filter(|value| !value.is_empty())
    }

    fn check_audience(&self) -> Result<(), TokenRefusal> {
        let wanted = self.issuer.audience.as_str();
        let claims = |rule| refuse(DenyReason::TokenClaimsInvalid, rule);
        let named = match self.payload.get("aud") {
            Some(Value::String(audience)) => audience == wanted,
            Some(Value::Array(audiences)) => {
                if !audiences.iter().all(Value::is_string) {
                    return Err(claims("aud must hold strings"));
                }
                audiences.iter().any(|audience| audience == wanted)
            }
            _ => return Err(claims("aud must be a string or an array of strings")),
        };
        named.then_some(()).ok_or(refuse(DenyReason::TokenAudienceWrong, "aud"))
    }

    fn times(&self) -> Result<Times, TokenRefusal> {
        let claims = |rule| refuse(DenyReason::TokenClaimsInvalid, rule);
        let date = |claim: &str| self.payload.get(claim).map(numeric_date);
        let issued_at = date("iat").flatten().ok_or(claims("iat must be a date"))?;
        let expires_at = date("exp").flatten().ok_or(claims("exp must be a date"))?;
        let not_before = match date("nbf") {
            None => issued_at,
            Some(date) => date.ok_or(claims("nbf must be a date"))?,
        };
        Ok(Times { issued_at, not_before, expires_at })
    }

    /// The client's id. What is accepted ends up in a header for the upstream.
    fn client(&self) -> Result<&str, TokenRefusal> {
        let claims = |rule| refuse(DenyReason::TokenClaimsInvalid, rule);
        let subject = self.string("sub").ok_or(claims("sub must be a string"))?;
        let client = self
            .payload
            .pointer(&self.issuer.client_claim)
            .and_then(Value::as_str)
            .ok_or(claims("the client claim must be a string"))?;
        if self.issuer.own && (client != subject || ClientId::parse(client).is_none()) {
            return Err(claims("sub must be the client id"));
        }
        let visible = client.bytes().all(|b| b.is_ascii_graphic());
        if !visible || client.is_empty() || client.len() > 256 {
            return Err(claims("the client claim must be 1 to 256 visible ASCII characters"));
        }
        Ok(client)
    }

    /// A client that the lookup cannot be asked about would pass without a lookup.
    fn looked_up_client(client: &str) -> Result<ClientId, TokenRefusal> {
        let rule = "the client claim must be a client id, since grants are looked up by it";
        ClientId::parse(client).ok_or(refuse(DenyReason::TokenClaimsInvalid, rule))
    }

    /// `scope` of RFC 9068, or `scp`, which some issuers write as an array.
    fn scopes(&self) -> Result<ScopeSet, TokenRefusal> {
        let claims = |rule| refuse(DenyReason::TokenClaimsInvalid, rule);
        let elsewhere = || self.payload.get("scp").filter(|_| !self.issuer.own);
        match self.payload.get("scope").or_else(elsewhere) {
            None => Ok(ScopeSet::default()),
            Some(Value::String(scopes)) => {
                ScopeSet::parse(scopes).ok_or(claims("scope must hold scopes of RFC 6749"))
            }
            Some(Value::Array(scopes)) => {
                let tokens: Option<Vec<&str>> = scopes.iter().map(Value::as_str).collect();
                let tokens = tokens.ok_or(claims("scope must hold strings"))?;
                ScopeSet::parse(&tokens.join(" "))
                    .ok_or(claims("scope must hold scopes of RFC 6749"))
            }
            Some(_) => Err(claims("scope must be a string or an array of strings")),
        }
    }

    fn grants_at(&self, issued_at: Timestamp) -> Result<Timestamp, TokenRefusal> {
        match self.payload.get(GRANTS_AT).filter(|_| self.issuer.own) {
            None => Ok(issued_at),
            Some(date) => numeric_date(date)
                .map(|date| date.min(issued_at))
                .ok_or(refuse(DenyReason::TokenClaimsInvalid, "grants_at must be a date")),
        }
    }

    fn narrowed(&self) -> Result<bool, TokenRefusal> {
        match self.payload.get(NARROWED).filter(|_| self.issuer.own) {
            None => Ok(false),
            Some(Value::Bool(narrowed)) => Ok(*narrowed),
            Some(_) => Err(refuse(DenyReason::TokenClaimsInvalid, "narrowed must be a boolean")),
        }
    }

    fn tenants(&self, client: &str, digester: &TenantDigester) -> Result<TenantSet, TokenRefusal> {
        let claims = |rule| refuse(DenyReason::TokenClaimsInvalid, rule);
        let listed = match self.payload.pointer(&self.issuer.tenant_claim) {
            None => Vec::new(),
            Some(claim) => listed(claim, self.issuer.tenants_of).map_err(claims)?,
        };
        match self.issuer.tenant_form {
            TenantForm::Digest => listed
                .iter()
                .map(|text| TenantDigest::from_text(text))
                .collect::<Option<TenantSet>>()
                .ok_or(claims("the tenant claim must hold digests")),
            // A path can only name tenant codes, so any other entry grants nothing.
            TenantForm::Plain => {
                let holder = Holder { issuer: &self.issuer.issuer, client };
                let codes = listed.iter().filter(|code| is_tenant_code(code));
                Ok(codes.map(|code| digester.current(holder, code)).collect())
            }
        }
    }
}

/// The error is the rule that is broken.
fn listed(claim: &Value, of: Option<TenantsOf>) -> Result<Vec<Cow<'_, str>>, &'static str> {
    match (of, claim) {
        (None | Some(TenantsOf::Text), Value::String(text)) => {
            let codes = text.split([',', ' ']).filter(|code| !code.is_empty());
            Ok(codes.map(Cow::Borrowed).collect())
        }
        (None, Value::Array(list)) => {
            let strings: Option<Vec<_>> =
                list.iter().map(|value| value.as_str().map(Cow::Borrowed)).collect();
            strings.ok_or("the tenant claim must hold strings")
        }
        (Some(TenantsOf::Values), Value::Array(list)) => {
            let codes: Option<Vec<_>> = list.iter().map(code).collect();
            codes.ok_or("the tenant claim must hold strings or whole numbers")
        }
        (Some(TenantsOf::Keys), Value::Object(members)) => {
            Ok(members.keys().map(|key| Cow::Borrowed(key.as_str())).collect())
        }
        (None, _) => Err("the tenant claim must be an array or a string"),
        (Some(TenantsOf::Values), _) => Err("the tenant claim must be an array"),
        (Some(TenantsOf::Keys), _) => Err("the tenant claim must be an object"),
        (Some(TenantsOf::Text), _) => Err("the tenant claim must be a string"),
    }
}

/// A whole number is the code of its decimal digits.
fn code(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) if number.is_u64() => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// NumericDate of RFC 7519: seconds, with or without a fraction.
fn numeric_date(value: &Value) -> Option<Timestamp> {
    let seconds = match value.as_u64() {
        Some(seconds) => seconds,
        None => {
            let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
            if seconds > LAST_SECOND as f64 {
                return None;
            }
            seconds as u64
        }
    };
    (seconds <= LAST_SECOND).then(|| Timestamp::from_secs(seconds))
}
