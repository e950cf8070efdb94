use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::authz::trust::{Curve, PublicKey};
use crate::domain::Algorithm;

/// 3072 bits make every mint three times dearer and every token 170 characters longer; tokens live
/// for minutes, and who wants more strength takes ES256.
const RSA_SIZE: KeySize = KeySize::Rsa2048;

/// What we sign with: a subset of what we accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// The default.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA of 2048 bits.
    Rs256,
}

impl SigningAlgorithm {
    /// Every algorithm that keys are made for.
    pub const ALL: [Self; 3] = [Self::Es256, Self::EdDsa, Self::Rs256];

    /// `None`: no keys are made for it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signing| Algorithm::from(*signing).as_str() == name)
    }
}

impl From<SigningAlgorithm> for Algorithm {
    fn from(signing: SigningAlgorithm) -> Self {
        match signing {
            SigningAlgorithm::Es256 => Self::Es256,
            SigningAlgorithm::EdDsa => Self::EdDsa,
            SigningAlgorithm::Rs256 => Self::Rs256,
        }
    }
}

/// Why a private key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// The file is not PKCS#8 in PEM.
    #[error("holds no PEM section PRIVATE KEY (PKCS#8)")]
    Pem,
    /// The key is not one for this algorithm.
    #[error("the private key does not parse as one for {}", Algorithm::from(*.0).as_str())]
    Key(SigningAlgorithm),
}

/// The library failed to make a key or a signature.
#[derive(Debug, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct SignError;

impl From<aws_lc_rs::error::Unspecified> for SignError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// A private key, parsed once. The library holds the numbers and clears them.
pub enum KeyPair {
    /// A P-256 key.
    Es256(EcdsaKeyPair),
    /// An Ed25519 key.
    EdDsa(Ed25519KeyPair),
    /// An RSA key.
    Rs256(RsaKeyPair),
}

impl KeyPair {
    /// A new random key.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, SignError> {
        Ok(match algorithm {
            SigningAlgorithm::Es256 => {
                Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?)
            }
            SigningAlgorithm::EdDsa => Self::EdDsa(Ed25519KeyPair::generate()?),
            SigningAlgorithm::Rs256 => Self::Rs256(RsaKeyPair::generate(RSA_SIZE)?),
        })
    }

    /// Reads PKCS#8.
    pub fn from_pem(pem: &[u8], algorithm: SigningAlgorithm) -> Result<Self, PrivateKeyError> {
        let mut key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| PrivateKeyError::Pem)?;
        let der = key.secret_pkcs8_der();
        let pair = match algorithm {
            SigningAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Self::Es256)
            }
            SigningAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(der).map(Self::EdDsa),
            SigningAlgorithm::Rs256 => RsaKeyPair::from_pkcs8(der).map(Self::Rs256),
        };
        key.zeroize();
        pair.map_err(|_| PrivateKeyError::Key(algorithm))
    }

    /// PKCS#8 version 1, as OpenSSL reads it.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, SignError> {
        let base64 = Zeroizing::new(match self {
            Self::Es256(pair) => STANDARD.encode(pair.to_pkcs8v1()?),
            Self::EdDsa(pair) => STANDARD.encode(pair.to_pkcs8v1()?),
            Self::Rs256(pair) => STANDARD.encode(pair.as_der()?.as_ref()),
        });
        // As large as it will get, so that growing leaves no copies behind.
        let mut pem = Zeroizing::new(String::with_capacity(base64.len() * 2 + 100));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for (at, character) in base64.chars().enumerate() {
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push_str("\n-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    /// What it signs with.
    pub fn algorithm(&self) -> SigningAlgorithm {
        match self {
            Self::Es256(_) => SigningAlgorithm::Es256,
            Self::EdDsa(_) => SigningAlgorithm::EdDsa,
            Self::Rs256(_) => SigningAlgorithm::Rs256,
        }
    }

    /// The half that is published.
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::Es256(pair) => {
                // An uncompressed point: a byte 4, then both coordinates.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(Curve::P256.size());
                PublicKey::Ec { curve: Curve::P256, x: x.into(), y: y.into() }
            }
            Self::EdDsa(pair) => PublicKey::Ed25519(pair.public_key().as_ref().into()),
            Self::Rs256(pair) => {
                let numbers = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                PublicKey::Rsa { n: numbers.n, e: numbers.e }
            }
        }
    }

    /// The signature in the form that a JWS carries. Not by `jsonwebtoken`, which parses the
    /// private key at every signature.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        Ok(match self {
            Self::Es256(pair) => pair.sign(&random, message)?.as_ref().to_vec(),
            Self::EdDsa(pair) => pair.try_sign(message)?.as_ref().to_vec(),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                signature
            }
        })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} private key]", Algorithm::from(self.algorithm()).as_str())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::authz::trust::TrustedKey;

    #[test]
    fn a_pair_survives_its_pem_and_its_signatures_verify() {
        for signing in SigningAlgorithm::ALL {
            let pair = KeyPair::generate(signing).unwrap();
            let pem = pair.to_pem().unwrap();
            assert!(pem.lines().all(|line| line.len() <= 64), "{signing:?}");
            let again = KeyPair::from_pem(pem.as_bytes(), signing).unwrap();
            assert_eq!(again.public_key(), pair.public_key());
            let key = TrustedKey::new("k", signing.into(), &pair.public_key()).unwrap();
            let signature = URL_SAFE_NO_PAD.encode(again.sign(b"a.b").unwrap());
            assert!(key.verify(b"a.b", &signature), "{signing:?}");
        }
    }

    #[test]
    fn a_pem_of_another_kind_is_refused() {
        let ec = KeyPair::generate(SigningAlgorithm::Es256).unwrap().to_pem().unwrap();
        for signing in [SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256] {
            let error = KeyPair::from_pem(ec.as_bytes(), signing).unwrap_err();
            assert_eq!(error, PrivateKeyError::Key(signing));
        }
        let cut = &ec.as_bytes()[..ec.len() / 2];
        let other = ec.replace("PRIVATE KEY", "CERTIFICATE");
        for bad in [&b""[..], b"hello", cut, other.as_bytes()] {
            let error = KeyPair::from_pem(bad, SigningAlgorithm::Es256).unwrap_err();
            assert_eq!(error, PrivateKeyError::Pem);
        }
    }

    #[test]
    fn debug_shows_no_private_key() {
        for signing in SigningAlgorithm::ALL {
            let name = Algorithm::from(signing).as_str();
            let pair = KeyPair::generate(signing).unwrap();
            assert_eq!(format!("{pair:?}"), format!("[{name} private key]"));
        }
    }
}
