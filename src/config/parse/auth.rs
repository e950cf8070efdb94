use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::reader::Reader;
use crate::config::{ClientTls, LookupAuth, OAuth2Auth, OAuth2Method, SecretText, raw};
use crate::domain::{Algorithm, ScopeSet, Secret};
use crate::yaml::Field;

const AT: &str = "tenants.lookup.auth";
const OAUTH2: &str = "tenants.lookup.auth.oauth2";

pub fn parse(reader: &mut Reader, auth: Field<raw::Auth>) -> Option<LookupAuth> {
    if auth.is_absent() {
        return Some(LookupAuth::None);
    }
    let raw::Auth { oauth2, bearer, basic } = auth.value()?;
    let given = [oauth2.is_given(), bearer.is_given(), basic.is_given()];
    let given = given.into_iter().filter(|given| *given).count();
    if given != 1 {
        let wrong = if given == 0 {
            "says no way to authenticate"
        } else {
            "says more than one way to authenticate"
        };
        reader.problem(AT, wrong, "keep exactly one of `oauth2`, `bearer` and `basic`");
    }
    // All are looked at, for their own problems.
    let oauth2 = oauth2.value().and_then(|oauth2| self::oauth2(reader, oauth2));
    let token = bearer.value().and_then(|bearer| {
        reader.header_secret_file("tenants.lookup.auth.bearer.token_file", bearer.token_file)
    });
    let basic = basic.value().and_then(|basic| self::basic(reader, basic));
    let oauth2 = oauth2.map(|oauth2| LookupAuth::OAuth2(Box::new(oauth2)));
    oauth2.or(token.map(LookupAuth::Bearer)).or(basic)
}

fn basic(reader: &mut Reader, basic: raw::Basic) -> Option<LookupAuth> {
    let field = "tenants.lookup.auth.basic.username";
    let username = reader.text(field, basic.username);
    if username.as_deref().is_some_and(|name| name.contains(':')) {
        reader.problem(
            field,
            "has a colon, which ends the name in basic authentication",
            "choose a name without",
        );
    }
    let field = "tenants.lookup.auth.basic.password_file";
    let password = reader.secret_file(field, basic.password_file);
    Some(LookupAuth::Basic { username: username?, password: password? })
}

fn oauth2(reader: &mut Reader, mut oauth2: raw::OAuth2) -> Option<OAuth2Auth> {
    let field = |key: &str| format!("{OAUTH2}.{key}");
    let method = method(reader, &mut oauth2);
    let token_url = reader.url(&field("token_url"), oauth2.token_url, oauth2.allow_http);
    let client_id = reader.text(&field("client_id"), oauth2.client_id);
    let scope = oauth2.scope.optional(|scope| self::scope(reader, &scope));
    let audience =
        oauth2.audience.optional(|audience| reader.text(&field("audience"), audience.into()));
    let refresh = reader.duration(&field("refresh_before_expiry"), oauth2.refresh_before_expiry);
    let lifetime = reader.positive_duration(&field("default_lifetime"), oauth2.default_lifetime);
    if refresh.zip(lifetime).is_some_and(|(refresh, lifetime)| refresh >= lifetime) {
        reader.problem(
            &field("refresh_before_expiry"),
            "is not shorter than `default_lifetime`: the token would be renewed without end",
            "shorten it",
        );
    }
    let timeout = reader.positive_duration(&field("timeout"), oauth2.timeout);
    Some(OAuth2Auth {
        token_url: token_url?,
        client_id: client_id?,
        method: method?,
        scope: scope?,
        audience: audience?,
        refresh_before_expiry: refresh?,
        default_lifetime: lifetime?,
        timeout: timeout?,
    })
}

fn scope(reader: &mut Reader, text: &str) -> Option<String> {
    let scope = ScopeSet::parse(text).filter(|scope| !scope.is_empty());
    if scope.is_none() {
        reader.problem(
            "tenants.lookup.auth.oauth2.scope",
            "is not a list of scopes (RFC 6749)",
            "write them separated by spaces, or remove it",
        );
    }
    scope.map(|scope| scope.as_str().to_owned())
}

