//! TLS on a listener: certificates that change under a running process.

mod identity;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Gauge, IntGauge};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::identity::CertificateName;
use self::identity::NamedClients;
use super::listener::Socket;
use crate::config::ServerTls;
use crate::domain::{Clock, Problem, Timestamp};
use crate::telemetry::Metrics;

/// cert-manager and the kubelet swap symbolic links, so the content is what is compared.
const LOOK_EVERY: Duration = Duration::from_secs(4);

/// The protocols that a listener speaks, for ALPN.
#[derive(Clone, Copy)]
pub enum Protocols {
    /// HTTP/2 alone, for gRPC.
    Http2,
    /// HTTP/2 and HTTP/1.1.
    Http,
}

/// What a listener shows now, and which clients it lets in.
pub struct Tls {
    listener: &'static str,
    protocols: Protocols,
    files: ServerTls,
    clock: Arc<dyn Clock>,
    current: ArcSwap<ServerConfig>,
    seen: Mutex<Seen>,
    /// Whom it lets in has changed so often.
    admission: watch::Sender<u64>,
    expiry: Gauge,
    ok: IntGauge,
}

/// The content of the files.
#[derive(PartialEq)]
struct Material {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

struct Seen {
    in_force: Material,
    validity: Validity,
    /// The last problem that was logged.
    problem: Option<String>,
    /// A problem that may pass by itself: a certificate and its key are not swapped in one step.
    suspected: bool,
    warned_of_expiry: bool,
}

#[derive(Clone, Copy)]
struct Validity {
    from: Timestamp,
    until: Timestamp,
}

impl Validity {
    /// When a fifth of its time is left. Programs renew at a third.
    fn warn_at(self) -> Timestamp {
        self.until.minus(self.until.since(self.from) / 5)
    }
}

impl Tls {
    /// Reads the files; wrong ones are a problem that names `listen.NAME.tls`.
    pub fn open(
        listener: &'static str,
        protocols: Protocols,
        files: &ServerTls,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, Problem> {
        let problem = |message| Problem { field: format!("listen.{listener}.tls"), message };
        let in_force = Material::read(files).map_err(problem)?;
        let (config, validity) = in_force.config(files, protocols).map_err(problem)?;
        let expiry = metrics.certificate_expiry.with_label_values(&[listener]);
        let ok = metrics.certificate_ok.with_label_values(&[listener]);
        expiry.set(validity.until.secs() as f64);
        ok.set(1);
        Ok(Arc::new(Self {
            listener,
            protocols,
            files: files.clone(),
            clock: Arc::clone(clock),
            current: ArcSwap::from_pointee(config),
            seen: Mutex::new(Seen {
                in_force,
                validity,
                problem: None,
                suspected: false,
                warned_of_expiry: false,
            }),
            admission: watch::Sender::new(0),
            expiry,
            ok,
        }))
    }

    /// With the certificate of now.
    pub async fn handshake(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        TlsAcceptor::from(self.current.load_full()).accept(socket).await
    }

    /// Follows which clients this listener lets in.
    pub fn admission(&self) -> watch::Receiver<u64> {
        self.admission.subscribe()
    }

    /// Takes changed files as long as this runs.
    pub async fn follow(self: Arc<Self>) {
        loop {
            self.look();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Reads the files, and takes what they say if that is good.
    fn look(&self) {
        let mut seen = self.seen();
        let material = Material::read(&self.files);
        match material {
            Ok(material) if material == seen.in_force => self.is_good(&mut seen),
            Ok(material) => match material.config(&self.files, self.protocols) {
                Ok((config, validity)) => {
                    self.current.store(Arc::new(config));
                    self.expiry.set(validity.until.secs() as f64);
                    if material.client_ca != seen.in_force.client_ca {
                        self.admission.send_modify(|changes| *changes += 1);
                    }
                    (seen.in_force, seen.validity) = (material, validity);
                    seen.warned_of_expiry = false;
                    tracing::info!(listener = self.listener, "a new certificate is in use");
                    self.is_good(&mut seen);
                }
                Err(problem) => self.is_broken(&mut seen, problem),
            },
            Err(problem) => self.is_broken(&mut seen, problem),
        }
        self.look_at_expiry(&mut seen);
    }

    fn is_good(&self, seen: &mut Seen) {
        (seen.problem, seen.suspected) = (None, false);
        self.ok.set(1);
    }

    fn is_broken(&self, seen: &mut Seen, problem: String) {
        if !std::mem::replace(&mut seen.suspected, true) {
            return;
        }
        self.ok.set(0);
        if seen.problem.as_ref() != Some(&problem) {
            tracing::error!(
                listener = self.listener,
                problem,
                "the certificate files are broken, the last good ones stay in use"
            );
            seen.problem = Some(problem);
        }
    }

    fn look_at_expiry(&self, seen: &mut Seen) {
        let now = self.clock.now();
        if now >= seen.validity.warn_at() && !seen.warned_of_expiry {
            seen.warned_of_expiry = true;
            let hours = seen.validity.until.since(now).as_secs() / 3600;
            tracing::warn!(listener = self.listener, hours, "the certificate expires soon");
        }
    }

    /// A line for people.
    pub fn describe(&self) -> String {
        let seen = self.seen();
        let hours = seen.validity.until.since(self.clock.now()).as_secs() / 3600;
        let problem = seen.problem.as_ref().map(|problem| format!("; files broken: {problem}"));
        let problem = problem.unwrap_or_default();
        format!("certificate of {}: {hours} h left{problem}\n", self.listener)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Material {
    fn read(files: &ServerTls) -> Result<Self, String> {
        Ok(Self {
            certificate: read(&files.cert_file)?,
            key: read(&files.key_file)?.into(),
            client_ca: files.client_ca_file.as_deref().map(read).transpose()?,
        })
    }

    fn config(
        &self,
        files: &ServerTls,
        protocols: Protocols,
    ) -> Result<(ServerConfig, Validity), String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificates = certificates(&self.certificate, &files.cert_file)?;
        let validity = validity(&certificates[0], &files.cert_file)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            broken(&files.key_file, "holds no private key as PEM", "write the key's PEM into it")
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?;
        let builder = match (&self.client_ca, &files.client_ca_file) {
            (Some(pem), Some(file)) => {
                let roots = roots(pem, file)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| broken(file, error, "name the CA of the clients"))?;
                builder.with_client_cert_verifier(named(verifier, &files.client_identities))
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(|error| {
            broken(&files.cert_file, error, "it and `key_file` have to belong together")
        })?;
        config.alpn_protocols = match protocols {
            Protocols::Http2 => vec![b"h2".to_vec()],
            Protocols::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Ok((config, validity))
    }
}

fn named(verifier: Arc<dyn ClientCertVerifier>, names: &[String]) -> Arc<dyn ClientCertVerifier> {
    if names.is_empty() { verifier } else { Arc::new(NamedClients::new(verifier, names.to_vec())) }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| broken(file, error, "correct the path or its permissions"))
}

fn broken(file: &Path, wrong: impl std::fmt::Display, cure: &str) -> String {
    format!("{}: {wrong}; {cure}", file.display())
}

fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = parsed.unwrap_or_default();
    if certificates.is_empty() {
        return Err(broken(file, "holds no certificates as PEM", "write their PEM into it"));
    }
    Ok(certificates)
}

fn roots(pem: &[u8], file: &Path) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, file)? {
        roots
            .add(certificate)
            .map_err(|error| broken(file, error, "keep CA certificates alone in it"))?;
    }
    Ok(Arc::new(roots))
}

fn validity(certificate: &CertificateDer<'_>, file: &Path) -> Result<Validity, String> {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    let (_, parsed) =
        parsed.map_err(|_| broken(file, "is not an X.509 certificate", "write its PEM into it"))?;
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
    };
    let validity = parsed.validity();
    Ok(Validity { from: at(validity.not_before), until: at(validity.not_after) })
}
