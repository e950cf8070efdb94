/// The signature algorithms of RFC 7518 and RFC 8037 that are accepted at all. Symmetric ones and
/// `none` have no value here, so they cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256 (RFC 7518, section 3.4).
    Es256,
    /// ECDSA with P-384 and SHA-384 (RFC 7518, section 3.4).
    Es384,
    /// Ed25519 (RFC 8037, section 3.1).
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3).
    Rs256,
    /// RSASSA-PSS with SHA-256 (RFC 7518, section 3.5).
    Ps256,
}

impl Algorithm {
    /// In the order in which an `alg` that a key leaves out is chosen.
    pub const ALL: [Algorithm; 5] =
        [Self::Es256, Self::Es384, Self::EdDsa, Self::Rs256, Self::Ps256];

    /// The value of the `alg` header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// `None`: not an algorithm that is accepted here; `none` and the HMACs never are.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}
