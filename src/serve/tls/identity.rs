use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::extensions::GeneralName;

/// In characters; SPIFFE allows 2,048, which no row of a record needs.
const LONGEST_NAME: usize = 256;

/// What a client is called by its certificate, which the handshake has verified: for records, not
/// for decisions.
#[derive(Clone, Debug)]
pub struct CertificateName(pub Arc<str>);

impl CertificateName {
    /// Its first URI or DNS name; its subject where it has neither.
    pub fn of(certificate: &[u8]) -> Self {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        let name = parsed.ok().map(|(_, certificate)| {
            let alternatives = certificate.subject_alternative_name().ok().flatten();
            let names = alternatives.map(|names| &names.value.general_names);
            let name = names.into_iter().flatten().find_map(|name| match name {
                GeneralName::URI(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            });
            name.unwrap_or_else(|| certificate.subject().to_string())
        });
        Self(name.unwrap_or_default().chars().take(LONGEST_NAME).collect::<String>().into())
    }
}

/// Lets in those whose certificate is good and has one of these names.
#[derive(Debug)]
pub struct NamedClients {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl NamedClients {
    pub fn new(verifier: Arc<dyn ClientCertVerifier>, names: Vec<String>) -> Self {
        Self { verifier, names }
    }

    fn is_named(&self, certificate: &[u8]) -> bool {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
            return false;
        };
        let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return false };
        alternatives.value.general_names.iter().any(|name| match name {
            GeneralName::URI(uri) => self.names.iter().any(|name| name == uri),
            GeneralName::DNSName(dns) => {
                self.names.iter().any(|name| name.eq_ignore_ascii_case(dns))
            }
            _ => false,
        })
    }
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        if self.is_named(end_entity) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
