"""Paths that try to reach another tenant, through an Envoy as shipped and through one that normalises nothing."""

import pytest
import wire

CLEAN = ["/api/T1/o", "/api/T1/", "/api/T1", "/api/T1/o?t=T2", "/api/T1/o?%2f..%2f", "/api/T1/o?/../../T2"]

# Refused with 400 where Envoy leaves the path alone.
AMBIGUOUS = [
    "//api/T1",
    "/api//T1",
    "/api/T1//o",
    "/api/T1/../T2",
    "/api/T1/x/../../T2",
    "/api/T1/./o",
    "/api/T1/..",
    "/api/T1/%2e%2e/T2",
    "/api/T1/%2E%2e/T2",
    "/api/T1/.%2e/T2",
    "/api/T1%2fo",
    "/api/T1%2Fo",
    "/api/T1/..%2fT2",
    "/api/T1%5co",
    "/api/T1/..%5C..%5cT2",
    "/api/T1\\..\\T2",
    "/api/T1/%252e%252e/T2",
    "/api/T1/%252e%252e%252fT2",
    "/api/T1;v=1/o",
    "/api/T1/..;/T2",
    "/api/T1/o;x",
    "/api/%54%31/o",
    "/api/T1%00/o",
    "/api/T1/o%0d%0a",
    "/api/T1/o%7f",
    "/api/T1/..%3b/T2",
    "/api/T1/..%3B/T2",
    "/api/T1/%c0%ae%c0%ae/T2",
    "/api/T1/%e0%80%ae",
    "/api/T1%zz",
    "/api/T1/%",
    "/api/T1/%2",
    "/api/T1#/o",
    "/api/T1%c0%af..",
    "http://h/api/T1/../T2",
    "/api/" + "T" * 129,
    "/api/T1/" + "a/" * 300,
]

# No ambiguity, just not allowed: 403.
FOREIGN = ["/api/T2/o", "/api/t1/o", "/API/T1/o", "/", "/api", "/api/", "/apis/T1/o"]


@pytest.fixture(scope="module")
def token(shared_world):
    shared_world.client("T2")  # so that T2 exists
    return shared_world.token(shared_world.client("T1"))


def bearer(token):
    return [("authorization", f"Bearer {token}")]


@pytest.mark.parametrize("path", CLEAN)
def test_clean_paths_pass(world, gateway, token, send, path):
    assert send(gateway.address, path, bearer(token)).status == 200
    (seen,) = world.upstream()
    assert seen["path"] == path


@pytest.mark.parametrize("path", FOREIGN)
def test_foreign_paths_are_denied(world, gateway, token, send, path):
    answer = send(gateway.address, path, bearer(token))
    assert (answer.status, answer.json()["error"]) == (403, "access_denied")
    assert world.upstream() == []


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_ambiguous_paths_are_refused_by_tenantgate_alone(bare_envoy, token, send, path):
    before = bare_envoy.requests_to("api")
    answer = send(bare_envoy.address, path, bearer(token))
    assert answer.status in (0, 400), "reset by Envoy, or 400"
    # The provider's own server refuses some of these too, so what counts is that nothing was sent there.
    assert bare_envoy.requests_to("api") == before


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_ambiguous_paths_reach_no_other_tenant_behind_the_shipped_envoy(world, token, send, path):
    answer = send(world.envoy.address, path, bearer(token))
    for seen in world.upstream():
        # Envoy has made it a clean path of the token's own tenant.
        assert answer.status == 200
        assert (seen["path"] + "/").startswith("/api/T1/")
        assert not set(seen["path"]) & set("%;\\#") and ".." not in seen["path"]


@pytest.mark.parametrize("byte", [0x01, 0x1F, 0x7F, 0x80, 0xC0, 0xE9, 0xFF])
def test_raw_bytes_in_a_path_are_refused(gateway, token, byte):
    before = gateway.requests_to("api")
    path = b"/api/T1/" + bytes([byte]) + b"/o"
    assert wire.http1(gateway.address, path, bearer(token)).status == 400
    assert gateway.requests_to("api") == before


@pytest.mark.parametrize("method", ["OPTIONS", "CONNECT"])
@pytest.mark.parametrize("path", ["*", "", "gateway:80"])
def test_requests_without_a_path_reach_nobody(world, gateway, token, method, path):
    answer = wire.http1(gateway.address, path, bearer(token), method=method)
    assert answer.status in (400, 403, 404), answer
    assert world.upstream() == []


def test_http2_connect_without_a_path_reaches_nobody(world, gateway, token):
    answer = wire.http2(gateway.address, None, bearer(token), method="CONNECT")
    assert answer.status in (0, 400, 403, 404)
    assert world.upstream() == []


def test_absolute_form_is_the_same_request(world, gateway, token):
    """Envoy takes the path out of an absolute-form target, as HTTP/1.1 asks of a server."""
    assert wire.http1(gateway.address, "http://gateway/api/T1/o", bearer(token)).status == 200
    assert wire.http1(gateway.address, "http://gateway/api/T2/o", bearer(token)).status == 403
    (seen,) = world.upstream()
    assert seen["path"] == "/api/T1/o"


@pytest.mark.parametrize(
    "header",
    ["x-original-url", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-path", "x-envoy-original-path", "x-http-method-override"],
)
def test_forwarding_headers_never_matter(world, gateway, token, send, header):
    hint = [(header, "/api/T1/o")]
    assert send(gateway.address, "/api/T2/o", bearer(token) + hint).status == 403
    assert world.upstream() == []


def test_an_overlong_path_is_refused(gateway, token, send):
    before = gateway.requests_to("api")
    assert send(gateway.address, "/api/T1/" + "a" * 9000, bearer(token)).status == 400
    assert gateway.requests_to("api") == before


def test_the_variant_really_normalises_nothing(bare_envoy, world):
    """Otherwise the tests above would hold for the wrong reason."""
    assert wire.http1(world.envoy.address, "/status//live").status == 200
    assert wire.http1(bare_envoy.address, "/status//live").status == 400
