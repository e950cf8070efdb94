"""The Envoy configs that are shipped: Envoy accepts them, they agree with each other, and each does what it is for."""

import subprocess

import pytest
import requests
import stack
import yaml
from conftest import ROOT
from replies import assert_denied

SAMPLES = sorted((ROOT / "envoy").glob("*.yaml"))


def test_there_are_samples():
    assert {sample.name for sample in SAMPLES} >= {"envoy.yaml", "several-apis.yaml"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_envoy_accepts(sample):
    argv = [stack.envoy_binary(), "--mode", "validate", "--config-path", sample]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr


def test_envoy_refuses_a_broken_config(tmp_path):
    """So that the test above can fail."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(stack.ENVOY_CONFIG.read_text().replace("status_on_error", "status_on_eror"))
    argv = [stack.envoy_binary(), "--mode", "validate", "--config-path", broken]
    assert subprocess.run(argv, capture_output=True, timeout=30).returncode != 0


def shared_part(sample):
    """All but the routes to the APIs and their clusters."""
    config = yaml.safe_load(sample.read_text())
    (listener,) = config["static_resources"]["listeners"]
    routes = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]
    routes["routes"] = [route for route in routes["routes"] if "path" in route["match"]]
    clusters = config["static_resources"]["clusters"]
    config["static_resources"]["clusters"] = [c for c in clusters if c["name"].startswith("tenantgate-")]
    return config


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_samples_share_their_settings(sample):
    assert shared_part(sample) == shared_part(stack.ENVOY_CONFIG)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_access_logs_and_tracing_hold_no_path(sample):
    text = "\n".join(line.split("#")[0] for line in sample.read_text().lower().splitlines())
    for word in ("%req(:path", "original-path", "%request_uri", "%path", "referer", "tracing:"):
        assert word not in text


def two_apis(config):
    config["apis"] = [
        {"name": "reports", "routes": [{"path": "/reports/{tenant}/**", "methods": ["GET"], "scopes": ["reports.read"]}]},
        {"name": "billing", "routes": [{"path": "/billing/{tenant}/invoices", "methods": ["GET"]}]},
    ]


def test_several_apis(own_world):
    world = own_world(change_config=two_apis, clients=["app-1"])
    sample = yaml.safe_load((ROOT / "envoy/several-apis.yaml").read_text())
    apis = {"reports": world.provider.address, "billing": world.provider.address}
    file = stack.envoy_on_any_ports(world.work, sample, world.tenantgate, apis, "several-apis")
    envoy = world.children.start(stack.Envoy, world.work, file, "several-apis")
    token = world.token(world.client("T1"))
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    # Envoy's first health check of the check cluster may still be under way.
    stack.wait_until("the first check", lambda: session.get(f"{envoy.url}/reports/T1/x").status_code == 200, envoy)
    assert session.get(f"{envoy.url}/billing/T1/invoices").status_code == 200
    assert_denied(session.get(f"{envoy.url}/billing/T2/invoices"), 403, "access_denied")
    # No API is named on this route; and through envoy.yaml none is ever named.
    assert_denied(session.get(f"{envoy.url}/elsewhere/T1"), 403, "access_denied")
    assert_denied(world.get("/reports/T1/x", token), 403, "access_denied")


def test_unix_socket(own_world, tmp_path_factory):
    socket = tmp_path_factory.mktemp("s") / "check.sock"

    def listen_on_socket(config):
        config["listen"]["check"] = f"unix:{socket}"

    world = own_world(change_config=listen_on_socket, clients=["app-1"])
    assert world.tenantgate.ports["check"] == f"unix:{socket}"
    token = world.token(world.client("T1"))
    assert world.get("/api/T1/o", token).status_code == 200
    assert_denied(world.get("/api/T2/o", token), 403, "access_denied")
