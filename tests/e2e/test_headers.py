"""What clients send in headers, and what the API behind gets to see."""

import pytest
import wire
from replies import REALM, challenge_with

PATH = "/api/T1/o"


@pytest.fixture
def holder(world):
    client = world.client("T1")
    return client, world.token(client)


def headers_seen(world):
    (seen,) = world.upstream()
    return seen["headers"]


def test_our_headers_are_overwritten_and_the_token_is_removed(world, holder, gateway, send):
    client, token = holder
    forged = [("x-tenantgate-client-id", "admin"), ("x-tenantgate-scope", "everything")]
    answer = send(gateway.address, PATH, [("authorization", f"Bearer {token}"), *forged])
    assert answer.status == 200
    seen = headers_seen(world)
    assert seen["x-tenantgate-client-id"] == [client.id]
    assert seen["x-tenantgate-scope"] == ["reports.read settings.write"]
    assert "authorization" not in seen


def test_a_forged_header_sent_twice_is_overwritten_as_a_whole(world, holder, gateway, send):
    client, token = holder
    forged = [("x-tenantgate-client-id", "admin"), ("x-tenantgate-client-id", "root")]
    assert send(gateway.address, PATH, [*forged, ("authorization", f"Bearer {token}")]).status == 200
    assert headers_seen(world)["x-tenantgate-client-id"] == [client.id]


def test_public_routes_do_not_pass_forged_headers(world, gateway, send):
    forged = [("x-tenantgate-client-id", "admin"), ("x-tenantgate-scope", "everything")]
    assert send(gateway.address, "/status/live", forged).status == 200
    seen = headers_seen(world)
    assert [name for name in seen if name.startswith("x-tenantgate-")] == []


def test_the_shipped_envoy_drops_every_header_under_our_prefix(world, holder):
    forged = [("X-Tenantgate-Anything", "1"), ("x-tenantgate-var-section", "2")]
    assert wire.http1(world.envoy.address, PATH, [*forged, ("authorization", f"Bearer {holder[1]}")]).status == 200
    seen = headers_seen(world)
    assert {name for name in seen if name.startswith("x-tenantgate-")} == {"x-tenantgate-client-id", "x-tenantgate-scope"}


@pytest.mark.parametrize("header", ["x-original-url", "x-original-uri", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-prefix", "x-http-method-override", "x-http-method", "x-method-override"])
def test_the_shipped_envoy_drops_what_may_name_another_path_or_method(world, holder, header):
    """Some frameworks believe them: the API would serve what nobody has checked."""
    request = [("authorization", f"Bearer {holder[1]}"), (header, "/api/T2/o")]
    assert wire.http1(world.envoy.address, PATH, request).status == 200
    assert header not in headers_seen(world)


def test_no_header_of_ours_holds_the_tenant(world, holder):
    assert world.get(PATH, holder[1]).status_code == 200
    ours = {name: value for name, value in headers_seen(world).items() if name.startswith("x-tenantgate-")}
    assert ours and "T1" not in str(ours)


def test_headers_with_underscores_are_dropped(world, holder):
    """CGI-like servers read x_tenantgate_client_id as x-tenantgate-client-id."""
    headers = [("authorization", f"Bearer {holder[1]}"), ("x_tenantgate_client_id", "admin")]
    assert wire.http1(world.envoy.address, PATH, headers).status == 200
    assert "x_tenantgate_client_id" not in headers_seen(world)


SEVERAL = {
    "twice the same": lambda token: [f"Bearer {token}"] * 2,
    "two schemes": lambda token: [f"Bearer {token}", "Basic YTpi"],
    "good after bad": lambda token: ["Bearer x.y.z", f"Bearer {token}"],
    "joined by a comma": lambda token: [f"Bearer {token}, Bearer {token}"],
    "joined without a space": lambda token: [f"Bearer {token},Bearer {token}"],
}


@pytest.mark.parametrize("values", SEVERAL.values(), ids=SEVERAL.keys())
def test_several_tokens_are_refused(world, holder, gateway, send, values):
    answer = send(gateway.address, PATH, [("authorization", value) for value in values(holder[1])])
    assert answer.status == 400
    body = answer.json()
    assert body["error"] == "invalid_request"
    assert answer.headers["www-authenticate"] == challenge_with("invalid_request", body["error_description"])
    assert world.upstream() == []


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "", "Bearer  ", "Bearer \xff\xfe", "Bearer\ttoken"])
def test_odd_authorization_values_get_401(world, gateway, value):
    answer = wire.http1(gateway.address, PATH, [("authorization", value)])
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith(f"Bearer {REALM}")
    assert world.upstream() == []


def test_an_oversized_token_is_refused(world, gateway, send):
    answer = send(gateway.address, PATH, [("authorization", "Bearer " + "a" * 17_000)])
    assert answer.status == 401
    assert world.upstream() == []


def test_a_token_in_the_query_or_body_is_no_token(world, holder):
    assert world.get(f"{PATH}?access_token={holder[1]}").status_code == 401
    assert world.upstream() == []


def test_the_request_id_is_envoys_own(world, holder):
    answer = world.get(PATH, holder[1], {"x-request-id": "chosen-by-the-client"})
    (seen,) = headers_seen(world)["x-request-id"]
    assert seen == answer.headers["x-request-id"] != "chosen-by-the-client"
