"""The decision inside Envoy: the module beside external authorization, in two real Envoys before the same API. They never
differ; and what goes wrong keeps Envoy up and lets nothing pass."""

import base64
import copy
import inspect
import json
import re
import subprocess
import time
from collections import Counter

import pytest
import requests
import stack
import wire
import yaml
from conftest import ROOT, bin_dir
from replies import REPORT
from test_headers import SEVERAL

SAMPLE = ROOT / "deploy/in-process/envoy.yaml"
LIBRARY = bin_dir() / "libtenantgate_module.so"

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"no {LIBRARY}; `make test` builds it")


def http_filters(config):
    (listener,) = config["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]


def filter_of(config):
    return next(entry for entry in http_filters(config) if entry["name"] == "tenantgate")["typed_config"]


def in_process(work, **settings):
    """The sample, with the library that was built and the config of a world."""
    config = yaml.safe_load(SAMPLE.read_text())
    module = filter_of(config)
    module["dynamic_module_config"]["module"]["local"]["filename"] = str(LIBRARY)
    module["filter_config"]["value"] = json.dumps({"config": str(work / "tenantgate.yaml"), **settings})
    return config


def start(world, children, config, name):
    places = {"api": world.api.address}
    file = stack.envoy_on_any_ports(world.work, config, world.tenantgate, places, name)
    return children.start(stack.Envoy, world.work, file, name)


def validated(world, config):
    """What Envoy says of a config that it does not run."""
    file = stack.envoy_on_any_ports(world.work, config, world.tenantgate, {"api": world.api.address}, "validated")
    argv = [stack.envoy_binary(), "--mode", "validate", "--config-path", file]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


@pytest.fixture(params=["from files", "fed by the sidecar"], scope="module")
def inside(request, shared_world):
    """The module in an Envoy of its own, by both ways in which it gets to know things."""
    fed = request.param == "fed by the sidecar"
    settings = {"feed": f"unix:{shared_world.work}/feed.sock"} if fed else {}
    with stack.Children() as children:
        config = in_process(shared_world.work, **settings)
        envoy = start(shared_world, children, config, f"inside-{len(settings)}")
        decided = lambda: requests.get(f"{envoy.url}/api/T1/", timeout=5).status_code == 401
        stack.wait_until("a first decision", decided, envoy)
        yield envoy


def corpus():
    paths = []
    for line in (ROOT / "tests/corpus/paths.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            text = line.partition("\t")[2]
            path = re.sub(rb"<([0-9a-f]{2})>", lambda match: bytes([int(match[1], 16)]), text.encode())
            if path.startswith(b"/") and not re.search(rb"[\x00-\x20\x7f]", path):
                paths.append(path)
    assert len(paths) > 80
    return paths


def shown(answer):
    """What a caller sees, but for what differs with every answer."""
    dropped = {"date", "x-request-id", "server", "x-envoy-upstream-service-time", "connection"}
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in dropped}
    # The example API says what reached it, request id included.
    if answer.status == 200:
        return answer.status, {name: value for name, value in headers.items() if name != "content-length"}
    return answer.status, headers, answer.body


COMPARED = Counter()


@pytest.fixture(scope="module", autouse=True)
def count():
    """How many requests were decided by both; `pytest -s` shows it."""
    yield
    print(f"\n{sum(COMPARED.values())} requests decided by both: {dict(COMPARED)}")


def both(world, inside, path, headers, send=wire.http1, method="GET"):
    COMPARED[inspect.stack()[1].function] += 1
    answers = [send(gateway.address, path, headers, method) for gateway in (world.envoy, inside)]
    return [shown(answer) for answer in answers]


def test_the_sample_differs_from_the_other_in_the_filter_only():
    ours, theirs = yaml.safe_load(SAMPLE.read_text()), yaml.safe_load(stack.ENVOY_CONFIG.read_text())
    for config in (ours, theirs):
        resources = config["static_resources"]
        manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        kept = ("envoy.filters.http.buffer", "envoy.filters.http.router")
        manager["http_filters"] = [entry for entry in manager["http_filters"] if entry["name"] in kept]
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            unchecked = route.get("typed_per_filter_config", {})
            assert bool(unchecked) == (route["name"] != "api")
            unchecked.pop("tenantgate", None), unchecked.pop("envoy.filters.http.ext_authz", None)
        resources["clusters"] = [c for c in resources["clusters"] if c["name"] != "tenantgate-check"]
    assert ours == theirs


@pytest.mark.parametrize("send", [wire.http1, wire.http2], ids=["HTTP/1.1", "HTTP/2"])
def test_every_path_of_the_corpus_is_decided_alike(world, inside, send):
    token = world.token(world.client("T1"))
    bearer = [("authorization", f"Bearer {token}")]
    statuses = set()
    for path in corpus():
        outside, within = both(world, inside, path, bearer, send)
        assert outside == within, path
        statuses.add(within[0])
    assert statuses >= {200, 400, 403}


def test_every_credential_is_judged_alike(world, inside):
    token = world.token(world.client("T1"))
    head, payload, signature = token.split(".")
    revoked = world.client("T1")
    live = world.token(revoked)
    cases = {
        "none": [],
        "good": [("authorization", f"Bearer {token}")],
        "lower-case scheme": [("authorization", f"bearer {token}")],
        "empty": [("authorization", "")],
        "no token": [("authorization", "Bearer ")],
        "basic": [("authorization", "Basic YTpi")],
        "two": [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {live}")],
        "joined": [("authorization", f"Bearer {token}, Bearer {live}")],
        "cut": [("authorization", f"Bearer {head}.{payload}")],
        "no signature": [("authorization", f"Bearer {head}.{payload}.")],
        "another signature": [("authorization", f"Bearer {head}.{payload}.{signature[::-1]}")],
        "rubbish": [("authorization", "Bearer \xff\xfe".encode("latin-1"))],
        "long": [("authorization", "Bearer " + "a" * 20000)],
        "forged headers": [("authorization", f"Bearer {token}"), ("x-tenantgate-client-id", "admin")],
    }
    for name, headers in cases.items():
        for path in (REPORT.format("T1"), REPORT.format("T2"), "/settings/T1/a", "/status/x", "/nowhere"):
            outside, within = both(world, inside, path, headers)
            assert outside == within, (name, path)


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "PURGE", "X"]


def test_every_reply_is_the_same(world, inside):
    """Who asks, by which method, for what: all at once."""
    client, other = world.client("T1", "T3"), world.client("T2")
    blocked = world.client("T1")
    live = world.token(blocked)
    registry = yaml.safe_load((world.work / "clients.yaml").read_text())
    next(entry for entry in registry["clients"] if entry["id"] == blocked.id)["status"] = "revoked"
    new = world.work / "clients.new"
    new.write_text(yaml.safe_dump(registry))
    new.rename(world.work / "clients.yaml")
    header, claims, signature = world.token(client).split(".")
    encode = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    wider = json.loads(base64.urlsafe_b64decode(claims + "=="))
    wider["client_id"] = "acme"
    tokens = {
        "good": world.token(client),
        "narrowed to a scope": world.token(client, scope="reports.read"),
        "narrowed to a tenant": world.token(client, tenant="T3"),
        "of another": world.token(other),
        "of a revoked client": live,
        "with other claims": f"{header}.{encode(wider)}.{signature}",
        "unsigned": f"{encode({'alg': 'none', 'typ': 'at+jwt'})}.{claims}.",
        "of another key": f"{encode({'alg': 'ES256', 'typ': 'at+jwt', 'kid': 'x'})}.{claims}.{signature}",
        "with symmetric key": f"{encode({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'x'})}.{claims}.{signature}",
    }
    refused = lambda gateway: wire.http1(gateway.address, "/api/T1/", [("authorization", f"Bearer {live}")]).status
    for gateway in (world.envoy, inside):
        stack.wait_until("the revocation", lambda gateway=gateway: refused(gateway) == 401, inside)
    paths = [REPORT.format("T1"), REPORT.format("T2").upper(), REPORT.format("T3") + "?a=/../b", "/api/T1", "/api/T3/x/y",
             "/settings/T1/theme", "/status/live", "/nowhere", "/api//T1"]
    statuses = Counter()
    for who, token in tokens.items():
        for path in paths:
            for method in METHODS if who in ("good", "of another") else METHODS[:3]:
                if method == "HEAD":
                    continue  # no body to read
                headers = [("authorization", f"Bearer {token}"), ("content-length", "0")]
                outside, within = both(world, inside, path, headers, method=method)
                assert outside == within, (who, path, method)
                statuses[within[0]] += 1
    assert set(statuses) >= {200, 400, 401, 403}, statuses


def test_every_header_of_the_corpus_arrives_the_same(world, inside):
    token = world.token(world.client("T1"))
    good = ("authorization", f"Bearer {token}")
    names = ["x-tenantgate-client-id", "X-Tenantgate-Scope", "x-tenantgate-var-section", "x_tenantgate_client_id",
             "x-original-url", "x-rewrite-url", "x-forwarded-prefix", "x-http-method-override", "cookie", "x-a"]
    cases = [[good]] + [[good, (name, value)] for name in names for value in ("admin", "", "a, b", "\xe9")]
    cases += [[good, (name, "1"), (name, "2")] for name in names]
    cases += [[("authorization", value) for value in values(token)] for values in SEVERAL.values()]
    for path in ("/api/T1/o", "/settings/T1/theme", "/status/x"):
        for send in (wire.http1, wire.http2):
            for headers in cases:
                if send is wire.http2:
                    headers = [(name.lower(), value) for name, value in headers]
                seen = []
                for gateway in (world.envoy, inside):
                    world.provider.control("DELETE", "upstream")
                    answer = send(gateway.address, path, headers)
                    requests_seen = world.upstream()
                    kept = [{name: value for name, value in request["headers"].items() if name != "x-request-id"}
                            for request in requests_seen]
                    seen.append((shown(answer), kept))
                COMPARED["headers"] += 1
                assert seen[0] == seen[1], (path, headers)


def test_the_api_gets_the_same_headers(world, inside):
    token = world.token(world.client("T1"))
    seen = []
    for gateway in (world.envoy, inside):
        world.provider.control("DELETE", "upstream")
        headers = {"Authorization": f"Bearer {token}", "x-tenantgate-client-id": "admin", "x-tenantgate-scope": "all"}
        assert requests.get(gateway.url + REPORT.format("T1"), headers=headers, timeout=5).status_code == 200
        (request,) = world.upstream()
        seen.append({name: value for name, value in request["headers"].items()
                     if name.startswith("x-tenantgate-") or name == "authorization"})
    assert seen[0] == seen[1] and seen[0]["x-tenantgate-client-id"] != ["admin"]


def test_what_is_taken_away_stops_inside_too(world, inside):
    """A revoked client, by the file alone: nobody tells Envoy."""
    client = world.client("T1")
    token = world.token(client)
    headers = {"Authorization": f"Bearer {token}"}
    ask = lambda: requests.get(inside.url + REPORT.format("T1"), headers=headers, timeout=5).status_code
    assert ask() == 200
    registry = yaml.safe_load((world.work / "clients.yaml").read_text())
    next(entry for entry in registry["clients"] if entry["id"] == client.id)["status"] = "revoked"
    new = world.work / "clients.new"
    new.write_text(yaml.safe_dump(registry))
    new.rename(world.work / "clients.yaml")
    started = time.monotonic()
    stack.wait_until("the withdrawal", lambda: ask() == 401, inside)
    assert time.monotonic() - started < 10


# Envoy 1.38 finds a route's library by its name only.
BY_PATH = pytest.param("module", marks=pytest.mark.skipif("envoy-1.38" in str(stack.envoy_binary()), reason="Envoy 1.38"))


@pytest.mark.parametrize("form", [BY_PATH, "name"])
def test_a_route_names_its_api_and_counters_count(world, children, form, monkeypatch):
    monkeypatch.setenv("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", str(LIBRARY.parent))
    config = in_process(world.work, api="nobody")
    library = {"module": filter_of(config)["dynamic_module_config"],
               "name": {"name": "tenantgate_module", "do_not_close": True}}
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    api = next(route for route in routes if route["name"] == "api")
    named = copy.deepcopy(api)
    named["match"] = {"prefix": "/api/"}
    named["name"] = "named"
    named["typed_per_filter_config"] = {"tenantgate": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
        "dynamic_module_config": library[form],
        "per_route_config_name": "tenantgate",
        "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": '{"api": "oda"}'},
    }}
    routes.insert(0, named)
    envoy = start(world, children, config, "named")
    headers = {"Authorization": f"Bearer {world.token(world.client('T1'))}"}
    assert requests.get(f"{envoy.url}/api/T1/", headers=headers, timeout=5).status_code == 200
    assert requests.get(envoy.url + REPORT.format("T1"), headers=headers, timeout=5).status_code == 403
    stats = requests.get(f"{envoy.admin_url}/stats?filter=tenantgate", timeout=5).text
    counts = dict(re.findall(r"tenantgate\.(allowed|denied|undecided): (\d+)", stats))
    assert counts == {"allowed": "1", "denied": "1", "undecided": "0"}, stats


