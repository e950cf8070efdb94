"""Quotas by Envoy's own rate limiters, from what tenantgate says of a client: counted in one Envoy, and by the real rate
limit service with Redis."""

import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import requests
import stack
import yaml
from conftest import ROOT
from live import LiveWorld

LOCAL, GLOBAL = (ROOT / f"envoy/quota-{name}.yaml" for name in ("local", "global"))
RATELIMIT = os.environ.get("RATELIMIT")
REDIS = ["redis-server", "redis-tools", "libjemalloc2", "liblzf1", "liblua5.1-0", "lua-bitop", "lua-cjson", "libhiredis0.14", "libatomic1"]


def statuses(world, envoy, token, count):
    get = lambda: requests.get(f"{envoy.url}/api/T1/", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    answers = [get() for _ in range(count)]
    return [answer.status_code for answer in answers], answers[-1]


def test_one_envoy_counts_for_each_client(own_world):
    world = own_world(clients=["acme-analytics", "a", "b"])
    config = yaml.safe_load(LOCAL.read_text())
    routes = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
    (api,) = [route for route in routes["virtual_hosts"][0]["routes"] if route["name"] == "api"]
    limits = api["typed_per_filter_config"]["envoy.filters.http.local_ratelimit"]
    for descriptor, tokens in zip(limits["descriptors"], (5, 3), strict=True):
        descriptor["token_bucket"] |= {"max_tokens": tokens, "tokens_per_fill": tokens}
    envoy = world.start_envoy(config, "quota")
    tokens = [world.token(world.client("T1")) for _ in range(3)]
    for token, may in zip(tokens, (5, 3, 3), strict=True):
        found, last = statuses(world, envoy, token, may + 1)
        assert found == [200] * may + [429]
        assert last.headers["x-ratelimit-limit"].startswith(str(may))
        assert last.headers["x-ratelimit-remaining"] == "0"


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    folder = ROOT / ".tools/redis"
    if not (folder / "usr/bin/redis-server").exists():
        with tempfile.TemporaryDirectory() as packages:
            subprocess.run(["apt-get", "download", "-qq", *REDIS], cwd=packages, check=True, timeout=120)
            for package in Path(packages).glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, folder], check=True)
    port = free_port()
    libraries = os.pathsep.join(str(path) for path in (folder / "usr/lib").iterdir())
    argv = [folder / "usr/bin/redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(argv, env={"LD_LIBRARY_PATH": libraries}, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class RateLimit(stack.Process):
    """github.com/envoyproxy/ratelimit."""

    def __init__(self, work, redis):
        root = work / "ratelimit"
        (root / "config").mkdir(parents=True)
        (root / "config/tenantgate.yaml").write_text((ROOT / "envoy/ratelimit/tenantgate.yaml").read_text().replace("600", "3"))
        self.grpc, http, debug = (free_port() for _ in range(3))
        settings = {
            "USE_STATSD": "false", "LOG_LEVEL": "warn", "REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": redis,
            "RUNTIME_ROOT": root, "RUNTIME_SUBDIRECTORY": "", "RUNTIME_WATCH_ROOT": "false", "RUNTIME_IGNOREDOTFILES": "true",
            "HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1", "DEBUG_HOST": "127.0.0.1",
            "PORT": http, "GRPC_PORT": self.grpc, "DEBUG_PORT": debug,
        }
        self.health = f"http://127.0.0.1:{http}/healthcheck"
        settings = [f"{name}={value}" for name, value in settings.items()]
        super().__init__("the rate limit service", ["env", *settings, RATELIMIT], work / "ratelimit.log")

    def wait_ready(self):
        stack.wait_until("the rate limit service", lambda: requests.get(self.health, timeout=2).ok, self)


@pytest.mark.skipif(not RATELIMIT, reason="NOT TESTED: `make test-ratelimit` builds the rate limit service")
def test_the_rate_limit_service_counts_a_client_s_own_quota(children, tmp_path, redis):
    world = LiveWorld(children, tmp_path, clients=["plain", "gold", "other"])
    service = children.start(RateLimit, tmp_path, redis)
    clients = [world.client("T1") for _ in range(3)]
    world.change_client(clients[1], quota={"requests_per_unit": 6, "unit": "MINUTE"})
    config = yaml.safe_load(GLOBAL.read_text())
    file = stack.envoy_on_any_ports(
        tmp_path, config, world.tenantgate, {"api": world.api.address, "ratelimit": f"127.0.0.1:{service.grpc}"}, "quota"
    )
    envoys = [children.start(stack.Envoy, tmp_path, file, name) for name in ("quota-1", "quota-2")]
    tokens = [world.token(client) for client in clients]
    shows = lambda: statuses(world, envoys[0], tokens[1], 1)[1].headers.get("x-ratelimit-limit", "").startswith("6")
    stack.wait_until("the quota", shows, world.tenantgate)
    for token, may, used in ((tokens[0], 3, 0), (tokens[1], 6, None), (tokens[2], 3, 0)):
        # Both Envoys count together.
        found = [statuses(world, envoy, token, 1)[1] for envoy in envoys * 4]
        passed = [answer.status_code for answer in found].count(200)
        assert passed == may if used is not None else 0 < passed <= may, (may, passed)
        assert found[-1].status_code == 429
        assert found[-1].headers["x-ratelimit-limit"].startswith(f"{may}, {may};w=60")
