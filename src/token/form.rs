use std::collections::HashSet;

use super::error::TokenError;
use crate::domain::{ScopeSet, Secret, TenantCode};

/// The longest body in bytes: room for 300 tenants with the longest codes.
pub const MAX_FORM: usize = 64 * 1024;
const MAX_PARAMETERS: usize = 1024;
const TENANT_URN: &str = "urn:tenantgate:tenant:";

/// A token request as it was sent; its client is not authenticated yet.
#[derive(Debug, Default)]
pub struct TokenForm {
    /// `None`: all scopes of the client.
    pub scope: Option<ScopeSet>,
    /// The tenants that the request names; empty: all that are granted.
    pub tenants: Vec<TenantCode>,
    /// `None`: not in the form; it may be in the `Authorization` header.
    pub client_id: Option<String>,
    /// By `client_secret_post` (RFC 6749, section 2.3.1); not checked yet.
    pub client_secret: Option<Secret>,
    /// A client assertion (RFC 7521) was sent, which this endpoint does not support.
    pub other_authentication: bool,
}

impl TokenForm {
    /// Reads `application/x-www-form-urlencoded` by RFC 6749, section 3.2: a parameter without a
    /// value is absent, unknown ones are ignored, and only `tenant` and `resource` (RFC 8707) may
    /// be repeated. `audience` is the one `resource` that is not a tenant.
    pub fn parse(body: &[u8], audience: &str) -> Result<Self, TokenError> {
        let mut form = Self::default();
        let mut grant_type = None;
        let mut seen = HashSet::new();
        for (count, (name, value)) in form_urlencoded::parse(body).enumerate() {
            if count == MAX_PARAMETERS {
                return Err(TokenError::InvalidRequest("the request has too many parameters"));
            }
            let repeatable = matches!(&*name, "tenant" | "resource");
            if !repeatable && !seen.insert(name.clone()) {
                return Err(TokenError::InvalidRequest("a parameter is repeated"));
            }
            if value.is_empty() {
                continue;
            }
            match &*name {
                "grant_type" => grant_type = Some(value),
                "scope" => form.scope = Some(scope(&value)?),
                "tenant" => form.name_tenant(&value)?,
                "resource" => form.resource(&value, audience)?,
                "client_id" => form.client_id = Some(value.into_owned()),
                "client_secret" => form.client_secret = Some(Secret::new(value)),
                "client_assertion" | "client_assertion_type" => form.other_authentication = true,
                other => refuse_near_miss(other)?,
            }
        }
        match grant_type.as_deref() {
            Some("client_credentials") => Ok(form),
            Some(_) => Err(TokenError::UnsupportedGrantType),
            None => Err(TokenError::InvalidRequest(
                "grant_type is missing: send grant_type=client_credentials in a form",
            )),
        }
    }

    /// Reads a request about a token (RFC 7009, section 2.1; RFC 7662, section 2.1).
    pub fn about_token(body: &[u8]) -> Result<(Self, Secret), TokenError> {
        let (mut form, mut token) = (Self::default(), None);
        let mut seen = HashSet::new();
        for (count, (name, value)) in form_urlencoded::parse(body).enumerate() {
            if count == MAX_PARAMETERS {
                return Err(TokenError::InvalidRequest("the request has too many parameters"));
            }
            if !seen.insert(name.clone()) {
                return Err(TokenError::InvalidRequest("a parameter is repeated"));
            }
            if value.is_empty() {
                continue;
            }
            match &*name {
                "token" => token = Some(Secret::new(value)),
                "client_id" => form.client_id = Some(value.into_owned()),
                "client_secret" => form.client_secret = Some(Secret::new(value)),
                "client_assertion" | "client_assertion_type" => form.other_authentication = true,
                // `token_type_hint` too: there is one type.
                _ => {}
            }
        }
        let missing = TokenError::InvalidRequest("token is missing: send token=TOKEN in a form");
        Ok((form, token.ok_or(missing)?))
    }

    fn resource(&mut self, value: &str, audience: &str) -> Result<(), TokenError> {
        if value == audience {
            return Ok(());
        }
        match value.strip_prefix(TENANT_URN) {
            Some(code) => self.name_tenant(code),
            None => Err(TokenError::InvalidTarget(
                "resource must be the audience or urn:tenantgate:tenant:CODE",
            )),
        }
    }

