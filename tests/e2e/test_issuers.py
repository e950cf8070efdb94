"""Other issuers whose keys are behind mutual TLS with a CA of its own and a proxy: one that signs without `kid` and names
tenants as the keys of an object, one that is found by discovery, and one whose keys are in a file."""

import contextlib
import http.server
import json
import socket
import ssl
import threading
import time

import pytest
import requests
import stack
from conftest import World
from joserfc import jwt
from joserfc.jwk import ECKey
from test_tls import Authority

ISSUER = "https://login.other.example"
BY_FILE = "https://file.other.example"
HOST = "keys.other.example"  # nobody resolves it: only the proxy knows where that is


class KeyServer:
    """Serves a key set and its discovery document over mutual TLS, and is reached by a proxy only. For all else there is
    a page, as some hosts have."""

    def __init__(self, folder, keys):
        self.tunnels = []
        metadata = {"issuer": f"https://{HOST}", "jwks_uri": f"https://{HOST}/jwks"}
        documents = self.documents = {"/jwks": {"keys": keys}, "/.well-known/oauth-authorization-server": metadata}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                known = self.path in documents
                document = json.dumps(documents[self.path]).encode() if known else b"<html>Welcome</html>"
                self.send_response(200)
                self.send_header("content-length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.load_verify_locations(folder / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.proxy = socket.create_server(("127.0.0.1", 0))
        for serve in (self.server.serve_forever, self._accept):
            threading.Thread(target=serve, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self.proxy.accept()
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        self.tunnels.append(head.split(b" ")[1].decode())
        server = socket.create_connection(self.server.server_address)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one, other):
        with contextlib.suppress(OSError):  # the other direction has closed it
            while data := one.recv(65536):
                other.sendall(data)
            other.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    work = tmp_path_factory.mktemp("issuers")
    key = ECKey.generate_key("P-256")
    public = {name: value for name, value in key.as_dict(private=False).items() if name != "kid"} | {"alg": "ES256"}
    authority = Authority()
    authority.issue(work / "client", "tenantgate")
    keys = [public, {"kty": "oct", "k": "AAAA", "kid": "symmetric"}]
    server = KeyServer(authority.issue(work / "tls", HOST), keys)
    (work / "keys.json").write_text(json.dumps({"keys": keys}))

    def with_issuer(config):
        common = {
            "audience": config["issuer"]["audience"],
            "tenant_claim": {"pointer": "/realm/tenants", "of": "keys"},
            "client_claim": "/azp",
            "allow_missing_kid": True,
        }
        reach = {
            "tls": {"ca_file": "tls/ca.crt", "cert_file": "client/tls.crt", "key_file": "client/tls.key"},
            "proxy": "http://127.0.0.1:{}".format(server.proxy.getsockname()[1]),
        }
        config["issuers"] = [
            {"issuer": ISSUER, "jwks_url": f"https://{HOST}/jwks", **common, **reach},
            {"issuer": f"https://{HOST}", "discovery": True, **common, **reach},
            {"issuer": BY_FILE, "jwks_file": "keys.json", **common},
        ]

    with stack.Children() as children:
        world = World(children, work, with_issuer, clients=["app-1"])

        def token(**changes):
            claims = {"iss": ISSUER, "aud": world.config["issuer"]["audience"], "sub": "u", "azp": "partner"}
            claims |= {"iat": int(time.time()), "exp": int(time.time()) + 60, "realm": {"tenants": {"T1": {}}}}
            return jwt.encode({"alg": "ES256", "typ": "at+jwt"}, claims | changes, key)

        world.token_of_other, world.key_server = token, server
        yield world


def test_its_tokens_are_checked_by_keys_from_behind_the_proxy(other):
    status = lambda path, token: other.get(path, token).status_code
    token = other.token_of_other()
    stack.wait_until("the keys", lambda: status("/api/T1/", token) == 200, other.tenantgate)
    assert status("/api/T2/", token) == 403
    assert status("/api/T1/", other.token_of_other(realm={"tenants": ["T1"]})) == 401
    assert set(other.key_server.tunnels) == {f"{HOST}:443"}


def test_discovery_goes_on_where_a_host_answers_a_page_of_its_own(other):
    token = other.token_of_other(iss=f"https://{HOST}")
    stack.wait_until("the keys", lambda: other.get("/api/T1/", token).status_code == 200, other.tenantgate)


@pytest.mark.parametrize("issuer", [ISSUER, f"https://{HOST}", BY_FILE])
def test_a_key_that_is_not_used_is_told_once_and_why(other, issuer):
    stack.wait_until("the keys", lambda: other.get("/api/T1/", other.token_of_other(iss=issuer)).ok, other.tenantgate)
    lines = other.tenantgate.log.read_text().splitlines()
    told = [line for line in lines if "a key of this issuer is not used" in line and f'"{issuer}"' in line]
    assert len(told) == 1 and "private or symmetric key material" in told[0], told
    assert requests.get(f"{other.tenantgate.admin_url}/readyz?verbose", timeout=5).ok
