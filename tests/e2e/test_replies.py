"""Every row of the contract's table of replies, through Envoy."""

import base64
import json

import pytest
import requests
from replies import REALM, REPORT, assert_denied, challenge_with


@pytest.fixture
def holder(world):
    """A client that T1001 has authorised, with a token."""
    client = world.client("T1001")
    return client, world.token(client)


def test_an_authorised_tenants_report_is_served(world, holder):
    client, token = holder
    answer = world.get(REPORT.format("T1001"), token)
    assert answer.status_code == 200
    (seen,) = world.upstream()
    assert seen["path"] == REPORT.format("T1001")
    assert seen["headers"]["x-tenantgate-client-id"] == [client.id]
    assert "authorization" not in seen["headers"]


def test_no_token(world):
    assert_denied(world.get(REPORT.format("T1001")), 401, "unauthorized", f"Bearer {REALM}")


@pytest.mark.parametrize("kind", ["garbage", "two parts", "tampered claims", "tampered signature", "alg none"])
def test_bad_token(world, holder, kind):
    header, claims, signature = holder[1].split(".")
    swapped = ("A" if signature[0] != "A" else "B") + signature[1:]
    wider = json.loads(base64.urlsafe_b64decode(claims + "=="))
    wider["client_id"] = "acme-analytics"
    token = {
        "garbage": "garbage",
        "two parts": f"{header}.{claims}",
        "tampered claims": f"{header}.{encode(wider)}.{signature}",
        "tampered signature": f"{header}.{claims}.{swapped}",
        "alg none": f"{encode({'alg': 'none', 'typ': 'at+jwt'})}.{claims}.",
    }[kind]
    answer = world.get(REPORT.format("T1001"), token)
    assert_denied(answer, 401, "invalid_token", challenge_with("invalid_token", "the token is not valid"))
    assert world.upstream() == []


def encode(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_another_scheme_is_no_token(world, holder):
    answer = world.get(REPORT.format("T1001"), headers={"Authorization": f"Basic {holder[1]}"})
    assert_denied(answer, 401, "unauthorized", f"Bearer {REALM}")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_case_insensitive(world, holder, scheme):
    answer = world.get(REPORT.format("T1001"), headers={"Authorization": f"{scheme} {holder[1]}"})
    assert answer.status_code == 200


def test_scope_missing(world, holder):
    token = world.token(holder[0], scope="reports.read")
    answer = world.get("/settings/T1001/theme", token)
    told = "the token lacks a scope that this resource requires"
    challenge = challenge_with("insufficient_scope", told, scope="settings.write")
    assert_denied(answer, 403, "insufficient_scope", challenge)
    assert world.get("/settings/T1001/theme", holder[1]).status_code == 200


def test_foreign_unknown_and_routeless_are_the_same_bytes(world, holder):
    world.client("T2002")  # so that T2002 exists
    world.upstream()
    report = REPORT.format("T1001")
    answers = {
        "foreign": world.get(REPORT.format("T2002"), holder[1]),
        "unknown": world.get(REPORT.format("T9999"), holder[1]),
        "case": world.get(REPORT.format("t1001"), holder[1]),
        "no route": world.get("/nowhere", holder[1]),
        "beyond the route": world.get(f"{report}/more", holder[1]),
    }
    for answer in answers.values():
        assert_denied(answer, 403, "access_denied")
    told = {name: told_to_the_client(answer) for name, answer in answers.items()}
    assert told["foreign"] == told["unknown"] == told["case"] == told["no route"] == told["beyond the route"]
    assert world.upstream() == []


def told_to_the_client(answer):
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    return answer.status_code, headers, answer.content


def test_a_method_the_route_does_not_have(world, holder):
    url = world.url + REPORT.format("T1001")
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = requests.request(method, url, headers={"Authorization": f"Bearer {holder[1]}"}, timeout=10)
        assert answer.status_code == 403, method
    assert world.upstream() == []


def test_literals_ignore_case_only_where_the_route_says_so(world, holder):
    assert world.get(REPORT.format("T1001").replace("reports", "Reports"), holder[1]).status_code == 200
    assert_denied(world.get("/Api/T1001/orders", holder[1]), 403, "access_denied")


def test_a_public_route_needs_no_token(world):
    assert world.get("/status/live").status_code == 200


def test_mint(world, holder):
    answer = world.mint(holder[0])
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 300
    assert body["scope"].split() == ["reports.read", "settings.write"]


def test_mint_for_a_tenant_that_has_not_authorised(world, holder):
    client, _ = holder
    for form in ({"tenant": "T2002"}, {"tenant": ["T1001", "T2002"]}, {"resource": "urn:tenantgate:tenant:T2002"}):
        answer = world.mint(client, **form)
        assert_denied(answer, 400, "invalid_target")


def test_mint_without_any_authorisation(world):
    assert_denied(world.mint(world.client()), 400, "invalid_target")


UNAVAILABLE = ["500", "503", "429", "401", "403", "redirect", "garbage", "wrong_shape", "missing_array", "huge"]
UNAVAILABLE += ["closed", "truncated", "slow", "slow_body"]


@pytest.mark.parametrize("fault", UNAVAILABLE)
def test_mint_while_the_lookup_is_unavailable(world, fault):
    client = world.client("T1001")
    world.provider.control("PUT", "faults", {"lookup": fault})
    answer = world.mint(client)
    assert_denied(answer, 503, "temporarily_unavailable")


def test_mint_when_the_lookup_says_that_there_are_none(world):
    client = world.client("T1001")
    world.provider.control("PUT", "faults", {"lookup": "empty"})
    assert_denied(world.mint(client), 400, "invalid_target")


def test_bad_codes_in_the_lookups_answer_are_dropped_and_the_others_stand(world):
    client = world.client("T1001")
    world.provider.control("PUT", "faults", {"lookup": "bad_code"})
    assert world.get(REPORT.format("T1001"), world.token(client)).status_code == 200
