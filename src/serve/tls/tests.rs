use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::ListenAddress;
use crate::domain::SystemClock;
use crate::serve::{Bound, Connections, Entrance, HttpLimits, Listener, Patience, serve_http};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let name = |name: &&str| match name.contains("://") {
            true => SanType::URI((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        };
        params.subject_alt_names = names.iter().map(name).collect();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A folder like one that the kubelet mounts: files are links into a folder that is swapped whole.
struct Mount {
    folder: tempfile::TempDir,
    version: u32,
}

impl Mount {
    fn new(pair: &Pair, client_ca: Option<&Ca>) -> Self {
        let mut mount = Self { folder: tempfile::tempdir().unwrap(), version: 0 };
        mount.swap(pair, client_ca);
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), mount.path(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn swap(&mut self, pair: &Pair, client_ca: Option<&Ca>) {
        self.version += 1;
        let version = format!("..{}", self.version);
        std::fs::create_dir(self.path(&version)).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(self.path(&version).join(name), text).unwrap();
        };
        write("tls.crt", &pair.certificate);
        write("tls.key", &pair.key);
        write("ca.crt", client_ca.map_or("", |ca| &ca.pem));
        std::os::unix::fs::symlink(&version, self.path("..next")).unwrap();
        std::fs::rename(self.path("..next"), self.path("..data")).unwrap();
    }

    fn files(&self, client_ca: bool, identities: &[&str]) -> ServerTls {
        ServerTls {
            cert_file: self.path("tls.crt"),
            key_file: self.path("tls.key"),
            client_ca_file: client_ca.then(|| self.path("ca.crt")),
            client_identities: identities.iter().map(ToString::to_string).collect(),
        }
    }
}

fn open(files: &ServerTls) -> Arc<Tls> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Tls::open("token", Protocols::Http, files, &clock, &Metrics::new()).unwrap()
}

async fn start(tls: &Arc<Tls>) -> SocketAddr {
    let any = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let (listener, Bound::Tcp(address)) = Listener::bind(&any).await.unwrap() else { panic!() };
    let connections = Connections::new("token", 8, Patience::default(), &Metrics::new());
    let entrance = Entrance { listener, tls: Some(Arc::clone(tls)), connections };
    let router = Router::new().route("/", get(|| async { "hello" }));
    let never = CancellationToken::new();
    tokio::spawn(serve_http(entrance, router, HttpLimits::default(), never));
    address
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(address: SocketAddr, trusted: &Ca, client: Option<&Pair>) -> io::Result<Stream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = roots(trusted.pem.as_bytes(), Path::new("ca")).unwrap();
    let builder = ClientConfig::builder_with_provider(provider);
    let builder =
        builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match client {
        Some(Pair { certificate, key }) => {
            let chain = certificates(certificate.as_bytes(), Path::new("client")).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("gate.test").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

async fn ask(stream: &mut Stream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: gate.test\r\n\r\n").await?;
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}

/// Whether a request gets an answer: with TLS 1.3 a client learns of its refusal with the first
/// read.
async fn passes(address: SocketAddr, trusted: &Ca, client: Option<&Pair>) -> bool {
    let Ok(mut stream) = connect(address, trusted, client).await else { return false };
    ask(&mut stream).await.is_ok_and(|answer| answer.ends_with("hello"))
}

#[tokio::test]
async fn a_swapped_certificate_is_taken_and_of_a_broken_one_the_last_good_stays() {
    let (old, new) = (Ca::new(), Ca::new());
    let mut mount = Mount::new(&old.issue(&["gate.test"]), None);
    let tls = open(&mount.files(false, &[]));
    let address = start(&tls).await;
    assert!(passes(address, &old, None).await && !passes(address, &new, None).await);
    let mut kept = connect(address, &old, None).await.unwrap();

    mount.swap(&new.issue(&["gate.test"]), None);
    tls.look();
    assert!(passes(address, &new, None).await && !passes(address, &old, None).await);
    assert!(ask(&mut kept).await.unwrap().ends_with("hello"), "a new certificate ends nothing");

    let mismatched = Pair { key: new.issue(&["gate.test"]).key, ..old.issue(&["gate.test"]) };
    mount.swap(&mismatched, None);
    tls.look();
    assert_eq!(tls.ok.get(), 1, "two files are not swapped in one step");
    tls.look();
    assert_eq!(tls.ok.get(), 0);
    assert!(tls.describe().contains("belong together"), "{}", tls.describe());
    assert!(passes(address, &new, None).await);
    std::fs::remove_file(mount.path("tls.crt")).unwrap();
    tls.look();
    assert!(tls.describe().contains("tls.crt: No such file"), "{}", tls.describe());
    assert!(passes(address, &new, None).await);
}

#[tokio::test]
async fn only_clients_of_the_ca_with_one_of_the_names_are_let_in() {
    const ENVOY: &str = "spiffe://example.org/ns/gateway/sa/envoy";
    let (ours, other) = (Ca::new(), Ca::new());
    let mut mount = Mount::new(&ours.issue(&["gate.test"]), Some(&ours));
    let tls = open(&mount.files(true, &[ENVOY, "envoy.test"]));
    let address = start(&tls).await;
    for (client, expected) in [
        (Some(ours.issue(&[ENVOY])), true),
        (Some(ours.issue(&["other.test", "Envoy.test"])), true),
        (Some(ours.issue(&["spiffe://example.org/ns/gateway/sa/other"])), false),
        (Some(ours.issue(&[])), false),
        (Some(other.issue(&[ENVOY])), false),
        (None, false),
    ] {
        assert_eq!(passes(address, &ours, client.as_ref()).await, expected);
    }

    // A CA that is taken away takes its clients' connections along.
    let client = ours.issue(&[ENVOY]);
    let mut kept = connect(address, &ours, Some(&client)).await.unwrap();
    assert!(ask(&mut kept).await.unwrap().ends_with("hello"));
    mount.swap(&ours.issue(&["gate.test"]), Some(&other));
    tls.look();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), kept.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still open");
    assert!(!passes(address, &ours, Some(&client)).await);
    assert!(passes(address, &ours, Some(&other.issue(&[ENVOY]))).await);
}

#[test]
fn a_certificate_warns_when_a_fifth_of_its_time_is_left() {
    let validity = Validity { from: Timestamp::from_secs(1000), until: Timestamp::from_secs(2000) };
    assert_eq!(validity.warn_at(), Timestamp::from_secs(1800));
    let mount = Mount::new(&Ca::new().issue(&["gate.test"]), None);
    let tls = open(&mount.files(false, &[]));
    // The library's default is the year 4096; a timestamp of ours ends in 2554.
    assert!(tls.expiry.get() > 1.8e10, "{}", tls.expiry.get());
}

#[test]
fn what_is_wrong_at_the_start_is_told_with_its_cure() {
    let mount = Mount::new(&Ca::new().issue(&["gate.test"]), None);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut files = mount.files(true, &[]);
    let told = |files: &ServerTls| {
        let opened = Tls::open("check", Protocols::Http2, files, &clock, &Metrics::new());
        opened.err().unwrap().to_string()
    };
    assert!(told(&files).starts_with("listen.check.tls: "), "{}", told(&files));
    assert!(
        told(&files).ends_with("ca.crt: holds no certificates as PEM; write their PEM into it")
    );
    files.client_ca_file = None;
    files.key_file = files.cert_file.clone();
    assert!(told(&files).contains("holds no private key"), "{}", told(&files));
}
