"""The lookup callout and its own token, with the real binary, the provider's fault switches and a real Envoy."""

import base64
import json
import re
import secrets
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from itertools import count
from types import SimpleNamespace
from urllib.parse import parse_qs, quote

import pytest
import stack
from conftest import Client, bin_dir
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey
from live import live_world
from replies import REPORT, assert_denied

ODD_ID = "team:app@x+1~a"
CLIENTS = [f"app-{number:03}" for number in range(300)]
NUMBERS = count(1000)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with live_world(tmp_path_factory.mktemp("callout"), clients=[*CLIENTS, ODD_ID]) as world:
        yield world


@pytest.fixture
def set_up(world):
    """Reloads with the lookup's config changed, and the config as a whole."""

    def set_up(change_lookup=lambda lookup: None, change=lambda config: None, token_lifetime=300):
        world.faults()
        world.provider.control("PUT", f"token-lifetime/{token_lifetime}")

        def change_both(config):
            lookup = config["tenants"]["lookup"]
            # Another config means another directory: no token, no backoff, no retries used up.
            lookup["auth"]["oauth2"]["default_lifetime"] = f"{next(NUMBERS)}s"
            change_lookup(lookup)
            change(config)

        world.reconfigure(change_both)

    yield set_up
    world.faults()
    world.provider.control("PUT", "token-lifetime/300")


def call(world, token, tenant="T1001"):
    return world.get(REPORT.format(tenant), token).status_code


def test_200_cold_mints_are_one_token_request_and_one_lookup_a_client(tmp_path):
    def patient(config):
        config["tenants"]["lookup"]["timeout"] = "20s"
        config["tenants"]["lookup"]["auth"]["oauth2"]["timeout"] = "10s"

    with live_world(tmp_path, clients=CLIENTS[:40], change_config=patient) as world:
        clients = [world.client("T1001") for _ in range(40)]
        # So slow that all 200 are under way together.
        world.faults(lookup="slow:500", token="slow:1500")
        start = threading.Barrier(200)

        def mint(number):
            start.wait()
            return world.mint(clients[number % 40])

        with ThreadPoolExecutor(200) as threads:
            answers = list(threads.map(mint, range(200)))
        assert {answer.status_code for answer in answers} == {200}
        counters = world.counters()
        assert counters["token_requests"] == 1
        assert counters["lookups"]["by_client"] == {client.id: 1 for client in clients}


def mint_for(world, seconds):
    """Mints for new clients, each of which needs a lookup; the time that each took."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        client = world.client("T1001")
        started = time.monotonic()
        answer = world.mint(client)
        times.append(time.monotonic() - started)
        assert answer.status_code == 200, answer.text
        time.sleep(0.05)
    return times


def renew_early(lookup):
    lookup["auth"]["oauth2"]["refresh_before_expiry"] = "2s"


def test_the_token_is_renewed_before_its_expiry_and_nobody_waits_for_it(world, set_up):
    set_up(renew_early, token_lifetime=4)
    world.token(world.client("T1001"))
    world.faults(token="slow:1000")
    issued = world.counters()["tokens_issued"]
    times = mint_for(world, seconds=5)  # past the expiry of the first
    assert world.counters()["tokens_issued"] > issued
    assert max(times) < 0.9


def test_while_the_token_lives_an_outage_of_the_token_endpoint_is_not_felt(world, set_up):
    set_up(renew_early, token_lifetime=4)
    world.token(world.client("T1001"))
    world.faults(token="500")
    # After the faults: a renewal just before is none of theirs.
    before = world.counters()
    mint_for(world, seconds=3)
    after = world.counters()
    assert after["token_requests"] > before["token_requests"], "no renewal was tried"
    assert after["tokens_issued"] == before["tokens_issued"]
    world.faults()
    world.wait_for("a new token", lambda: world.counters()["tokens_issued"] > before["tokens_issued"])
    mint_for(world, seconds=0.5)


def test_a_refused_token_is_replaced_and_the_lookup_asked_once_more(world, set_up):
    # Nothing is looked up in the background, which would meet the refusal first.
    set_up(change=lambda config: config["tenants"].update(freshness="token"))
    world.token(world.client("T1001"))
    world.provider.control("POST", "revoke-tokens")
    before, client = world.counters(), world.client("T1001")
    assert call(world, world.token(client)) == 200
    assert world.counters()["token_requests"] == before["token_requests"] + 1
    assert world.lookups_of(client) == 2


def test_invalid_client_is_reported_as_what_it_is(world, set_up):
    set_up(token_lifetime=1)
    samples = [
        'tenantgate_callout_token_requests_total{outcome="invalid_client"}',
        'tenantgate_lookups_total{outcome="callout_token"}',
    ]
    before = [world.metric(sample) or 0 for sample in samples]
    world.faults(token="invalid_client")
    time.sleep(1.2)  # whatever token there was has expired
    client = world.client("T1001")
    assert_denied(world.mint(client), 503, "temporarily_unavailable")
    assert all(world.metric(sample) > value for sample, value in zip(samples, before, strict=True))
    assert world.log_lines('"ERROR"', "`invalid_client`", "tenants.lookup.auth.oauth2")
    assert world.lookups_of(client) == 0


def test_private_key_jwt(world, set_up):
    key = ECKey.generate_key("P-256")
    pem = key.as_pem(private=True).decode()
    world.provider.control("PUT", "assertion-key", key.as_dict(private=False))
    file = world.secret_file("assertion.pem", pem.strip())

    def assert_itself(lookup):
        oauth2 = lookup["auth"]["oauth2"]
        del oauth2["client_secret_file"]
        oauth2 |= {"method": "private_key_jwt", "private_key_file": file, "kid": "callout-1"}

    set_up(assert_itself)
    assert call(world, world.token(world.client("T1001"))) == 200
    # Each assertion may be used once, and the key counts.
    world.provider.control("POST", "revoke-tokens")
    time.sleep(1.1)  # refused tokens are replaced at most once a second
    assert world.mint(world.client("T1001")).status_code == 200
    world.provider.control("DELETE", "assertion-key")
    set_up(assert_itself)
    assert_denied(world.mint(world.client("T1001")), 503, "temporarily_unavailable")


class StandIn(ThreadingHTTPServer):
    """A provider that wants to be asked in another way than the example provider; remembers every request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), StandInHandler)
        self.url = "http://127.0.0.1:{}".format(self.server_address[1])
        self.access_token = secrets.token_urlsafe(32)
        self.seen = []

    def sole(self, path_start):
        """The one request to there. Clients of earlier tests are still refreshed, and may be asked about too."""
        (request,) = [request for request in self.seen if request.path.startswith(path_start)]
        return request

    def lookup_of(self, client):
        return self.sole(f"/apps/{quote(client.id, safe='')}/")


class StandInHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        request = SimpleNamespace(command=self.command, path=self.path, headers=self.headers, body=body)
        self.server.seen.append(request)
        if self.path == "/token":
            reply = {"access_token": self.server.access_token, "token_type": "bearer", "expires_in": "300"}
        else:
            reply = {"apps": [{"tenant": "T1001"}, {"tenant": "T1002"}], "plan": "gold", "limits": {"seats": 25}}
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def stand_in(world):
    server = StandIn()
    world.canaries.add(server.access_token)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked_by(stand_in, **further):
    def change(lookup):
        lookup |= {"url": f"{stand_in.url}/apps/{{client_id}}/tenants?expand=all", "select": "$.apps[*].tenant"}
        lookup |= further

    return change


def test_a_static_bearer_token(world, set_up, stand_in):
    secret = secrets.token_urlsafe(32)
    set_up(asked_by(stand_in, auth={"bearer": {"token_file": world.secret_file("bearer", secret)}}))
    client = world.client()
    assert call(world, world.token(client)) == 200
    assert stand_in.lookup_of(client).headers["authorization"] == f"Bearer {secret}"


def test_basic_authentication(world, set_up, stand_in):
    secret = secrets.token_urlsafe(32)
    file = world.secret_file("password", secret)
    set_up(asked_by(stand_in, auth={"basic": {"username": "gate", "password_file": file}}))
    client = world.client()
    assert call(world, world.token(client)) == 200
    pair = base64.b64encode(f"gate:{secret}".encode()).decode()
    world.canaries.add(pair)
    assert stand_in.lookup_of(client).headers["authorization"] == f"Basic {pair}"


def test_client_secret_post_with_scope_and_audience(world, set_up, stand_in):
    def by_form(lookup):
        asked_by(stand_in)(lookup)
        further = {"method": "client_secret_post", "scope": "grants.read x", "audience": "https://grants.example"}
        lookup["auth"]["oauth2"] |= {"token_url": f"{stand_in.url}/token", **further}

    set_up(by_form)
    client = world.client()
    assert call(world, world.token(client)) == 200
    request = stand_in.sole("/token")
    assert parse_qs(request.body) == {
        "grant_type": ["client_credentials"],
        "client_id": ["tenantgate"],
        "client_secret": [stack.LOOKUP_SECRET],
        "scope": ["grants.read x"],
        "audience": ["https://grants.example"],
    }
    assert request.headers["authorization"] is None
    assert stand_in.lookup_of(client).headers["authorization"] == f"Bearer {stand_in.access_token}"


