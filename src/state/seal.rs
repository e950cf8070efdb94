use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::domain::{DIGEST_KEY_LEN, Secret, TenantCode, TenantRefs};

/// The key of `state.key_file`. Nothing is done with it but deriving keys for one purpose each.
#[derive(Clone)]
pub struct StateKey(Zeroizing<[u8; DIGEST_KEY_LEN]>);

impl StateKey {
    /// What `state.key_file` holds.
    pub fn new(key: Zeroizing<[u8; DIGEST_KEY_LEN]>) -> Self {
        Self(key)
    }

    /// Names tenants in rows.
    pub fn tenant_refs(&self) -> TenantRefs {
        TenantRefs::new(&self.derived(b"tenantgate state: tenant references"))
    }

    /// Names the key without telling it.
    pub fn id(&self) -> String {
        hex::encode(&self.derived(b"tenantgate state: key id")[..8])
    }

    /// Seals what has to be read again.
    pub fn sealer(&self) -> Sealer {
        let key = self.derived(b"tenantgate state: sealed tenants");
        let key = RandomizedNonceKey::new(&AES_256_GCM, &*key);
        Sealer(key.expect("the length fits the algorithm"))
    }

    /// A client's secret that the same request makes again, and that cannot be guessed without this
    /// key.
    pub fn secret_of(&self, request_id: &str, client: &str) -> Secret {
        let key = self.derived(b"tenantgate state: secrets of clients");
        let text = format!("{request_id} {client}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*key), text.as_bytes());
        Secret::generated(tag.as_ref())
    }

    fn derived(&self, purpose: &[u8]) -> Zeroizing<[u8; DIGEST_KEY_LEN]> {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*self.0), purpose);
        let mut key = Zeroizing::new([0; DIGEST_KEY_LEN]);
        key.copy_from_slice(tag.as_ref());
        key
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[state key]")
    }
}

/// Seals the codes of a client's static tenants, so that the database holds none in plain.
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// Only [`Sealer::open`] for the same client reads it again.
    pub fn seal(&self, client: &str, codes: &[TenantCode]) -> Option<String> {
        let plain: Vec<&str> = codes.iter().map(TenantCode::expose).collect();
        // A code has no comma.
        self.seal_bytes(client, plain.join(",").as_bytes())
    }

    /// Only [`Sealer::open_bytes`] for the same name reads them again.
    pub fn seal_bytes(&self, name: &str, plain: &[u8]) -> Option<String> {
        let mut bytes = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(name), &mut bytes).ok()?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut bytes);
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// `None`: sealed under another key, for another client, or tampered with.
    pub fn open(&self, client: &str, sealed: &str) -> Option<Vec<TenantCode>> {
        let plain = self.open_bytes(client, sealed)?;
        let plain = str::from_utf8(&plain).ok()?;
        plain.split(',').filter(|code| !code.is_empty()).map(TenantCode::parse).collect()
    }

    /// `None`: sealed under another key or name, or changed.
    pub fn open_bytes(&self, name: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(sealed).ok()?);
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.0.open_in_place(nonce, Aad::from(name), sealed).ok()?;
        Some(Zeroizing::new(plain.to_vec()))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealer]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        StateKey::new(Zeroizing::new([byte; DIGEST_KEY_LEN])).sealer()
    }

    #[test]
    fn a_secret_is_made_again_by_the_same_request_only() {
        let key = |byte| StateKey::new(Zeroizing::new([byte; DIGEST_KEY_LEN]));
        let made = key(1).secret_of("r", "acme");
        assert_eq!(made.expose().len(), 47);
        assert_eq!(key(1).secret_of("r", "acme").expose(), made.expose());
        for other in [
            key(2).secret_of("r", "acme"),
            key(1).secret_of("s", "acme"),
            key(1).secret_of("r", "b"),
        ] {
            assert_ne!(other.expose(), made.expose());
        }
    }

    #[test]
    fn only_the_same_key_and_client_open_what_was_sealed() {
        let codes = ["CANARY-1", "T2"].map(|code| TenantCode::parse(code).unwrap());
        let sealed = sealer(1).seal("acme", &codes).unwrap();
        assert!(!sealed.contains("CANARY"));
        assert_ne!(sealer(1).seal("acme", &codes).unwrap(), sealed);
        let opened = sealer(1).open("acme", &sealed).unwrap();
        assert_eq!(opened.iter().map(TenantCode::expose).collect::<Vec<_>>(), ["CANARY-1", "T2"]);
        assert!(sealer(2).open("acme", &sealed).is_none());
        assert!(sealer(1).open("other", &sealed).is_none());
        assert!(sealer(1).open("acme", &sealed[1..]).is_none());
        assert!(sealer(1).open("acme", "").is_none());
        let none = sealer(1).seal("acme", &[]).unwrap();
        assert!(sealer(1).open("acme", &none).unwrap().is_empty());
    }
}
