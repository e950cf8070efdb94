"""Slow, greedy and guessing peers, and what they cannot do to everybody else; through a real Envoy."""

import contextlib
import re
import socket
import time

import pytest
import requests
from conftest import Client
from live import live_world
from replies import REALM, REPORT, assert_denied

FORM = {"grant_type": "client_credentials"}
TOKEN_CONNECTIONS = 230
FAILURES = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    def strict(config):
        config["limits"] |= {
            "token_connections": TOKEN_CONNECTIONS,
            "failures_per_minute": FAILURES,
            "probing": {"tenants": 3, "window": "2s", "throttle": True},
        }

    with live_world(tmp_path_factory.mktemp("attacks"), change_config=strict) as world:
        yield world


def status(world, token, tenant="T1"):
    return world.get(REPORT.format(tenant), token).status_code


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


@contextlib.contextmanager
def slow_connections(address, count):
    """Requests whose heads never end."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(address)) for _ in range(count)]
        for connection in connections:
            connection.sendall(b"POST /oauth2/token HTTP/1.1\r\nhost: gate\r\nx-drip: ")
        yield connections


def drip(connections):
    for connection in connections:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"a")


def test_200_slow_connections_disturb_no_check_and_no_mint(world):
    client = world.client("T1")
    token, ports = world.token(client), world.tenantgate.ports
    # The admin listener serves 64 connections at once; further ones fill its backlog.
    with slow_connections(ports["token"], 200) as on_token, slow_connections(ports["admin"], 180) as on_admin:
        for _ in range(20):
            drip(on_token + on_admin)
            assert [status(world, token), status(world, token, "T2")] == [200, 403]
            assert world.mint(client).status_code == 200
    world.wait_for("the admin listener", lambda: requests.get(f"{world.tenantgate.admin_url}/readyz", timeout=1).ok)


def test_more_connections_than_allowed_keep_out_neither_checks_nor_who_asks(world):
    token = world.token(world.client("T1"))
    address = world.tenantgate.ports["token"]
    ask = b"GET /oauth2/jwks HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n"
    with slow_connections(address, TOKEN_CONNECTIONS), connect(address) as further:
        further.sendall(ask)
        further.settimeout(5)
        # The oldest one that asks nothing made room.
        assert further.recv(12) == b"HTTP/1.1 200"
        assert status(world, token) == 200


def test_oversized_heads_and_forms_are_refused_and_change_nothing(world):
    client = world.client("T1")
    token = world.token(client)
    long = "a" * 40_000
    # Envoy's limit, then tenantgate's own.
    assert world.get(REPORT.format("T1"), token, headers={"x-long": long}).status_code == 431
    direct = f"{world.tenantgate.token_url}/oauth2/token"
    auth = (client.id, client.secret)
    assert requests.post(direct, data=FORM, auth=auth, headers={"x-long": long}, timeout=5).status_code == 431
    too_large = requests.post(direct, data=FORM | {"scope": "a" * 70_000}, auth=auth, timeout=5)
    assert_denied(too_large, 400, "invalid_request")
    # A token of 20 KiB passes Envoy and is not a token.
    assert world.get(REPORT.format("T1"), f"{token}{'a' * 20_000}").status_code == 401
    assert status(world, token) == 200


def shadow(config):
    config["apis"][0]["shadow"] = True


def test_shadow_mode_lets_pass_and_records_what_it_would_have_done(world):
    world.reconfigure(shadow)
    try:
        (api,) = re.findall(r'tenantgate_shadow_mode{api="([\w-]+)"} 1', metrics(world))
        assert world.log_lines('"WARN"', "SHADOW MODE", api)
        client = world.client("T1")
        token = world.token(client)
        reasons = {"tenant_not_granted": REPORT.format("T2"), "no_route": "/nowhere"}
        passed = lambda reason: world.metric(f'tenantgate_shadow_denials_total{{api="{api}",reason="{reason}"}}')
        for reason, path in reasons.items():
            answer = world.get(path, token)
            assert answer.status_code == 200
            assert passed(reason) == 1
            request_id = answer.headers["x-request-id"]
            assert world.log_lines("would have been denied", request_id, reason)
        assert world.get(REPORT.format("T2")).status_code == 200
        assert passed("no_credential") == 1
        # Nobody is taken for a client on the strength of a request that would have been denied.
        headers = world.upstream()[-1]["headers"]
        assert "x-tenantgate-client-id" not in headers
    finally:
        world.reconfigure()
    assert world.get(REPORT.format("T2")).status_code == 401
    assert "tenantgate_shadow_mode{" not in metrics(world)


def metrics(world):
    return requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).text


def test_probing_is_noticed_and_throttled_and_ends_with_its_window(world):
    prober, other = world.client("T1"), world.client("T1")
    token, others = world.token(prober), world.token(other)
    before = world.metric("tenantgate_tenant_probing_total")
    statuses = [status(world, token, f"X{number}") for number in range(6)]
    assert statuses == [403, 403, 403, 429, 429, 429]
    assert int(world.get(REPORT.format("X9"), token).headers["retry-after"]) > 0
    assert world.metric("tenantgate_tenant_probing_total") == before + 1
    assert len(world.log_lines('"WARN"', prober.id, "tenants")) == 1
    # Its own traffic, and everybody else's, is not touched.
    assert status(world, token) == 200
    assert [status(world, others), status(world, others, "X1")] == [200, 403]
    time.sleep(2)
    assert status(world, token, "X1") == 403


def test_guessing_is_slowed_and_locks_nobody_out(world):
    victim, bystander = world.client("T1"), world.client("T1")
    wrong = Client(victim.id, "guess")
    answers = [guess(world, wrong, forwarded_for=f"192.0.2.{number}") for number in range(FAILURES + 3)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:FAILURES] == [401] * FAILURES
    assert set(statuses[FAILURES:]) == {429}, "another X-Forwarded-For is no other source"
    assert answers[0].headers["www-authenticate"] == f"Basic {REALM}"
    assert int(answers[-1].headers["retry-after"]) > 0
    assert world.mint(victim).status_code == 200
    assert guess(world, Client(bystander.id, "guess"), forwarded_for="192.0.2.99").status_code == 401


def guess(world, client, forwarded_for):
    headers = {"x-forwarded-for": forwarded_for}
    auth = (client.id, client.secret)
    return requests.post(f"{world.url}/oauth2/token", data=FORM, auth=auth, headers=headers, timeout=5)
