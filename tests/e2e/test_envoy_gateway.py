"""deploy/envoy-gateway in the real Envoy Gateway, standalone: its own translation, the real Envoy, tenantgate behind
it. Only where things are differs: backends are addresses on loopback instead of Services."""

import copy
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
import yaml

import stack
import wire
from conftest import ROOT, World

FILES = ROOT / "deploy/envoy-gateway"
GATEWAY = os.environ.get("ENVOY_GATEWAY") or shutil.which("envoy-gateway")
GRANTED, FOREIGN = "/api/T1001/report", "/api/T2002/report"

pytestmark = pytest.mark.skipif(not GATEWAY, reason="no envoy-gateway; `make test-gateway` builds it with Go")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def backend(name, address, protocol=None):
    host, port = address.rsplit(":", 1)
    spec = {"endpoints": [{"ip": {"address": host, "port": int(port)}}]}
    if protocol:
        spec["appProtocols"] = [protocol]
    return {"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
            "metadata": {"name": name, "namespace": "gates"}, "spec": spec}


def to(name):
    return {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": name}


class Standalone(stack.Process):
    """Envoy Gateway without Kubernetes. It starts Envoy itself, from where it would have downloaded it to."""

    def __init__(self, work, docs, port):
        self.work, self.port = work, port
        homes = {name: work / name for name in ("config", "data", "state", "run")}
        link = homes["data"] / "envoy-versions/1.40.0/bin/envoy"
        link.parent.mkdir(parents=True)
        link.symlink_to(stack.envoy_binary())
        self.resources = work / "resources.yaml"
        self.apply(docs)
        config = {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyGateway",
            "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
            "provider": {"type": "Custom", "custom": {
                "resource": {"type": "File", "file": {"paths": [str(self.resources)]}},
                "infrastructure": {"type": "Host", "host": {
                    "configHome": str(homes["config"]), "dataHome": str(homes["data"]),
                    "stateHome": str(homes["state"]), "runtimeDir": str(homes["run"])}}}},
            "extensionApis": {"enableBackend": True},
            "logging": {"level": {"default": "info"}},
        }
        (work / "gateway.yaml").write_text(yaml.safe_dump(config))
        subprocess.run([GATEWAY, "certgen", "--local", "--config-home", homes["config"]], check=True,
                       capture_output=True, timeout=60)
        argv = [GATEWAY, "server", "--config-path", work / "gateway.yaml"]
        super().__init__("Envoy Gateway", argv, work / "gateway.log")

    def apply(self, docs):
        """All at once: half a file would be half a gateway."""
        whole = self.resources.with_suffix(".new")
        whole.write_text("---\n".join(yaml.safe_dump(doc) for doc in docs))
        whole.rename(self.resources)

    def wait_ready(self):
        self.url = f"http://127.0.0.1:{self.port}"
        stack.wait_until("the gateway's first decision", lambda: self.status(GRANTED) == 401, self, seconds=60)

    def status(self, path, **options):
        return requests.get(self.url + path, timeout=5, allow_redirects=False, **options).status_code

    def becomes(self, path, status):
        stack.wait_until(f"{status} on {path}", lambda: self.status(path) == status, self)


def documents(tenantgate, api, port):
    """The files, with every Service replaced by where it is here."""
    docs = {}
    for name in yaml.safe_load((FILES / "kustomization.yaml").read_text())["resources"] + ["quota.yaml"]:
        for doc in yaml.safe_load_all((FILES / name).read_text()):
            docs[doc["kind"]] = doc
    docs["Gateway"]["spec"]["listeners"][0]["port"] = port
    docs["EnvoyProxy"]["spec"]["provider"] = {"type": "Host", "host": {"envoyVersion": "1.40.0"}}
    rules = {rule["name"]: rule for rule in docs["HTTPRoute"]["spec"]["rules"]}
    rules["token"]["backendRefs"], rules["api"]["backendRefs"] = [to("token")], [to("api")]
    docs["SecurityPolicy"]["spec"]["extAuth"]["grpc"]["backendRefs"] = [to("check")]
    docs["BackendTrafficPolicy"]["spec"]["rateLimit"]["local"]["rules"][0]["limit"]["requests"] = 500
    backends = [backend("check", tenantgate.ports["check"], "gateway.envoyproxy.io/h2c"),
                backend("token", tenantgate.ports["token"]), backend("api", api)]
    return list(docs.values()) + backends


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    def as_deployed(config):
        config["apis"][0]["name"] = "reports"

    with stack.Children() as children:
        yield World(children, tmp_path_factory.mktemp("world"), as_deployed)


@pytest.fixture(scope="module")
def docs(world):
    return documents(world.tenantgate, world.api.address, free_port())


@pytest.fixture(scope="module")
def gateway(world, docs, tmp_path_factory):
    port = next(doc for doc in docs if doc["kind"] == "Gateway")["spec"]["listeners"][0]["port"]
    with stack.Children() as children:
        yield children.start(Standalone, tmp_path_factory.mktemp("gateway"), docs, port)


@pytest.fixture(scope="module")
def client(world):
    return world.client("T1001")


@pytest.fixture(scope="module")
def token(gateway, client):
    answer = requests.post(f"{gateway.url}/oauth2/token", data={"grant_type": "client_credentials"},
                           auth=(client.id, client.secret), timeout=5)
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def bearer(token):
    return {"headers": {"Authorization": f"Bearer {token}"}}


def test_mint_allow_and_refuse(gateway, token, client, world):
    world.provider.control("DELETE", "upstream")
    assert gateway.status(GRANTED, **bearer(token)) == 200
    assert gateway.status(FOREIGN, **bearer(token)) == 403
    assert gateway.status(GRANTED) == 401
    assert gateway.status("/nowhere", **bearer(token)) == 403
    (seen,) = world.upstream()
    headers = seen["headers"]
    assert headers["x-tenantgate-client-id"] == [client.id] and "authorization" not in headers


def test_headers_of_ours_cannot_be_forged(gateway, token, client, world):
    world.provider.control("DELETE", "upstream")
    forged = {"Authorization": f"Bearer {token}", "x-tenantgate-client-id": "admin", "x-tenantgate-extra": "1",
              "x-original-url": "/api/T2002/", "x-forwarded-uri": "/api/T2002/", "x_tenantgate_client_id": "admin"}
    assert gateway.status(GRANTED, headers=forged) == 200
    (seen,) = world.upstream()
    headers = seen["headers"]
    assert headers["x-tenantgate-client-id"] == [client.id]
    assert not {"x-tenantgate-extra", "x-original-url", "x-forwarded-uri", "x_tenantgate_client_id"} & headers.keys()


@pytest.mark.parametrize("send", [wire.http1, wire.http2], ids=["HTTP/1.1", "HTTP/2"])
def test_no_spelling_of_a_path_reaches_a_foreign_tenant(gateway, world, send):
    """The whole corpus, as bytes: what reaches the API has the granted tenant's own segment in front."""
    client = world.client("T1")
    live = world.token(client)
    world.provider.control("DELETE", "upstream")
    passed = 0
    for path in corpus():
        answer = send(f"127.0.0.1:{gateway.port}", path, [("authorization", f"Bearer {live}")])
        passed += answer.status == 200
        assert answer.status in (200, 400, 401, 403, 404), (path, answer.status)
    seen = world.upstream()
    assert passed >= 3 and len(seen) == passed
    assert {tuple(request["path"].split("?")[0].split("/")[1:3]) for request in seen} == {("api", "T1")}


def corpus():
    """The paths of tests/corpus/paths.txt that a request line can carry."""
    paths = []
    for line in (ROOT / "tests/corpus/paths.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            _, _, text = line.partition("\t")
            path = re.sub(rb"<([0-9a-f]{2})>", lambda match: bytes([int(match[1], 16)]), text.encode())
            if path.startswith(b"/") and not re.search(rb"[\x00-\x20\x7f]", path):
                paths.append(path)
    assert len(paths) > 80
    return paths


def test_a_withdrawal_reaches_the_gateway(gateway, world):
    client = world.client("T1001")
    answer = requests.post(f"{gateway.url}/oauth2/token", data={"grant_type": "client_credentials"},
                           auth=(client.id, client.secret), timeout=5)
    live = answer.json()["access_token"]
    assert gateway.status(GRANTED, **bearer(live)) == 200
    registry = yaml.safe_load((world.work / "clients.yaml").read_text())
    next(entry for entry in registry["clients"] if entry["id"] == client.id)["status"] = "revoked"
    whole = world.work / "clients.new"
    whole.write_text(yaml.safe_dump(registry))
    whole.rename(world.work / "clients.yaml")
    started = time.monotonic()
    stack.wait_until("the withdrawal", lambda: gateway.status(GRANTED, **bearer(live)) == 401, gateway)
    assert time.monotonic() - started < 10


def test_the_access_log_has_no_tenant(gateway, token):
    gateway.status(GRANTED, **bearer(token))

    def logs():
        return "\n".join(file.read_text(errors="replace") for file in gateway.work.rglob("*log") if file.is_file())

    stack.wait_until("a line of the access log", lambda: '"details":"via_upstream"' in logs(), gateway)
    assert "T1001" not in logs() and token not in logs()


def test_a_client_has_its_limit(gateway, world, docs):
    limited = copy.deepcopy(docs)
    policy = next(doc for doc in limited if doc["kind"] == "BackendTrafficPolicy")
    policy["spec"]["rateLimit"]["local"]["rules"][0]["limit"]["requests"] = 3
    gateway.apply(limited)
    try:
        tokens = []
        for client in (world.client("T1001"), world.client("T1001")):
            answer = requests.post(f"{gateway.url}/oauth2/token", data={"grant_type": "client_credentials"},
                                   auth=(client.id, client.secret), timeout=5)
            tokens.append(answer.json()["access_token"])
        stack.wait_until("the limit", lambda: gateway.status(GRANTED, **bearer(tokens[0])) == 429, gateway)
        assert gateway.status(GRANTED, **bearer(tokens[1])) == 200
    finally:
        gateway.apply(docs)


def test_a_policy_without_its_backend_lets_nobody_pass(gateway, token, docs):
    broken = copy.deepcopy(docs)
    policy = next(doc for doc in broken if doc["kind"] == "SecurityPolicy")
    policy["spec"]["extAuth"]["grpc"]["backendRefs"] = [to("missing")]
    gateway.apply(broken)
    try:
        stack.wait_until("the refusal", lambda: gateway.status(GRANTED, **bearer(token)) == 500, gateway)
    finally:
        gateway.apply(docs)
    stack.wait_until("the repair", lambda: gateway.status(GRANTED, **bearer(token)) == 200, gateway)


def test_a_stopped_check_server_means_503(gateway, token, world):
    """Last: it ends the world."""
    world.tenantgate.kill()
    stack.wait_until("503", lambda: gateway.status(GRANTED, **bearer(token)) == 503, gateway)
