//! What stands for a tenant or a token where its code or its id must not be.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use super::DIGEST_KEY_LEN;

/// Stands for a tenant in stored rows, answers and logs: a keyed digest of its code, the same for
/// all clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantRef([u8; 16]);

impl TenantRef {
    /// The truncated HMAC.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From what [`TenantRef::bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From lower-case hex. `None`: not the text of a reference.
    pub fn from_text(text: &str) -> Option<Self> {
        bytes(text).map(Self)
    }
}

impl fmt::Display for TenantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TenantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes [`TenantRef`]s.
pub struct TenantRefs {
    key: hmac::Key,
    /// For the feed, whose other side names tenants too.
    secret: Zeroizing<[u8; DIGEST_KEY_LEN]>,
}

impl TenantRefs {
    /// `key` is the digest key, or the one of `state.key_file`.
    pub fn new(key: &[u8; DIGEST_KEY_LEN]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), secret: Zeroizing::new(*key) }
    }

    /// The key itself.
    pub fn expose_key(&self) -> &[u8; DIGEST_KEY_LEN] {
        &self.secret
    }

    /// The reference of a tenant code; the same for all clients.
    pub fn of(&self, code: &str) -> TenantRef {
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(b"tenantgate tenant reference\0");
        mac.update(code.as_bytes());
        TenantRef(first_half(mac.sign().as_ref()))
    }
}

/// Stands for the `jti` of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenRef([u8; 16]);

impl TokenRef {
    /// The truncated hash.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From what [`TokenRef::bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Of a `jti` (RFC 7519, section 4.1.7).
    pub fn of(jti: &str) -> Self {
        Self(first_half(digest::digest(&digest::SHA256, jti.as_bytes()).as_ref()))
    }

    /// From lower-case hex. `None`: not the text of a reference.
    pub fn from_text(text: &str) -> Option<Self> {
        bytes(text).map(Self)
    }
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn first_half(long: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&long[..16]);
    half
}

fn bytes(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

fn write_hex(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0; 32];
    hex::encode_to_slice(bytes, &mut text).map_err(|_| fmt::Error)?;
    f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_round_trip_and_depend_on_the_key() {
        let reference = TenantRefs::new(&[7; 32]).of("CANARY");
        assert_eq!(TenantRef::from_text(&reference.to_string()), Some(reference));
        assert_ne!(TenantRefs::new(&[8; 32]).of("CANARY"), reference);
        for bad in ["", "zz", &"0".repeat(31), &"0".repeat(34)] {
            assert_eq!(TenantRef::from_text(bad), None);
        }
        assert_eq!(TokenRef::from_text(&TokenRef::of("a").to_string()), Some(TokenRef::of("a")));
    }
}
