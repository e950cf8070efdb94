"""TLS between the real Envoy and tenantgate: mutual on the check listener, plain TLS on the token listener, certificates
that are renewed under way, and callers that show none or the wrong one."""

import datetime
import socket
import ssl

import pytest
import requests
import stack
import yaml
from conftest import World, bin_dir
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from replies import REPORT

NAME = "tenantgate.gates.svc"


class Authority:
    """A CA that signs certificates for this test."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.pem = self._sign(self.name, self.key.public_key(), self.name, [], is_ca=True)

    def _sign(self, subject, public, issuer, names, is_ca=False):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
                   .not_valid_after(now + datetime.timedelta(days=30))
                   .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, folder, name):
        """tls.crt, tls.key and ca.crt as a Secret of the type kubernetes.io/tls has them; each file is replaced whole."""
        folder.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        form, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        files = {
            "tls.crt": self._sign(subject, key.public_key(), self.name, [name]),
            "tls.key": key.private_bytes(serialization.Encoding.PEM, form, bare),
            "ca.crt": self.pem,
        }
        for file, content in files.items():
            new = folder / f"{file}.new"
            new.write_bytes(content)
            new.chmod(0o600)
            new.rename(folder / file)
        return folder


class TlsWorld(World):
    def __init__(self, children, work, authority):
        self.authority, self.server = authority, authority.issue(work / "server", NAME)
        authority.issue(work / "client", "envoy")

        def with_tls(config):
            files = {"cert_file": "server/tls.crt", "key_file": "server/tls.key"}
            mutual = {**files, "client_ca_file": "server/ca.crt"}
            config["listen"]["check"] = {"address": config["listen"]["check"], "tls": mutual}
            config["listen"]["token"] = {"address": config["listen"]["token"], "tls": files}

        super().__init__(children, work, with_tls, clients=[f"app-{n}" for n in range(6)])

    def start_envoy(self, config, name):
        for cluster in config["static_resources"]["clusters"]:
            if cluster["name"].startswith("tenantgate-"):
                cluster["transport_socket"] = {"name": "tls", "typed_config": self.context()}
        return super().start_envoy(config, name)

    def context(self):
        place = lambda file: {"filename": str(file)}
        return {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": NAME,
            "common_tls_context": {
                "tls_certificates": [{"certificate_chain": place(self.work / "client/tls.crt"),
                                      "private_key": place(self.work / "client/tls.key")}],
                "validation_context": {
                    "trusted_ca": place(self.work / "server/ca.crt"),
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}],
                },
            },
        }

    def serial(self, listener):
        """The serial number of the certificate that a listener shows."""
        host, port = self.tenantgate.ports[listener].rsplit(":", 1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((host, int(port)), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname=NAME) as connection:
                return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number


@pytest.fixture(scope="module")
def tls_world(tmp_path_factory):
    with stack.Children() as children:
        work = tmp_path_factory.mktemp("tls")
        yield TlsWorld(children, work, Authority())


def test_envoy_mints_and_checks_over_tls(tls_world):
    world = tls_world
    client = world.client("T1")
    token = world.token(client)
    assert world.get(REPORT.format("T1"), token).status_code == 200
    assert world.get(REPORT.format("T2"), token).status_code == 403


def test_a_caller_without_a_certificate_gets_no_answer(tls_world):
    host, port = tls_world.tenantgate.ports["check"].rsplit(":", 1)
    context = ssl.create_default_context(cafile=tls_world.work / "server/ca.crt")
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port)), timeout=5) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        with context.wrap_socket(plain, server_hostname=NAME) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            while connection.recv(100):
                pass
            raise ConnectionError("closed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Unverified HTTPS")
def test_plain_text_and_old_versions_are_refused(tls_world):
    host, port = tls_world.tenantgate.ports["token"].rsplit(":", 1)
    with pytest.raises(requests.RequestException):
        requests.get(f"http://{host}:{port}/oauth2/jwks", timeout=5)
    assert requests.get(f"https://{host}:{port}/oauth2/jwks", timeout=5, verify=False).status_code == 200
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection((host, int(port)), timeout=5) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(plain, server_hostname=NAME)


def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(tls_world):
    world = tls_world
    before = world.serial("token")
    world.authority.issue(world.server, NAME)
    stack.wait_until("the renewed certificate", lambda: world.serial("token") != before, world.tenantgate)
    renewed = world.serial("token")
    (world.server / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nrubbish\n")
    ready = lambda: requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).text
    stack.wait_until("the complaint", lambda: 'tenantgate_certificate_ok{listener="token"} 0' in ready(), world.tenantgate)
    assert world.serial("token") == renewed
    token = world.token(world.client("T1"))
    assert world.get(REPORT.format("T1"), token).status_code == 200
    world.authority.issue(world.server, NAME)
    stack.wait_until("the repair", lambda: world.serial("token") not in (renewed, before), world.tenantgate)
    expiry = [line for line in ready().splitlines() if line.startswith("tenantgate_certificate_expiry_timestamp_seconds{")]
    assert len(expiry) == 2, expiry


def test_validate_names_the_file_that_is_broken(tls_world, tmp_path):
    broken = tmp_path / "server"
    tls_world.authority.issue(broken, NAME)
    other = Authority().issue(tmp_path / "other", NAME)
    config = yaml.safe_load((tls_world.work / "tenantgate.yaml").read_text())
    config["listen"]["token"]["tls"] = {"cert_file": str(broken / "tls.crt"), "key_file": str(other / "tls.key")}
    file = tls_world.work / "mismatch.yaml"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(stack.Failure, match="listen.token.tls"):
        stack.tenantgate(bin_dir(), "validate", "--config", file)