    /// What cannot be a code is answered like a tenant that is not granted.
    fn name_tenant(&mut self, code: &str) -> Result<(), TokenError> {
        let code = TenantCode::parse(code).ok_or(TokenError::TENANT_NOT_GRANTED)?;
        self.tenants.push(code);
        Ok(())
    }
}

/// Unknown parameters are ignored, except those by which a client may believe it has narrowed its
/// token: `tenants`, `tenant[0]`, `resource[]`, `tenant_id`.
fn refuse_near_miss(name: &str) -> Result<(), TokenError> {
    let word = name.split(['[', '.']).next().unwrap_or_default().to_ascii_lowercase();
    let word = word.replace('-', "_");
    let word = word.strip_suffix("_codes").or(word.strip_suffix("_code")).unwrap_or(&word);
    let word = word.strip_suffix("_ids").or(word.strip_suffix("_id")).unwrap_or(word);
    match word.strip_suffix('s').unwrap_or(word) {
        "tenant" | "tenant_list" => Err(TokenError::InvalidRequest(
            "no such parameter: name each tenant as tenant=CODE, repeated",
        )),
        "resource" => Err(TokenError::InvalidRequest(
            "no such parameter: name each resource as resource=URI, repeated",
        )),
        "scope" => Err(TokenError::InvalidRequest(
            "no such parameter: name the scopes as one scope, separated by blanks",
        )),
        _ => Ok(()),
    }
}

fn scope(value: &str) -> Result<ScopeSet, TokenError> {
    let scopes = ScopeSet::parse(value).filter(|scopes| !scopes.is_empty());
    scopes.ok_or(TokenError::InvalidScope("scope is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIENCE: &str = "https://api.example.com";

    fn parse(body: &str) -> Result<TokenForm, TokenError> {
        TokenForm::parse(body.as_bytes(), AUDIENCE)
    }

    #[test]
    fn reads_every_parameter() {
        let form = parse(
            "grant_type=client_credentials&scope=a+b&tenant=T1&tenant=T2&unknown=1\
             &resource=urn%3Atenantgate%3Atenant%3AT3&resource=https://api.example.com\
             &client_id=acme&client_secret=s%2Bs",
        )
        .unwrap();
        assert_eq!(form.scope.unwrap().as_str(), "a b");
        let codes: Vec<&str> = form.tenants.iter().map(TenantCode::expose).collect();
        assert_eq!(codes, ["T1", "T2", "T3"]);
        assert_eq!(form.client_id.as_deref(), Some("acme"));
        assert_eq!(form.client_secret.unwrap().expose(), "s+s");
    }

    #[test]
    fn empty_is_absent() {
        let form = parse("grant_type=client_credentials&scope=&tenant=&client_id=").unwrap();
        assert!(form.scope.is_none() && form.tenants.is_empty() && form.client_id.is_none());
        assert_eq!(parse("grant_type=").unwrap_err().code(), "invalid_request");
    }

    #[test]
    fn refuses_what_is_wrong_by_its_oauth_error() {
        for (body, code) in [
            ("", "invalid_request"),
            ("scope=a", "invalid_request"),
            ("grant_type=password", "unsupported_grant_type"),
            ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
            ("grant_type=client_credentials&scope=a&scope=a", "invalid_request"),
            ("grant_type=client_credentials&client_id=a&client_id=", "invalid_request"),
            ("grant_type=client_credentials&scope=%22", "invalid_scope"),
            ("grant_type=client_credentials&scope=%20", "invalid_scope"),
            ("grant_type=client_credentials&resource=https://other", "invalid_target"),
            ("grant_type=client_credentials&tenant=a/b", "invalid_target"),
            ("grant_type=client_credentials&tenants=T1", "invalid_request"),
            ("grant_type=client_credentials&tenant%5B0%5D=T1", "invalid_request"),
            ("grant_type=client_credentials&tenant[]=T1", "invalid_request"),
            ("grant_type=client_credentials&Tenant_ID=T1", "invalid_request"),
            ("grant_type=client_credentials&resources=urn:x", "invalid_request"),
            ("grant_type=client_credentials&scopes[0]=a", "invalid_request"),
            ("grant_type=client_credentials&resource=urn:tenantgate:tenant:..", "invalid_target"),
        ] {
            assert_eq!(parse(body).unwrap_err().code(), code, "{body}");
        }
        let many = format!("grant_type=client_credentials{}", "&tenant=T".repeat(MAX_PARAMETERS));
        assert_eq!(parse(&many).unwrap_err().code(), "invalid_request");
    }
}