def test_method_headers_and_an_id_that_needs_encoding(world, set_up, stand_in):
    secret = secrets.token_urlsafe(32)
    headers = [{"name": "x-version", "value": "2"}, {"name": "x-key", "value_file": world.secret_file("key", secret)}]
    set_up(asked_by(stand_in, method="POST", headers=headers))
    # Within Basic the id is form-encoded, as RFC 6749 wants it.
    assert call(world, world.token(Client(quote(ODD_ID, safe=""), world.secrets[ODD_ID]))) == 200
    request = stand_in.lookup_of(Client(ODD_ID, ""))
    assert (request.command, request.path) == ("POST", f"/apps/{quote(ODD_ID, safe='')}/tenants?expand=all")
    assert (request.headers["x-version"], request.headers["x-key"]) == ("2", secret)


def certificate(subject, issuer=None, issuer_key=None):
    """A certificate for loopback and its key, as PEM; its own issuer where none is named."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name(issuer or subject), name(subject), key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(loopback, critical=False).sign(issuer_key or key, hashes.SHA256())
    pem = signed.public_bytes(Encoding.PEM).decode()
    return pem, key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_mutual_tls_with_an_own_ca(world, set_up, stand_in, tmp_path):
    ca, ca_key, _ = certificate("our own CA")
    server, _, server_key = certificate("provider", "our own CA", ca_key)
    client, _, client_key = certificate("tenantgate", "our own CA", ca_key)
    for name, text in {"ca.pem": ca, "server.pem": server + server_key}.items():
        (tmp_path / name).write_text(text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.pem")
    stand_in.socket = context.wrap_socket(stand_in.socket, server_side=True)
    stand_in.url = stand_in.url.replace("http:", "https:")

    def over_tls(**tls):
        def change(lookup):
            asked_by(stand_in, tls={"ca_file": str(tmp_path / "ca.pem"), **tls})(lookup)
            del lookup["auth"]  # the certificate is all

        return change

    (tmp_path / "client.pem").write_text(client)
    key_file = world.secret_file("client.key", client_key.strip())
    set_up(over_tls())
    assert_denied(world.mint(world.client()), 503, "temporarily_unavailable")
    assert stand_in.seen == []
    set_up(over_tls(cert_file=str(tmp_path / "client.pem"), key_file=key_file))
    caller = world.client()
    assert call(world, world.token(caller)) == 200
    assert stand_in.lookup_of(caller).headers["authorization"] is None


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_selected_fields_become_claims_and_can_be_displayed(world, set_up, stand_in):
    claims = {"plan": {"select": "$.plan", "display": True}, "seats": "$.limits.seats"}

    def display_tenants(config):
        config["issuer"]["tenant_claim"]["display"] = True

    set_up(asked_by(stand_in, claims=claims), display_tenants)
    answer = world.mint(world.client()).json()
    token = claims_of(answer["access_token"])
    assert (token["plan"], token["seats"]) == ("gold", 25)
    assert answer["plan"] == "gold" and "seats" not in answer
    assert sorted(answer["tenant_list"]) == ["T1001", "T1002"]
    assert "T1001" not in json.dumps(token)


class Directory(stack.Process):
    """The example of a lookup over gRPC."""

    def __init__(self, work, *arguments):
        argv = [bin_dir() / "examples/directory", "--listen", stack.ANY_PORT, *arguments]
        super().__init__("the example directory", argv, work / "directory.log")

    def wait_ready(self):
        listens = lambda: re.search(r"listens on (\S+)", self.log.read_text())
        self.address = stack.wait_until("starting the example directory", listens, self)[1]


def test_the_lookup_over_grpc(world, set_up, children):
    granted, empty, unknown = world.client(), world.client(), world.client()
    secret = secrets.token_urlsafe(32)
    grants = [f"{granted.id}=T1001,T1002", f"{empty.id}="]
    directory = children.start(Directory, world.work, "--token", secret, *grants)

    def ask_over_grpc(token_file):
        def change(config):
            config["tenants"]["lookup"] = {
                "grpc": {"url": f"http://{directory.address}"},
                "auth": {"bearer": {"token_file": token_file}},
            }

        return change

    set_up(change=ask_over_grpc(world.secret_file("wrong", secrets.token_urlsafe(32))))
    assert_denied(world.mint(granted), 503, "temporarily_unavailable")
    set_up(change=ask_over_grpc(world.secret_file("right", secret)))
    token = world.token(granted)
    assert [call(world, token, tenant) for tenant in ("T1001", "T1002", "T1003")] == [200, 200, 403]
    for client in (empty, unknown):
        assert_denied(world.mint(client), 400, "invalid_target")
    directory.kill()
    assert_denied(world.mint(world.client()), 503, "temporarily_unavailable")
    assert call(world, token) == 200
