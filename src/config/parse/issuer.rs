use std::path::PathBuf;

use url::Url;
use zeroize::Zeroizing;

use super::{check_claim_name, issuers};
use crate::config::reader::Reader;
use crate::config::{ClaimForm, DigestKey, Issuer, OwnKeys, TenantClaim, raw};
use crate::domain::DIGEST_KEY_LEN;

pub fn tenant_claim_name(issuer: Option<&raw::Issuer>) -> Option<String> {
    issuer?.tenant_claim.as_ref()?.name.clone()
}

pub fn parse(reader: &mut Reader, issuer: raw::Issuer) -> Option<Issuer> {
    let url = issuer.url.as_ref().map(|url| url.0.clone());
    let parsed = reader.url("issuer.url", issuer.url, issuer.allow_http);
    if parsed.is_some_and(|url| url.query().is_some()) {
        reader.problem("issuer.url", "has a query", "remove the `?` and what follows");
    }
    let audience = reader.text("issuer.audience", issuer.audience);
    let token_ttl = reader.positive_duration("issuer.token_ttl", issuer.token_ttl);
    let max_token_ttl = reader.positive_duration("issuer.max_token_ttl", issuer.max_token_ttl);
    if token_ttl.zip(max_token_ttl).is_some_and(|(ttl, max)| ttl > max) {
        reader.problem(
            "issuer.token_ttl",
            "is longer than `issuer.max_token_ttl`",
            "shorten it, or raise the maximum",
        );
    }
    let leeway = reader.leeway("issuer.leeway", issuer.leeway);
    let (tls, proxy) = issuers::reach(reader, "issuer", issuer.tls, issuer.proxy);
    let keys = match keys(reader, issuer.signing_keys, issuer.jwks_url, issuer.allow_http) {
        Some(Place::Folder(folder)) => Some(OwnKeys::Folder(folder)),
        Some(Place::Url(url)) => {
            tls.zip(proxy).map(|(tls, proxy)| OwnKeys::Url { url, tls, proxy })
        }
        None => None,
    };
    let tenant_claim = tenant_claim(reader, issuer.tenant_claim);
    Some(Issuer {
        url: url?,
        audience: audience?,
        token_ttl: token_ttl?,
        max_token_ttl: max_token_ttl?,
        leeway: leeway?,
        keys: keys?,
        tenant_claim: tenant_claim?,
        max_tenants: usize::try_from(issuer.max_tenants?).ok()?,
    })
}

/// Where our keys are, before it is known how they are reached.
enum Place {
    Folder(PathBuf),
    Url(Url),
}

fn keys(
    reader: &mut Reader,
    folder: Option<raw::FileText>,
    url: Option<raw::UrlText>,
    allow_http: Option<bool>,
) -> Option<Place> {
    let (has_folder, has_url) =
        (reader.given("issuer.signing_keys"), reader.given("issuer.jwks_url"));
    match (has_folder, has_url) {
        (true, false) => {
            let because = "without `issuer.jwks_url`";
            reader.without_effect("issuer", &["tls", "proxy"], because);
            Some(Place::Folder(reader.path(&folder?)))
        }
        (false, true) => {
            if reader.given("listen.token") {
                let cure = "name the folder with the private keys as `signing_keys` instead, or \
                            remove `listen.token`";
                reader.problem(
                    "issuer.jwks_url",
                    "does not let this process sign, and `listen.token` mints",
                    cure,
                );
            }
            reader.url("issuer.jwks_url", url, allow_http).map(Place::Url)
        }
        (false, false) => {
            let cure = "name the folder that `tenantgate keys generate --dir keys` fills; a \
                        process that only \
                        checks may have `jwks_url` instead";
            reader.problem("issuer.signing_keys", "missing", cure);
            None
        }
        (true, true) => {
            let cure = "keep one: `signing_keys` to mint, `jwks_url` to check only";
            reader.problem("issuer.jwks_url", "is given beside `signing_keys`", cure);
            None
        }
    }
}

fn tenant_claim(reader: &mut Reader, claim: Option<raw::TenantClaim>) -> Option<TenantClaim> {
    let claim = claim?;
    let name = reader.text("issuer.tenant_claim.name", claim.name);
    if let Some(name) = &name {
        check_claim_name(reader, "issuer.tenant_claim.name", name);
    }
    let form = match claim.form? {
        raw::ClaimForm::Plain => {
            let because = "with `form: plain`";
            reader.without_effect(
                "issuer.tenant_claim",
                &["key_file", "previous_key_file"],
                because,
            );
            Some(ClaimForm::Plain)
        }
        raw::ClaimForm::Digest => {
            let field = "issuer.tenant_claim.key_file";
            if !reader.given(field) {
                reader.problem(
                    field,
                    "is missing, and `form: digest` needs it",
                    "make one with `tenantgate keys digest --out FILE` and name it here",
                );
            }
            let key = digest_key(reader, field, claim.key_file);
            let field = "issuer.tenant_claim.previous_key_file";
            let previous =
                claim.previous_key_file.map(|file| digest_key(reader, field, Some(file)));
            if let (Some(key), Some(Some(previous))) = (&key, &previous)
                && **key == **previous
            {
                reader.problem(
                    field,
                    "holds the same key as `key_file`",
                    "name the key that came before, or remove it",
                );
            }
            match previous {
                Some(previous) => previous
                    .zip(key)
                    .map(|(previous, key)| ClaimForm::Digest { key, previous: Some(previous) }),
                None => key.map(|key| ClaimForm::Digest { key, previous: None }),
            }
        }
    };
    Some(TenantClaim { name: name?, form: form?, display: claim.display? })
}

pub fn digest_key(
    reader: &mut Reader,
    field: &str,
    file: Option<raw::FileText>,
) -> Option<DigestKey> {
    let text = reader.guarded_secret_file(field, file)?;
    let mut key: DigestKey = Zeroizing::new([0; DIGEST_KEY_LEN]);
    let digits = text.0.expose().as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let fits = digits.len() == 2 * DIGEST_KEY_LEN
        && key.iter_mut().zip(digits.chunks(2)).all(|(byte, pair)| {
            let value = digit(pair[0]).zip(digit(pair[1]));
            *byte = value.map_or(0, |(high, low)| high << 4 | low);
            value.is_some()
        });
    if !fits {
        reader.problem(
            field,
            "names a file that is not a key of 64 hex characters",
            "make one with `tenantgate keys digest --out FILE`",
        );
        return None;
    }
    Some(key)
}
