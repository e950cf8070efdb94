"""Metrics, health, and logs that tell what happened without telling secrets."""

import json
import re
import socket
import time

import h2.config
import h2.connection
import h2.events
import pytest
import requests
import stack
from conftest import ROOT
from replies import REPORT


def metrics(world):
    """Every sample as {name: {frozen labels: value}}."""
    text = requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).text
    samples = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line):
            labels = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            samples.setdefault(match[1], {})[labels] = float(match[3])
    return samples


def total(samples, name):
    return sum(samples.get(name, {}).values())


def test_metrics_count_decisions_mints_and_lookups(world):
    client = world.client("T1001")
    before = metrics(world)
    token = world.token(client)
    for tenant in ("T1001", "T2002"):
        world.get(REPORT.format(tenant), token)
    after = metrics(world)
    for name, rise in {
        "tenantgate_decisions_total": 2,
        "tenantgate_token_requests_total": 1,
        "tenantgate_lookups_total": 1,
    }.items():
        assert total(after, name) - total(before, name) == rise, name
    assert after["tenantgate_build_info"]
    assert after["process_resident_memory_bytes"]


def test_metric_labels_hold_neither_path_nor_tenant_nor_client(world):
    client = world.client("T1001")
    world.get(REPORT.format("T1001"), world.token(client))
    world.get("/surprise/T1001")
    text = requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).text
    for word in ("T1001", "surprise", client.id):
        assert word not in text


def test_every_metric_has_its_row_in_the_operations_page(world):
    page = (ROOT / "docs/operations.md").read_text()
    text = requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).text
    families = re.findall(r"^# TYPE (tenantgate_\w+) (\w+)$", text, re.MULTILINE)
    assert len(families) > 20
    assert not [name for name, kind in families if f"\n| `{name}` | {kind} | " not in page]


def test_live_and_ready(world):
    for path in ("/livez", "/readyz"):
        assert requests.get(world.tenantgate.admin_url + path, timeout=5).status_code == 200


def grpc_health(address):
    """One grpc.health.v1 Check of the whole server; the status number (1: serving)."""
    client = h2.connection.H2Connection(h2.config.H2Configuration())
    client.initiate_connection()
    call = {":method": "POST", ":scheme": "http", ":authority": "tenantgate", ":path": "/grpc.health.v1.Health/Check"}
    client.send_headers(1, [*call.items(), ("content-type", "application/grpc"), ("te", "trailers")])
    client.send_data(1, b"\0" * 5, end_stream=True)  # an empty message
    host, port = address.rsplit(":", 1)
    message = b""
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(client.data_to_send())
        while chunk := connection.recv(65536):
            for event in client.receive_data(chunk):
                if isinstance(event, h2.events.DataReceived):
                    message += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    assert message[5:6] == b"\x08", message
                    return message[6]
            connection.sendall(client.data_to_send())


def test_grpc_health(world):
    assert grpc_health(world.tenantgate.ports["check"]) == 1


def test_envoys_own_health_check_passes(world):
    def healthy():
        stats = requests.get(f"{world.envoy.admin_url}/stats?filter=tenantgate-check.*health", timeout=5).text
        return "cluster.tenantgate-check.health_check.success: 0" not in stats and stats

    stats = stack.wait_until("a health check by Envoy", healthy, world.envoy, seconds=10)
    assert "cluster.tenantgate-check.membership_healthy: 1" in stats
    assert "cluster.tenantgate-check.health_check.failure: 0" in stats


@pytest.fixture
def canary_world(own_world):
    return own_world(clients=["app-1", "app-2"])


def test_no_tenant_code_token_or_secret_leaves_the_house(canary_world):
    """At trace level, through every kind of decision and lookup; the planted codes are unmistakable."""
    world = canary_world
    own, foreign = "canary-own-7f3a", "canary-foreign-9c1d"
    client, unlucky = world.client(own), world.client(own)
    token = world.token(client)
    answers = [
        world.get(f"/api/{own}/o", token),
        world.get(f"/api/{foreign}/o", token),
        world.get(f"/api/{foreign}/../x%2f", token),
        world.get(f"/nowhere/{foreign}", token),
        world.get(f"/api/{own}/o", token + "x"),
        world.get(f"/settings/{own}/theme", world.token(client, scope="reports.read")),
        world.mint(client, tenant=foreign),
        world.mint(client, resource=f"urn:tenantgate:tenant:{foreign}"),
        world.mint(client, tenant=f"{foreign} !"),
    ]
    assert [answer.status_code for answer in answers] == [200, 403, 400, 403, 401, 403, 400, 400, 400]
    for fault in ("wrong_shape", "garbage", "huge", "500", "closed"):
        world.provider.control("PUT", "faults", {"lookup": fault})
        assert world.mint(unlucky).status_code == 503

    logs = world.logs()
    places = {
        "a log": logs,
        "the metrics": requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).text,
        "Envoy's stats": requests.get(f"{world.envoy.admin_url}/stats", timeout=5).text,
        "a refusal": "".join(answer.text for answer in answers[1:]),
    }
    canaries = {own, foreign, client.secret, unlucky.secret, stack.LOOKUP_SECRET, *token.split(".")[1:]}
    for place, text in places.items():
        assert len(text) > 100, place
        for canary in canaries:
            assert canary not in text, f"{canary} is in {place}"


def lines_about(log, request_id):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lines = [json.loads(line) for line in log.read_text().splitlines() if request_id in line]
        if lines:
            return lines
        time.sleep(0.05)
    return []


def test_a_denial_can_be_followed_by_its_request_id(world):
    client = world.client("T1001")
    answer = world.get(REPORT.format("T2002"), world.token(client))
    request_id = answer.headers["x-request-id"]
    (access,) = lines_about(world.envoy.log, request_id)
    assert (access["status"], access["method"], access["route"]) == (403, "GET", "api")
    ours = [line for line in lines_about(world.tenantgate.log, request_id) if line["level"] == "INFO"]
    assert len(ours) == 1, ours
    assert (ours[0]["client"], ours[0]["reason"], ours[0]["rule"]) == (client.id, "tenant_not_granted", "not_in_token")


def test_a_denial_names_the_nearest_route(world):
    answer = world.get(REPORT.format("T1001") + "x", world.token(world.client("T1001")))
    (line,) = [line for line in lines_about(world.tenantgate.log, answer.headers["x-request-id"]) if "reason" in line]
    assert line["reason"] == "no_route" and line["nearest"] == REPORT.format("{tenant}")
    assert line["differs"].startswith("segment ") and "T1001" not in json.dumps(line)


def test_the_access_log_names_the_client(world):
    client = world.client("T1001")
    answer = world.get(REPORT.format("T1001"), world.token(client))
    (access,) = lines_about(world.envoy.log, answer.headers["x-request-id"])
    assert access["client"] == client.id
