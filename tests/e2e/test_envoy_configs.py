"""The Envoy configs that are shipped: Envoy accepts them, they agree with each other, and each does what it is for."""

import json
import subprocess
import time

import pytest
import requests
import stack
import yaml
from conftest import ROOT, bin_dir
from joserfc import jwt
from joserfc.jwk import ECKey
from replies import REALM, REPORT, assert_denied
from test_tls import Authority

ALONE = ROOT / "envoy/without-tenantgate.yaml"
SAMPLES = sorted((ROOT / "envoy").glob("*.yaml"))
MANAGEMENT = ROOT / "envoy/management.yaml"
OURS = [sample for sample in SAMPLES if sample not in (ALONE, MANAGEMENT)]


def test_there_are_samples():
    assert {sample.name for sample in OURS} >= {"envoy.yaml", "several-apis.yaml", "cors.yaml"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_envoy_accepts(sample, tmp_path):
    copy = tmp_path / sample.name
    copy.write_text(sample.read_text().replace("/etc/envoy/management", str(tmp_path)))
    Authority().issue(tmp_path, "tenantgate.example.com")
    argv = [stack.envoy_binary(), "--mode", "validate", "--config-path", copy]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr


def test_envoy_refuses_a_broken_config(tmp_path):
    """So that the test above can fail."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(stack.ENVOY_CONFIG.read_text().replace("status_on_error", "status_on_eror"))
    argv = [stack.envoy_binary(), "--mode", "validate", "--config-path", broken]
    assert subprocess.run(argv, capture_output=True, timeout=30).returncode != 0


def manager_of(config):
    (listener,) = config["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def shared_part(sample):
    """All but the routes to the APIs, their clusters, CORS and rate limits."""
    config = yaml.safe_load(sample.read_text())
    manager = manager_of(config)
    further = ("envoy.filters.http.cors", "envoy.filters.http.local_ratelimit", "envoy.filters.http.ratelimit")
    manager["http_filters"] = [entry for entry in manager["http_filters"] if entry["name"] not in further]
    routes = manager["route_config"]["virtual_hosts"][0]
    routes["routes"] = [route for route in routes["routes"] if "path" in route["match"]]
    clusters = config["static_resources"]["clusters"]
    config["static_resources"]["clusters"] = [c for c in clusters if c["name"].startswith("tenantgate-")]
    return config


@pytest.mark.parametrize("sample", OURS, ids=lambda sample: sample.name)
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


def test_cors(shared_world):
    world = shared_world
    envoy = world.start_envoy(yaml.safe_load((ROOT / "envoy/cors.yaml").read_text()), "cors")
    token = world.token(world.client("T1"))
    world.upstream()
    page, other = {"origin": "https://app.example.com"}, {"origin": "https://app.example.com.evil.example"}
    ask = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}

    preflight = requests.options(f"{envoy.url}/api/T1/o", headers=page | ask, timeout=10)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == page["origin"]
    assert "GET" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    assert preflight.content == b""

    def get(tenant, headers):
        headers = headers | {"authorization": f"Bearer {token}"}
        return requests.get(f"{envoy.url}/api/{tenant}/o", headers=headers, timeout=10)

    allowed, foreign = get("T1", page), get("T2", page)
    assert allowed.status_code == 200
    assert_denied(foreign, 403, "access_denied")
    nobody = requests.get(f"{envoy.url}/api/T1/o", headers=page, timeout=10)
    assert_denied(nobody, 401, "unauthorized", f"Bearer {REALM}")
    for answer in (allowed, foreign, nobody):  # the page can read all three
        assert answer.headers["access-control-allow-origin"] == page["origin"]
        assert "www-authenticate" in answer.headers["access-control-expose-headers"]

    # No preflight, or not from that page: the check decides, and the API never sees an OPTIONS.
    assert requests.options(f"{envoy.url}/api/T1/o", headers=other | ask, timeout=10).status_code == 401
    assert requests.options(f"{envoy.url}/api/T1/o", headers=page, timeout=10).status_code == 401
    assert requests.options(f"{envoy.url}/oauth2/token", headers=page | ask, timeout=10).status_code == 405
    assert "access-control-allow-origin" not in get("T1", other).headers
    assert {seen["method"] for seen in world.upstream()} == {"GET"}


def test_what_envoy_can_do_alone(children, tmp_path):
    """The comparison in the README holds: Envoy compares the tenant in the path with the token's list."""
    provider = children.start(stack.Provider, tmp_path, bin_dir())
    key = ECKey.generate_key("P-256", {"kid": "test", "use": "sig", "alg": "ES256"})
    config = yaml.safe_load(ALONE.read_text())
    jwt_authn = manager_of(config)["http_filters"][0]["typed_config"]["providers"]["issuer"]
    jwt_authn["local_jwks"]["inline_string"] = json.dumps({"keys": [key.as_dict(private=False)]})
    file = stack.envoy_on_any_ports(tmp_path, config, None, {"api": provider.address})
    envoy = children.start(stack.Envoy, tmp_path, file)

    def token(**claims):
        claims = {"iss": jwt_authn["issuer"], "aud": jwt_authn["audiences"][0], "exp": int(time.time()) + 60} | claims
        return jwt.encode({"alg": "ES256", "kid": "test"}, claims, key)

    def status(path, bearer):
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        return requests.get(envoy.url + path, headers=headers, timeout=10).status_code

    good = token(tenants=["T1", "T2"])
    assert [status(REPORT.format(tenant), good) for tenant in ("T1", "T2", "T3", "t1")] == [200, 200, 403, 403]
    assert status(REPORT.format("T1") + "?tenant=T3", good) == 200
    assert [status(path, good) for path in ("/", "/T1", REPORT.format("T1") + "/x", "/x" + REPORT.format("T1"))] == [403] * 4
    assert status(REPORT.format("T1/../T1"), good) == 200  # Envoy resolves it first
    assert status(REPORT.format("T1%2fx"), good) == 400
    assert status(REPORT.format("T1"), token()) == 403
    assert status(REPORT.format("T1"), token(tenants=[])) == 403
    assert status(REPORT.format("T1"), token(tenants=["T1"], exp=int(time.time()) - 120)) == 401
    assert status(REPORT.format("T1"), None) == 401


def test_unix_socket(own_world, tmp_path_factory):
    socket = tmp_path_factory.mktemp("s") / "check.sock"

    def listen_on_socket(config):
        config["listen"]["check"] = f"unix:{socket}"

    world = own_world(change_config=listen_on_socket, clients=["app-1"])
    assert world.tenantgate.ports["check"] == f"unix:{socket}"
    token = world.token(world.client("T1"))
    assert world.get("/api/T1/o", token).status_code == 200
    assert_denied(world.get("/api/T2/o", token), 403, "access_denied")
