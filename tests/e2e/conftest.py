"""The stack that most tests share, and the means to start others. Everything listens on loopback, port 0."""

import hashlib
import itertools
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples/demo"))

import stack  # noqa: E402  (found through the line above)
import wire  # noqa: E402

# Registered up front; each test takes clients of its own, so that neither the grant cache nor another test's grants are
# in its way.
POOL = [f"app-{number:03}" for number in range(200)]
SCOPES = ["reports.read", "settings.write"]
ROUTES = [
    {
        "path": "/oda/apis/get/reports/assets/tenant/{tenant}/devicedistribution",
        "methods": ["GET"],
        "ignore_case": True,
        "scopes": ["reports.read"],
    },
    {"path": "/api/{tenant}/**", "methods": ["GET", "POST"]},
    {"path": "/settings/{tenant}/{section}", "methods": ["GET"], "scopes": ["settings.write"]},
    {"path": "/status/**", "methods": ["GET"], "public": True},
]


@dataclass
class Client:
    id: str
    secret: str


class World:
    """A provider, a tenantgate and an Envoy before them. With `separate_api` the API is a provider of its own, so that
    the lookup can go down alone."""

    def __init__(self, children, work, change_config=lambda config: None, clients=POOL, separate_api=False):
        self.work, self.children = work, children
        self.provider = children.start(stack.Provider, work, bin_dir())
        self.api = children.start(stack.Provider, work, bin_dir(), name="api") if separate_api else self.provider
        self.config = stack.on_any_ports(yaml.safe_load(stack.CONFIG.read_text()), self.provider)
        # Tests that need a state have one of their own.
        del self.config["state"], self.config["management"], self.config["listen"]["management"]
        self.config["tenants"]["lookup"]["cache_ttl"] = "60s"
        del self.config["tenants"]["freshness"]
        self.config["apis"][0]["routes"] = ROUTES
        change_config(self.config)
        stack.prepare(work, bin_dir(), yaml.safe_dump(self.config), {})
        self.secrets = {client: secrets.token_urlsafe(32) for client in clients}
        (work / "clients.yaml").write_text(yaml.safe_dump({"clients": [entry(*pair) for pair in self.secrets.items()]}))
        self._unused = iter([Client(*pair) for pair in self.secrets.items()])
        self.tenantgate = children.start(stack.Tenantgate, work, bin_dir(), "trace")
        self.envoy = self.start_envoy(yaml.safe_load(stack.ENVOY_CONFIG.read_text()), "envoy")
        self.url = self.envoy.url
        self.tokens = set()

    def start_envoy(self, config, name):
        """A further Envoy before the same tenantgate and provider."""
        file = stack.envoy_on_any_ports(self.work, config, self.tenantgate, {"api": self.api.address}, name)
        envoy = self.children.start(stack.Envoy, self.work, file, name)
        decided = lambda: requests.get(f"{envoy.url}/api/T1/", timeout=5).status_code in (401, 403)
        stack.wait_until("a first decision", decided, envoy)
        return envoy

    def client(self, *tenants):
        """A client that nothing has been asked about yet, authorised by these tenants."""
        client = next(self._unused)
        self.provider.control("PUT", f"clients/{client.id}", {"tenants": list(tenants)})
        return client

    def mint(self, client, **form):
        """A token request through Envoy. `tenant` and `resource` may be lists."""
        form = {"grant_type": "client_credentials", **form}
        answer = requests.post(f"{self.url}/oauth2/token", data=form, auth=(client.id, client.secret), timeout=10)
        if answer.ok:
            self.tokens.add(answer.json()["access_token"])
        return answer

    def token(self, client, **form):
        answer = self.mint(client, **form)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def get(self, path, token=None, headers=None):
        headers = dict(headers or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return requests.get(self.url + path, headers=headers, timeout=10)

    def upstream(self):
        """What reached the API since the last time somebody asked."""
        seen = self.provider.control("GET", "upstream")
        self.provider.control("DELETE", "upstream")
        return seen

    def logs(self):
        """All that tenantgate and Envoy have written."""
        return "\n".join(log.read_text(errors="replace") for log in self.work.glob("*.log") if log.name != "provider.log")


def entry(client, secret):
    """A client of clients.yaml; by hand, as `clients add` for hundreds would take its time."""
    return {
        "id": client,
        "status": "approved",
        "developer": {"id": "developer", "status": "active"},
        "credentials": [{"digest": "sha256:" + hashlib.sha256(secret.encode()).hexdigest(), "status": "active"}],
        "scopes": SCOPES,
    }


def bin_dir():
    return Path(os.environ.get("TENANTGATE_BIN_DIR", ROOT / "target/debug")).resolve()


@pytest.fixture(scope="session", autouse=True)
def binaries():
    for binary in (bin_dir() / "tenantgate", bin_dir() / "example-provider", stack.envoy_binary()):
        if not Path(binary).exists():
            pytest.exit(f"{binary} is missing; `make build tools` builds or brings it", returncode=1)


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory):
    with stack.Children() as children:
        with_feed = lambda config: config["listen"].update(feed="unix:feed.sock")
        world = World(children, tmp_path_factory.mktemp("world"), with_feed)
        yield world
        check_secrecy(world)


@pytest.fixture
def world(shared_world):
    shared_world.provider.control("PUT", "faults", {"lookup": None, "token": None})
    shared_world.provider.control("DELETE", "upstream")
    yield shared_world
    shared_world.provider.control("PUT", "faults", {"lookup": None, "token": None})


@pytest.fixture(scope="session")
def bare_envoy(shared_world):
    """An Envoy with nothing between the client's path and headers and tenantgate."""
    config = yaml.safe_load(stack.ENVOY_CONFIG.read_text())
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager |= {"normalize_path": False, "merge_slashes": False}
    manager["path_with_escaped_slashes_action"] = "KEEP_UNCHANGED"
    del manager["early_header_mutation_extensions"]
    return shared_world.start_envoy(config, "bare-envoy")


@pytest.fixture(params=["as shipped", "bare"])
def gateway(request, shared_world, bare_envoy):
    return {"as shipped": shared_world.envoy, "bare": bare_envoy}[request.param]


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def send(request):
    return {"HTTP/1.1": wire.http1, "HTTP/2": wire.http2}[request.param]


@pytest.fixture
def children():
    with stack.Children() as started:
        yield started


@pytest.fixture
def own_world(children, tmp_path):
    """Starts a stack of the test's own: own_world(change_config=..., ...)."""
    return lambda **options: World(children, tmp_path, **options)


def check_secrecy(world):
    """No token, signature or client secret may be in any log, at trace level."""
    logs = world.logs()
    for token in world.tokens:
        for part in token.split(".")[1:]:
            assert part not in logs, "a part of a token is in a log"
    for client, secret in world.secrets.items():
        assert secret not in logs, f"the secret of {client} is in a log"
    assert stack.LOOKUP_SECRET not in logs, "the secret of the lookup is in a log"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of every log."""
    report = yield
    if report.failed:
        worlds = (value for value in item.funcargs.values() if isinstance(value, World))
        directories = {world.work for world in worlds} | {item.funcargs.get("tmp_path")} - {None}
        for log in itertools.chain.from_iterable(sorted(directory.glob("*.log")) for directory in directories):
            report.sections.append((str(log), "\n".join(log.read_text(errors="replace").splitlines()[-20:])))
    return report
