use zeroize::Zeroizing;

use super::{Given, check_claim_name, issuers};
use crate::config::reader::Reader;
use crate::config::{ClaimForm, DigestKey, Issuer, OwnKeys, TenantClaim, raw};
use crate::domain::DIGEST_KEY_LEN;
use crate::yaml::Field;

pub fn tenant_claim_name(issuer: &raw::Issuer) -> Option<String> {
    issuer.tenant_claim.as_ref().value()?.name.clone().value()
}

pub fn parse(reader: &mut Reader, issuer: raw::Issuer, given: Given) -> Option<Issuer> {
    let url = issuer.url.as_ref().value().map(|url| url.0.clone());
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
    let keys = match (issuer.signing_keys, issuer.jwks_url) {
        (Field::Absent, Field::Absent) => {
            let cure = "name the folder that `tenantgate keys generate --dir keys` fills; a \
                        process that only checks may have `jwks_url` instead";
            reader.problem("issuer.signing_keys", "missing", cure);
            None
        }
        (folder, Field::Absent) => {
            let because = "without `issuer.jwks_url`";
            reader.without_effect("issuer", &["tls", "proxy"], because);
            folder.value().map(|folder| OwnKeys::Folder(reader.path(&folder)))
        }
        (Field::Absent, url) => {
            if given.mints {
                let cure = "name the folder with the private keys as `signing_keys` instead, or \
                            remove `listen.token`";
                reader.problem(
                    "issuer.jwks_url",
                    "does not let this process sign, and `listen.token` mints",
                    cure,
                );
            }
            let url = reader.url("issuer.jwks_url", url, issuer.allow_http);
            url.zip(tls).zip(proxy).map(|((url, tls), proxy)| OwnKeys::Url { url, tls, proxy })
        }
        (_, _) => {
            let cure = "keep one: `signing_keys` to mint, `jwks_url` to check only";
            reader.problem("issuer.jwks_url", "is given beside `signing_keys`", cure);
            None
        }
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
        max_tenants: usize::try_from(issuer.max_tenants.value()?).ok()?,
    })
}

fn tenant_claim(reader: &mut Reader, claim: Field<raw::TenantClaim>) -> Option<TenantClaim> {
    let claim = claim.value()?;
    let name = reader.text("issuer.tenant_claim.name", claim.name);
    if let Some(name) = &name {
        check_claim_name(reader, "issuer.tenant_claim.name", name);
    }
    let form = match claim.form.value()? {
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
            if claim.key_file.is_absent() {
                reader.problem(
                    field,
                    "is missing, and `form: digest` needs it",
                    "make one with `tenantgate keys digest --out FILE` and name it here",
                );
            }
            let key = digest_key(reader, field, claim.key_file);
            let field = "issuer.tenant_claim.previous_key_file";
            let previous =
                claim.previous_key_file.optional(|file| digest_key(reader, field, file.into()));
            if let (Some(key), Some(Some(previous))) = (&key, &previous)
                && **key == **previous
            {
                reader.problem(
                    field,
                    "holds the same key as `key_file`",
                    "name the key that came before, or remove it",
                );
            }
            key.zip(previous).map(|(key, previous)| ClaimForm::Digest { key, previous })
        }
    };
    Some(TenantClaim { name: name?, form: form?, display: claim.display.value()? })
}

pub fn digest_key(
    reader: &mut Reader,
    field: &str,
    file: Field<raw::FileText>,
) -> Option<DigestKey> {
    let text = reader.guarded_secret_file(field, file)?;
    let mut key: DigestKey = Zeroizing::new([0; DIGEST_KEY_LEN]);
    if hex::decode_to_slice(text.0.expose(), &mut *key).is_err() {
        reader.problem(
            field,
            "names a file that is not a key of 64 hex characters",
            "make one with `tenantgate keys digest --out FILE`",
        );
        return None;
    }
    Some(key)
}
