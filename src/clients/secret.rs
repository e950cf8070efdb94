use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier};

use crate::domain::{CredentialDigest, Secret};

/// Registries are written by trusted people, but a hash that was imported with outlandish
/// parameters would let every failed attempt cost seconds or gigabytes.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;

const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A new secret with 256 bits from the operating system.
pub fn generate() -> Secret {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has random bytes");
    Secret::generated(&bytes)
}

/// The form in which the registry keeps a generated secret.
pub fn digest_generated(secret: &Secret) -> String {
    format!("sha256:{}", hex::encode(CredentialDigest::sha256_of(secret.expose())))
}

/// The form in which the registry keeps a secret that somebody else chose: argon2id with the
/// parameters that OWASP recommends (19 MiB, 2 passes, 1 lane), which are the library's default.
pub fn digest_imported(secret: &Secret) -> String {
    let hash = Argon2::from(Params::DEFAULT).hash_password(secret.expose().as_bytes());
    hash.expect("16 bytes of salt and 32 of output are in bounds").to_string()
}

pub fn matches_imported(secret: &Secret, phc: &str) -> bool {
    Argon2::default().verify_password(secret.expose().as_bytes(), phc).is_ok()
}

/// What is wrong with a `digest`, and what to do, is the error.
pub fn parse_digest(text: &str) -> Result<CredentialDigest, String> {
    if let Some(hex) = text.strip_prefix("sha256:") {
        return parse_sha256(hex).map(CredentialDigest::Sha256);
    }
    if text.starts_with("$argon2id$") {
        return check_argon2id(text).map(|()| CredentialDigest::Argon2id(text.to_owned()));
    }
    Err("neither sha256:… nor $argon2id$…; write the credential with `tenantgate clients add`"
        .to_owned())
}

fn parse_sha256(hex: &str) -> Result<[u8; 32], String> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if hex == SHA256_OF_NOTHING {
        return Err("the SHA-256 of nothing, so an empty secret would pass; \
                    hash the secret itself, without a newline"
            .to_owned());
    }
    let digits: Option<Vec<u8>> = hex.bytes().map(nibble).collect();
    let bytes = digits.filter(|digits| digits.len() == 64).map(|digits| {
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        bytes
    });
    bytes.ok_or_else(|| {
        "not a SHA-256; after `sha256:` come 64 lower-case hexadecimal digits".to_owned()
    })
}

fn check_argon2id(phc: &str) -> Result<(), String> {
    let hash = PasswordHash::new(phc)
        .map_err(|error| format!("not a PHC string ({error}); import the secret again"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("salt or hash is missing; import the secret again".to_owned());
    }
    if hash.version != Some(19) {
        return Err("not version 19 of argon2id (v=19); import the secret again".to_owned());
    }
    let params = Params::try_from(&hash)
        .map_err(|error| format!("bad parameters ({error}); import the secret again"))?;
    if !params.keyid().is_empty() || !params.data().is_empty() {
        return Err("keyid and data are not supported; import the secret again".to_owned());
    }
    for (name, value, most) in [
        ("m", params.m_cost(), MAX_MEMORY_KIB),
        ("t", params.t_cost(), MAX_PASSES),
        ("p", params.p_cost(), MAX_LANES),
    ] {
        if value > most {
            return Err(format!(
                "{name}={value} is too costly; import the secret with {name} at most {most}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_is_recognisable_new_each_time_and_found_again_by_its_digest() {
        let (one, two) = (generate(), generate());
        assert!(one.expose().starts_with("tgs_") && one.expose().len() == 4 + 43);
        assert_ne!(one.expose(), two.expose());
        let Ok(CredentialDigest::Sha256(digest)) = parse_digest(&digest_generated(&one)) else {
            panic!("not read back");
        };
        assert_eq!(digest, CredentialDigest::sha256_of(one.expose()));
    }

    #[test]
    fn the_known_digest_of_abc() {
        assert_eq!(
            digest_generated(&Secret::new("abc")),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn an_imported_secret_matches_its_digest_only() {
        let phc = digest_imported(&Secret::new("correct horse"));
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(matches!(parse_digest(&phc), Ok(CredentialDigest::Argon2id(_))));
        assert!(matches_imported(&Secret::new("correct horse"), &phc));
        assert!(!matches_imported(&Secret::new("battery staple"), &phc));
    }

    #[test]
    fn digests_that_are_not_what_they_claim_are_refused() {
        let tail = "$c2FsdHNhbHRzYWx0$ZCYgZGlnZXN0IGRpZ2VzdA";
        for (digest, told) in [
            ("", "neither"),
            ("md5:00", "neither"),
            ("$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$ZCYgZGlnZXN0IGRpZ2VzdA", "neither"),
            ("sha256:abc", "64 lower-case"),
            (&format!("sha256:{}", "AB".repeat(32)), "64 lower-case"),
            (&format!("sha256:{}", "ab".repeat(33)), "64 lower-case"),
            (&format!("sha256:{SHA256_OF_NOTHING}"), "empty secret"),
            ("$argon2id$", "PHC"),
            ("$argon2id$v=19$m=8,t=1,p=1", "missing"),
            ("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0", "missing"),
            (&format!("$argon2id$m=8,t=1,p=1{tail}"), "v=19"),
            (&format!("$argon2id$v=16$m=8,t=1,p=1{tail}"), "v=19"),
            (&format!("$argon2id$v=19$m=8,t=0,p=1{tail}"), "bad parameters"),
            (&format!("$argon2id$v=19$m=8,t=1,p=1,x=1{tail}"), "bad parameters"),
            (&format!("$argon2id$v=19$m=262145,t=1,p=1{tail}"), "m at most 262144"),
            (&format!("$argon2id$v=19$m=8,t=11,p=1{tail}"), "t at most 10"),
            (&format!("$argon2id$v=19$m=64,t=1,p=5{tail}"), "p at most 4"),
        ] {
            let error = parse_digest(digest).err().unwrap_or_else(|| panic!("passed: {digest}"));
            assert!(error.contains(told), "{digest}: {error}");
        }
        assert!(parse_digest(&format!("$argon2id$v=19$m=262144,t=10,p=4{tail}")).is_ok());
    }
}