def test_metadata_on_demand(world, children):
    envoy = start(world, children, in_process(world.work, metadata=True), "metadata")
    client = world.client("T1")
    headers = {"Authorization": f"Bearer {world.token(client)}"}
    assert requests.get(f"{envoy.url}/api/T1/", headers=headers, timeout=5).status_code == 200
    line = f'"client":"{client.id}"'
    stack.wait_until("the access log", lambda: line in envoy.log.read_text(), envoy)


@pytest.mark.parametrize("broken, named", [
    ({"config": "/nowhere/tenantgate.yaml"}, "/nowhere/tenantgate.yaml"),
    ({"config": "tenantgate.yaml", "apis": "oda"}, "apis"),
])
def test_a_broken_config_stops_envoy_at_its_start(shared_world, broken, named):
    config = in_process(shared_world.work)
    filter_of(config)["filter_config"]["value"] = json.dumps(broken)
    done = validated(shared_world, config)
    assert done.returncode != 0 and named in done.stderr, done.stderr


def test_its_log_has_neither_token_nor_tenant(world, children):
    envoy = start(world, children, in_process(world.work), "logged")
    token = world.token(world.client("CANARY-1"))
    for tenant in ("CANARY-1", "CANARY-2"):
        requests.get(envoy.url + REPORT.format(tenant), headers={"Authorization": f"Bearer {token}"}, timeout=5)
    stack.wait_until("the log of the denial", lambda: "denied" in envoy.log.read_text(), envoy)
    log = envoy.log.read_text()
    assert "CANARY" not in log and token.split(".")[2] not in log
