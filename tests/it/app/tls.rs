//! Listeners with TLS, a Unix socket for tokens, and the management listener.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::*;

/// `tls.crt`, `tls.key` and `ca.crt` for `localhost`, good for servers and clients.
fn write_certificates(folder: &Path) -> [String; 3] {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
    let texts = [leaf.pem(), key.serialize_pem(), ca];
    for (name, text) in ["tls.crt", "tls.key", "ca.crt"].iter().zip(&texts) {
        std::fs::write(folder.join(name), text).unwrap();
    }
    texts
}

#[tokio::test]
async fn checks_with_client_certificates_tokens_with_tls_and_management_are_served() {
    let tls = "tls: { cert_file: tls.crt, key_file: tls.key";
    let listen = format!(
        "listen:\n  check: {{ address: \"127.0.0.1:0\", {tls}, client_ca_file: ca.crt, \
         client_identities: [localhost] }} }}\n  \
         token: {{ address: \"127.0.0.1:0\", {tls} }} }}\n  \
         admin: \"127.0.0.1:0\"\n  management: \"127.0.0.1:0\"\n"
    );
    let plain = r#"listen: { check: "127.0.0.1:0", token: "127.0.0.1:0", admin: "127.0.0.1:0" }"#;
    let mut written = None;
    let prepare = |folder: &Path| written = Some(write_certificates(folder));
    let gate = Gate::prepared(&CONFIG.replace(plain, &listen), prepare).await;
    let [certificate, key, ca] = written.unwrap();
    let addresses = &gate.running.addresses;

    let root = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
    let port = addresses.token.as_ref().unwrap().to_string();
    let port = port.rsplit(':').next().unwrap();
    let answer = http
        .post(format!("https://localhost:{port}/oauth2/token"))
        .basic_auth("acme", Some(SECRET))
        .form(&[("grant_type", "client_credentials")])
        .send();
    let body: Value = answer.await.unwrap().json().await.unwrap();
    let token = body["access_token"].as_str().unwrap();

    let port = addresses.check.to_string();
    let port = port.rsplit(':').next().unwrap();
    let connect = async |tls: ClientTlsConfig| {
        let endpoint = Channel::from_shared(format!("https://localhost:{port}")).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await
    };
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca));
    let known = trusting.clone().identity(Identity::from_pem(&certificate, &key));
    let client = AuthorizationClient::new(connect(known).await.unwrap());
    let headers = [("authorization", &*format!("Bearer {token}"))];
    assert_eq!(Gate::ask(client, "/api/T1/report", &headers).await.status, 200);
    // With TLS 1.3 a refusal may arrive with the first answer only.
    if let Ok(channel) = connect(trusting).await {
        let nothing = envoy_types::pb::envoy::service::auth::v3::CheckRequest::default();
        assert!(AuthorizationClient::new(channel).check(nothing).await.is_err());
    }

    let management = addresses.management.as_ref().unwrap();
    let answer = reqwest::get(format!("http://{management}/v1/clients")).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"], "invalid_token");
    let shown = reqwest::get(format!("http://{}/metrics", addresses.admin)).await.unwrap();
    let shown = shown.text().await.unwrap();
    assert!(shown.contains(r#"tenantgate_certificate_expiry_timestamp_seconds{listener="check"}"#));
}

#[tokio::test]
async fn tokens_are_minted_through_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("token.sock");
    let config = CONFIG.replace(
        r#"token: "127.0.0.1:0""#,
        &format!(r#"token: {{ address: "unix:{}", mode: "0600" }}"#, socket.display()),
    );
    let gate = Gate::with_config(&config).await;
    let bound = gate.running.addresses.token.as_ref().unwrap().to_string();
    assert_eq!(bound, format!("unix:{}", socket.display()));
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let form = format!("grant_type=client_credentials&client_id=acme&client_secret={SECRET}");
    let request = format!(
        "POST /oauth2/token HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("access_token"), "{answer}");
}
