"""Mints from what a real OpenFGA says, by AuthZEN and by its own list-objects call. `make test-openfga` brings it."""

import socket
from pathlib import Path

import pytest
import requests
import stack
import yaml
from conftest import ROOT
from replies import assert_denied
from test_docs import SAMPLES

OPENFGA = ROOT / ".tools/openfga/openfga"
KEY = "openfga-preshared-key"
MODEL = {
    "schema_version": "1.1",
    "type_definitions": [
        {"type": "client"},
        {
            "type": "tenant",
            "relations": {"read": {"this": {}}},
            "metadata": {"relations": {"read": {"directly_related_user_types": [{"type": "client"}]}}},
        },
    ],
}

pytestmark = pytest.mark.skipif(not OPENFGA.exists(), reason="no OpenFGA here: `make test-openfga` builds it (needs Go)")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class OpenFga(stack.Process):
    """In memory, with one store."""

    def __init__(self, work):
        self.url = f"http://127.0.0.1:{free_port()}"
        argv = [OPENFGA, "run", "--experimentals=authzen", "--http-addr", self.url.removeprefix("http://")]
        argv += ["--grpc-addr", f"127.0.0.1:{free_port()}", "--playground-enabled=false", "--metrics-enabled=false"]
        argv += ["--authn-method=preshared", f"--authn-preshared-keys={KEY}", "--log-level=error"]
        super().__init__("OpenFGA", argv, Path(work) / "openfga.log")

    def post(self, path, body):
        answer = requests.post(self.url + path, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    def wait_ready(self):
        def serves():
            return requests.get(f"{self.url}/healthz", timeout=1).ok

        def quietly():
            try:
                return serves()
            except requests.ConnectionError:
                return False

        stack.wait_until("starting OpenFGA", quietly, self)
        self.store = "/stores/" + self.post("/stores", {"name": "tenants"})["id"]
        self.post(f"{self.store}/authorization-models", MODEL)

    def write(self, kind, client, *tenants):
        keys = [{"user": f"client:{client}", "relation": "read", "object": f"tenant:{tenant}"} for tenant in tenants]
        self.post(f"{self.store}/write", {kind: {"tuple_keys": keys}})


@pytest.mark.parametrize("sample", ["authzen", "openfga"])
def test_mints_from_openfga(sample, own_world, children, tmp_path):
    openfga = children.start(OpenFga, tmp_path)

    def change(config):
        lookup = yaml.safe_load((SAMPLES / "lookup" / f"{sample}.yaml").read_text())["tenants"]["lookup"]
        holder = lookup.get("authzen", lookup)
        holder["url"] = openfga.url + openfga.store + holder["url"].partition("FAV")[2]
        (tmp_path / "secrets").mkdir(exist_ok=True)
        stack.write_secret(tmp_path / "secrets/lookup-token", KEY)
        config["tenants"] = {"lookup": lookup | {"cache_ttl": "0s", "negative_ttl": "0s"}}

    world = own_world(change_config=change, clients=["acme", "nobody"])
    acme, nobody = next(world._unused), next(world._unused)
    openfga.write("writes", "acme", "T1001", "T1002")
    token = world.token(acme)
    assert [world.get(f"/api/{tenant}/x", token).status_code for tenant in ("T1001", "T1002", "T1003")] == [200, 200, 403]
    assert_denied(world.mint(nobody), 400, "invalid_target")
    openfga.write("deletes", "acme", "T1001")
    token = world.token(acme)
    assert [world.get(f"/api/{tenant}/x", token).status_code for tenant in ("T1001", "T1002")] == [403, 200]
    openfga.kill()
    assert_denied(world.mint(acme), 503, "temporarily_unavailable")
