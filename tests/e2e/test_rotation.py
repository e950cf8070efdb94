"""Registry, secrets and keys that change while tenantgate runs and clients keep calling through a real Envoy."""

import base64
import json
import os
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import stack
import yaml
from conftest import ROOT, Client, bin_dir
from joserfc import jwt
from joserfc.jwk import ECKey
from live import Calling, live_world
from replies import REALM, REPORT, assert_denied, challenge_with

AUDIENCE = "http://127.0.0.1:10000"
LAST_RELOAD = "tenantgate_config_last_reload_successful"


class Issuer:
    """Somebody else's tokens and the key set that tenantgate fetches."""

    def __init__(self, name):
        self.name, self.url = name, f"https://{name}.example"
        self.keys = {kid: ECKey.generate_key("P-256", {"kid": kid}) for kid in ("first", "second")}
        self.published = []

    def key_set(self):
        return {"keys": [self.keys[kid].as_dict(private=False) for kid in self.published]}

    def token(self, kid):
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "partner",
            "client_id": "partner",
            "iat": now,
            "exp": now + 300,
            "scope": "reports.read",
            "tenants": ["E1"],
        }
        return jwt.encode({"alg": "ES256", "kid": kid, "typ": "at+jwt"}, claims, self.keys[kid])


class KeyServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, issuers):
        super().__init__(("127.0.0.1", 0), KeyServerHandler)
        self.issuers = {f"/{issuer.name}": issuer for issuer in issuers}
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    def trusted(self):
        """For `issuers` of the config."""
        base = "http://127.0.0.1:{}".format(self.server_address[1])
        return [
            {"issuer": issuer.url, "jwks_url": base + path, "audience": AUDIENCE, "tenant_claim": "/tenants"}
            for path, issuer in self.issuers.items()
        ]


class KeyServerHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        issuer = self.server.issuers[self.path]
        body = json.dumps(issuer.key_set()).encode()
        self.send_response(200 if issuer.published else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Partners:
    """Three other issuers. Key sets are fetched again for the sake of an unknown key no sooner than 30 s after the last
    time, so that what is asked for here has to wait; meanwhile all other tests of this file reload around it."""

    def __init__(self, world, rotating, withdrawing, late):
        self.world, self.rotating, self.withdrawing, self.late = world, rotating, withdrawing, late
        self.first = {issuer.name: issuer.token("first") for issuer in (rotating, withdrawing, late)}
        self.second = {issuer.name: issuer.token("second") for issuer in (rotating, withdrawing, late)}
        for issuer in (rotating, withdrawing):
            # The first fetch may still be under way.
            world.wait_for("the keys", lambda: self.status(self.first[issuer.name]) == 200)
        rotating.published = ["first", "second"]
        withdrawing.published = ["second"]
        self.early = [self.status(self.second[issuer.name]) for issuer in (rotating, withdrawing)]
        self.calling = Calling(lambda: self.status(self.first["rotating"]), pause=0.1)

    def status(self, token):
        return self.world.get(REPORT.format("E1"), token).status_code


@pytest.fixture(scope="module")
def partners(tmp_path_factory):
    rotating, withdrawing, late = Issuer("rotating"), Issuer("withdrawing"), Issuer("late")
    rotating.published = withdrawing.published = ["first"]
    server = KeyServer([rotating, withdrawing, late])

    def trust(config):
        config["issuers"] = server.trusted()
        config["issuer"]["max_token_ttl"] = "10m"
        config["apis"][0]["api_key"] = {"header": "x-api-key"}
        config["tenants"]["freshness"] = {"refresh": "1s", "max_age": "300s"}

    with live_world(tmp_path_factory.mktemp("rotation"), change_config=trust) as world:
        partners = Partners(world, rotating, withdrawing, late)
        with partners.calling:
            yield partners
    server.shutdown()
    server.server_close()


@pytest.fixture
def world(partners):
    return partners.world


def status(world, token, tenant="T1"):
    return world.get(REPORT.format(tenant), token).status_code


def part_of(token, index):
    part = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_keys_that_never_loaded_are_503_until_they_do(partners):
    answer = partners.world.get(REPORT.format("E1"), partners.first["late"])
    assert_denied(answer, 503, "temporarily_unavailable")
    partners.late.published = ["first"]
    partners.world.wait_for("the keys", lambda: partners.status(partners.first["late"]) == 200, seconds=35)


WITHDRAWALS = {
    "app revoked": {"status": "revoked"},
    "developer inactive": {"developer": {"id": "developer", "status": "inactive"}},
}


@pytest.mark.parametrize("fields", WITHDRAWALS.values(), ids=WITHDRAWALS.keys())
def test_a_withdrawn_client_stops_at_once_and_no_other(world, fields):
    client, other = world.client("T1"), world.client("T1")
    token, others = world.token(client), world.token(other)
    assert status(world, token) == 200
    with Calling(lambda: status(world, others)) as calling:
        world.change_client(client, **fields)
        took = world.wait_for("the refusal", lambda: status(world, token) == 401, seconds=5)
    print(f"a withdrawn client was refused after {took:.2f} s")
    assert set(calling.results) == {200}
    refused = challenge_with("invalid_token", "the token is no longer valid")
    assert_denied(world.get(REPORT.format("T1"), token), 401, "invalid_token", refused)
    assert_denied(world.mint(client), 400, "unauthorized_client")
    world.change_client(client, status="approved", developer={"id": "developer", "status": "active"})
    world.wait_for("the client's return", lambda: status(world, token) == 200, seconds=5)


def test_sighup_reloads_what_has_not_changed_too(world):
    reloads = lambda: world.metric('tenantgate_config_reloads_total{outcome="ok"}') or 0
    for _ in range(5):  # the first one may be counted for an earlier test's change
        before = reloads()
        world.tenantgate.signal(signal.SIGHUP)
        world.wait_for("a reload", lambda: reloads() > before, seconds=2)


def readyz(world):
    answer = requests.get(f"{world.tenantgate.admin_url}/readyz?verbose", timeout=5)
    assert answer.status_code == 200
    return answer.text


# What is added to the good registry, and what is told of it ({line}: the last line of the file).
BREAKAGES = {
    "not YAML": ("- id: newcomer\n  scopes: [reports.read\n", "clients.yaml:{line}:"),
    "a key given twice": ("- id: newcomer\n  id: newcomer\n", "clients.yaml:{line}:3: the key `id` appears"),
    "a wrong value": ("- id: newcomer\n  status: sometimes\n", "clients[{count}].status: must be `approved` or"),
}


@pytest.mark.parametrize(("addition", "told"), BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_registry_keeps_the_last_good_one_and_says_why(world, addition, told):
    client = world.client("T1")
    token = world.token(client)
    good = (world.work / "clients.yaml").read_text()
    told = told.format(line=good.count("\n") + 2, count=len(world.registry()["clients"]))
    with Calling(lambda: status(world, token)) as calling:
        world.write("clients.yaml", good + addition)
        try:
            world.wait_for("the refusal of the file", lambda: world.metric(LAST_RELOAD) == 0, seconds=5)
            assert "failed, the last good state runs" in readyz(world)
            assert told in readyz(world)
            assert world.log_lines('"ERROR"', told)
            assert world.mint(client).status_code == 200
        finally:
            world.write("clients.yaml", good)
        world.wait_for("the file's return", lambda: world.metric(LAST_RELOAD) == 1, seconds=5)
        assert "reload: ok" in readyz(world)
    assert set(calling.results) == {200}


def clients(world, command, client, *arguments, stdin=None):
    argv = [bin_dir() / "tenantgate", "clients", command, "--file", world.work / "clients.yaml"]
    argv += ["--id", client.id, *arguments]
    done = subprocess.run([str(part) for part in argv], input=stdin, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def credential_states(world, client):
    argv = ["clients", "list", "--file", world.work / "clients.yaml", "--output", "json"]
    listed = json.loads(stack.tenantgate(bin_dir(), *argv))["clients"]
    (entry,) = [entry for entry in listed if entry["client_id"] == client.id]
    return [credential["state"] for credential in entry["credentials"]]


def test_a_secret_is_rotated_without_a_gap(world):
    client = world.client("T1")
    token = world.token(client)
    with Calling(lambda: world.mint(client).status_code, pause=0.1) as minting:
        shown = json.loads(clients(world, "rotate", client, "--output", "json"))
        new = Client(client.id, shown["client_secret"])
        world.canaries.add(new.secret)
        world.wait_for("the new secret", lambda: world.mint(new).status_code == 200, seconds=5)
    assert set(minting.results) == {200}
    assert credential_states(world, client) == ["active", "active"]
    clients(world, "revoke", client, "--credential", "1")
    world.wait_for("the end of the old secret", lambda: world.mint(client).status_code == 401, seconds=5)
    assert credential_states(world, client) == ["revoked", "active"]
    assert world.mint(new).status_code == 200
    assert status(world, token) == 200  # a token does not hang on the secret that it was made with
    clients(world, "revoke", client)
    world.wait_for("the end of the app", lambda: status(world, token) == 401, seconds=5)
    assert_denied(world.mint(new), 400, "unauthorized_client")


def test_an_imported_secret(world):
    secret = "imported from elsewhere"
    world.canaries.add(secret)
    client = Client("imported-app", secret)
    clients(world, "add", client, "--secret-stdin", "--scope", "reports.read", stdin=secret + "\n")
    assert "$argon2id$" in (world.work / "clients.yaml").read_text()
    world.provider.grant(client.id, "T1")
    world.wait_for("the client", lambda: world.mint(client).status_code == 200)
    assert status(world, world.token(client)) == 200
    challenge = f"Basic {REALM}"
    assert_denied(world.mint(Client(client.id, "imported")), 401, "invalid_client", challenge)


def kid_of(token):
    return part_of(token, 0)["kid"]


def published_kids(world):
    return {key["kid"] for key in requests.get(f"{world.url}/oauth2/jwks", timeout=5).json()["keys"]}


def test_signing_keys_rotate_under_a_client_that_keeps_calling(world):
    client = world.client("T1")
    old = world.token(client)
    keys = ["--dir", world.work / "keys"]

    def mint_and_call():
        answer = world.mint(client)
        return answer.status_code, answer.ok and status(world, answer.json()["access_token"])

    with Calling(mint_and_call) as calling, Calling(lambda: status(world, old)) as holding:
        stack.tenantgate(bin_dir(), "keys", "generate", *keys, "--alg", "EdDSA", "--activate-after", "2s")
        world.wait_for("the new key", lambda: len(published_kids(world)) == 2, seconds=5)
        assert kid_of(world.token(client)) == kid_of(old), "the new key signs before its time"
        world.wait_for("its first token", lambda: kid_of(world.token(client)) != kid_of(old), seconds=5)
        time.sleep(0.3)
    assert set(holding.results) == {200}
    new = world.token(client)
    assert part_of(new, 0)["alg"] == "EdDSA"
    with Calling(mint_and_call) as still_calling:
        stack.tenantgate(bin_dir(), "keys", "retire", *keys, "--kid", kid_of(old))
        world.wait_for("the end of the old token", lambda: status(world, old) == 401, seconds=5)
    assert published_kids(world) == {kid_of(new)}
    assert status(world, new) == 200
    assert set(calling.results) == set(still_calling.results) == {(200, 200)}


def test_a_private_key_that_others_can_read_is_refused(world):
    pem = world.work / "keys" / f"{kid_of(world.token(world.client('T1')))}.pem"
    pem.chmod(0o644)
    try:
        world.tenantgate.signal(signal.SIGHUP)
        world.wait_for("the refusal of the key", lambda: world.metric(LAST_RELOAD) == 0, seconds=5)
        told = readyz(world)
        assert "has mode 0644" in told and f"chmod 600 {pem}" in told
        assert world.mint(world.client("T1")).status_code == 200
    finally:
        pem.chmod(0o600)
    world.tenantgate.signal(signal.SIGHUP)
    world.wait_for("the key's return", lambda: world.metric(LAST_RELOAD) == 1, seconds=5)


@pytest.fixture(scope="module")
def key_envoy(partners):
    """As envoy.yaml says: with API keys the check needs the header that carries them."""
    config = yaml.safe_load(stack.ENVOY_CONFIG.read_text())
    (listener,) = config["static_resources"]["listeners"]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (authz,) = [part["typed_config"] for part in filters if part["name"] == "envoy.filters.http.ext_authz"]
    authz["allowed_headers"]["patterns"].append({"exact": "x-api-key"})
    return partners.world.start_envoy(config, "key-envoy")


def test_api_keys(world, key_envoy):
    client, url = world.client("T1"), key_envoy.url + REPORT

    def with_key(secret, tenant="T1", **headers):
        return requests.get(url.format(tenant), headers={"x-api-key": secret, **headers}, timeout=5)

    # Nothing but a lookup can vouch for a key, and a check does not wait for one.
    assert_denied(with_key(client.secret), 503, "temporarily_unavailable")
    world.wait_for("the lookup", lambda: with_key(client.secret).status_code == 200, seconds=5)
    assert_denied(with_key(client.secret, "T2"), 403, "access_denied")
    assert_denied(with_key("wrong"), 401, "invalid_token", challenge_with("invalid_token", "the API key is not valid"))
    token = world.token(client)
    assert with_key(client.secret, authorization=f"Bearer {token}").status_code == 400
    in_query = requests.get(f"{url.format('T1')}?x-api-key={client.secret}", timeout=5)
    assert (in_query.status_code, in_query.headers["www-authenticate"]) == (401, f"Bearer {REALM}")
    # The default Envoy config does not send the header to the check.
    assert world.get(REPORT.format("T1"), headers={"x-api-key": client.secret}).status_code == 401
    # Same grants, same states.
    world.provider.withdraw(client.id, "T1")
    world.wait_for("the refusal of T1", lambda: with_key(client.secret).status_code == 403)
    world.provider.grant(client.id, "T1")
    world.wait_for("T1 again", lambda: with_key(client.secret).status_code == 200)
    world.change_client(client, status="revoked")
    world.wait_for("the end of the app", lambda: with_key(client.secret).status_code == 401, seconds=5)


def test_attributes_and_lifetimes_of_a_client(world):
    client, patient = world.client("T1"), world.client("T1")
    attributes = {"plan": "gold", "seats": 25, "regions": ["eu", "us"]}
    world.change_client(client, attributes=attributes, token_ttl="30s")
    world.change_client(patient, token_ttl="2h")
    world.wait_for("the registry", lambda: world.mint(patient).json()["expires_in"] == 600, seconds=5)  # max_token_ttl
    answer = world.mint(client).json()
    claims = part_of(answer["access_token"], 1)
    assert {name: claims[name] for name in attributes} == attributes
    assert answer["expires_in"] == claims["exp"] - claims["iat"] == 30
    assert status(world, answer["access_token"]) == 200


def two_apis(config):
    config["apis"] = [
        {"name": "reports", "routes": [{"path": "/reports/{tenant}/**", "methods": ["GET"]}]},
        {"name": "billing", "routes": [{"path": "/billing/{tenant}/invoices", "methods": ["GET"]}]},
    ]


def test_a_client_may_be_kept_to_some_apis(own_world):
    world = own_world(change_config=two_apis, clients=["app-1", "app-2"])
    anywhere, limited = world.client("T1"), world.client("T1")
    registry = yaml.safe_load((world.work / "clients.yaml").read_text())
    registry["clients"][1]["apis"] = ["billing"]
    (world.work / "new.yaml").write_text(yaml.safe_dump(registry))
    os.replace(world.work / "new.yaml", world.work / "clients.yaml")
    sample = yaml.safe_load((ROOT / "envoy/several-apis.yaml").read_text())
    apis = {"reports": world.provider.address, "billing": world.provider.address}
    file = stack.envoy_on_any_ports(world.work, sample, world.tenantgate, apis, "several-apis")
    envoy = world.children.start(stack.Envoy, world.work, file, "several-apis")

    def statuses(token):
        paths = ("/reports/T1/x", "/billing/T1/invoices")
        bearer = {"Authorization": f"Bearer {token}"}
        return [requests.get(envoy.url + path, headers=bearer, timeout=5).status_code for path in paths]

    token = world.token(limited)
    stack.wait_until("the registry", lambda: statuses(token) == [403, 200], envoy)
    assert statuses(world.token(anywhere)) == [200, 200]


def test_other_issuers_rotate_and_withdraw_keys(partners):
    """Last in this file: see `Partners`."""
    assert partners.early == [401, 401], "keys that tenantgate has not seen"
    second = lambda: [partners.status(partners.second[name]) for name in ("rotating", "withdrawing")]
    partners.world.wait_for("the new keys", lambda: second() == [200, 200], seconds=40)
    assert partners.status(partners.first["rotating"]) == 200
    # A key that disappears stops being honoured, remembered tokens included.
    assert partners.status(partners.first["withdrawing"]) == 401
    assert set(partners.calling.results) == {200}
    assert partners.calling.results[200] > 50