fn method(reader: &mut Reader, oauth2: &mut raw::OAuth2) -> Option<OAuth2Method> {
    let method = oauth2.method.value()?;
    let (needed, file, name) = match method {
        raw::OAuth2Method::PrivateKeyJwt => {
            reader.without_effect(OAUTH2, &["client_secret_file"], "with `private_key_jwt`");
            ("private_key_file", oauth2.private_key_file.take(), "private_key_jwt")
        }
        raw::OAuth2Method::ClientSecretBasic | raw::OAuth2Method::ClientSecretPost => {
            let because = "without `method: private_key_jwt`";
            reader.without_effect(OAUTH2, &["private_key_file", "algorithm", "kid"], because);
            let name = "client_secret_basic or client_secret_post";
            ("client_secret_file", oauth2.client_secret_file.take(), name)
        }
    };
    let needed = format!("{OAUTH2}.{needed}");
    if file.is_absent() {
        reader.problem(&needed, format!("missing, and {name} needs it"), "add it");
    }
    if matches!(method, raw::OAuth2Method::PrivateKeyJwt) {
        let key = private_key(reader, &needed, file);
        let kid = oauth2.kid.take();
        let kid = kid.optional(|kid| reader.text(&format!("{OAUTH2}.kid"), kid.into()));
        return Some(OAuth2Method::PrivateKeyJwt {
            key_pem: key?,
            algorithm: match oauth2.algorithm.value()? {
                raw::OAuth2Algorithm::Es256 => Algorithm::Es256,
                raw::OAuth2Algorithm::EdDsa => Algorithm::EdDsa,
                raw::OAuth2Algorithm::Rs256 => Algorithm::Rs256,
            },
            kid: kid?,
        });
    }
    let secret = reader.secret_file(&needed, file)?;
    Some(match method {
        raw::OAuth2Method::ClientSecretPost => OAuth2Method::ClientSecretPost(secret),
        _ => OAuth2Method::ClientSecretBasic(secret),
    })
}

fn private_key(reader: &mut Reader, field: &str, file: Field<raw::FileText>) -> Option<SecretText> {
    let pem = Secret::new(reader.file(field, file)?);
    if PrivatePkcs8KeyDer::from_pem_slice(pem.expose().as_bytes()).is_err() {
        reader.problem(
            field,
            "names a file without a PKCS#8 private key in PEM",
            "convert it with `openssl pkcs8 -topk8 -nocrypt`",
        );
        return None;
    }
    Some(SecretText(pem))
}

/// The section `tls` of `at`.
pub fn tls(reader: &mut Reader, at: &str, tls: Field<raw::ClientTls>) -> Option<ClientTls> {
    if tls.is_absent() {
        return Some(ClientTls::default());
    }
    let raw::ClientTls { ca_file, cert_file, key_file } = tls.value()?;
    let field = |key: &str| format!("{at}.tls.{key}");
    let missing = match (cert_file.is_given(), key_file.is_given()) {
        (true, false) => Some(("key_file", "cert_file")),
        (false, true) => Some(("cert_file", "key_file")),
        _ => None,
    };
    if let Some((missing, other)) = missing {
        reader.problem(&field(missing), format!("missing, and `{other}` needs it"), "add it");
    }
    let ca_pem = ca_file.optional(|file| certificates(reader, &field("ca_file"), file));
    let cert = cert_file.optional(|file| certificates(reader, &field("cert_file"), file));
    let key = key_file.optional(|file| tls_key(reader, &field("key_file"), file));
    let identity_pem = cert?.zip(key?);
    let identity_pem = identity_pem.map(|(cert, key)| format!("{cert}\n{}", key.expose()));
    let identity_pem = identity_pem.map(|pem| SecretText(Secret::new(pem)));
    Some(ClientTls { ca_pem: ca_pem?, identity_pem })
}

fn certificates(reader: &mut Reader, field: &str, file: raw::FileText) -> Option<String> {
    let pem = reader.file(field, file.into())?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    if certificates.is_ok_and(|certificates| !certificates.is_empty()) {
        return Some(pem);
    }
    reader.problem(
        field,
        "names a file without PEM certificates",
        "give a file with `-----BEGIN CERTIFICATE-----`",
    );
    None
}

fn tls_key(reader: &mut Reader, field: &str, file: raw::FileText) -> Option<Secret> {
    let pem = Secret::new(reader.file(field, file.into())?);
    if PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).is_err() {
        reader.problem(
            field,
            "names a file without a PEM private key",
            "give a file with `-----BEGIN PRIVATE KEY-----`",
        );
        return None;
    }
    Some(pem)
}
