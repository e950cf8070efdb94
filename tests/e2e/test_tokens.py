"""The token endpoint as integrators meet it: with real OAuth client libraries, and with wrong requests."""

import base64
import ipaddress
import json

import pytest
import requests
import stack
import yaml
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt
from joserfc.jwk import KeySet
from oauthlib.oauth2 import BackendApplicationClient
from replies import REPORT, assert_denied
from requests_oauthlib import OAuth2Session


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_a_token_and_calls_the_api(world, method):
    client = world.client("T1001")
    session = AuthlibSession(client.id, client.secret, scope="reports.read", token_endpoint_auth_method=method)
    token = session.fetch_token(f"{world.url}/oauth2/token", grant_type="client_credentials")
    world.tokens.add(token["access_token"])
    assert session.get(world.url + REPORT.format("T1001")).status_code == 200
    assert session.get(world.url + REPORT.format("T2002")).status_code == 403


def test_requests_oauthlib_gets_a_token_and_calls_the_api(world, monkeypatch):
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # plain http, on loopback
    client = world.client("T1001")
    session = OAuth2Session(client=BackendApplicationClient(client_id=client.id, scope=["reports.read"]))
    token = session.fetch_token(f"{world.url}/oauth2/token", auth=(client.id, client.secret))
    world.tokens.add(token["access_token"])
    assert session.get(world.url + REPORT.format("T1001")).status_code == 200
    assert session.get(world.url + REPORT.format("T2002")).status_code == 403


def test_a_secret_with_reserved_characters_is_form_decoded_in_basic(world):
    client = world.client("T1001")
    encoded = "".join(f"%{byte:02x}" for byte in client.secret.encode())
    answer = requests.post(
        f"{world.url}/oauth2/token",
        data={"grant_type": "client_credentials"},
        auth=(client.id, encoded),
        timeout=10,
    )
    assert answer.status_code == 200, answer.text


def test_the_token_verifies_with_the_published_keys(world):
    client = world.client("T1001")
    token = world.token(client)
    keys = KeySet.import_key_set(requests.get(f"{world.url}/oauth2/jwks", timeout=10).json())
    verified = jwt.decode(token, keys)
    assert (verified.header["alg"], verified.header["typ"]) == ("ES256", "at+jwt")
    claims = verified.claims
    assert claims["iss"] == world.config["issuer"]["url"]
    assert claims["aud"] == world.config["issuer"]["audience"]
    assert claims["sub"] == claims["client_id"] == client.id
    assert claims["exp"] - claims["iat"] == 300
    assert claims["jti"] != claims_of(world.token(client))["jti"]


def test_the_token_does_not_show_tenant_codes(world):
    token = world.token(world.client("T1001", "TENANT-IN-PLAIN"))
    assert len(claims_of(token)["tenant_list"]) > 0
    assert "T1001" not in json.dumps(claims_of(token))
    assert "TENANT-IN-PLAIN" not in json.dumps(claims_of(token))


def test_published_keys_have_no_private_part(world):
    answer = requests.get(f"{world.url}/oauth2/jwks", timeout=10)
    assert answer.status_code == 200
    (key,) = answer.json()["keys"]
    assert key["kty"] == "EC" and key["crv"] == "P-256" and key["alg"] == "ES256" and key["use"] == "sig"
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_metadata(world):
    answer = requests.get(f"{world.url}/.well-known/oauth-authorization-server", timeout=10)
    assert answer.status_code == 200
    issuer = world.config["issuer"]["url"]
    metadata = answer.json()
    assert metadata["issuer"] == issuer
    assert metadata["token_endpoint"] == f"{issuer}/oauth2/token"
    assert metadata["jwks_uri"] == f"{issuer}/oauth2/jwks"
    assert metadata["grant_types_supported"] == ["client_credentials"]
    assert set(metadata["token_endpoint_auth_methods_supported"]) == {"client_secret_basic", "client_secret_post"}


def test_metadata_passes_the_validation_of_a_client_library(world, monkeypatch):
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # plain http, on loopback
    answer = requests.get(f"{world.url}/.well-known/oauth-authorization-server", timeout=10)
    AuthorizationServerMetadata(answer.json()).validate()


def test_the_log_says_why_a_token_was_refused(own_world):
    def behind_one_proxy(config):
        config["limits"]["trusted_proxies"] = 1

    world = own_world(change_config=behind_one_proxy, clients=["known"])
    client = world.client("T1")

    def refused(client_id, secret):
        form = {"grant_type": "client_credentials"}
        return requests.post(f"{world.url}/oauth2/token", data=form, auth=(client_id, secret), timeout=10)

    def lines_of(answer):
        lines = [json.loads(line) for line in world.tenantgate.log.read_text().splitlines() if "token refused" in line]
        flat = [{**line, **line.get("fields", {})} for line in lines]
        return [line for line in flat if line["request_id"] == answer.headers["x-request-id"]]

    def line_of(answer):
        # The log is written behind the answers.
        stack.wait_until("the line", lambda: lines_of(answer), world.tenantgate)
        (line,) = lines_of(answer)
        assert line["reason"] == answer.json()["error"]
        # As Envoy saw the caller: on loopback it says the machine's own address.
        assert ipaddress.ip_address(line["source"])
        return line

    line = line_of(refused(client.id, "wrong"))
    assert (line["client"], line["cause"]) == (client.id, "secret_wrong")
    line = line_of(refused("nobody-knows", "wrong"))
    assert "client" not in line and line["cause"] == "unknown"
    assert "nobody-knows" not in world.tenantgate.log.read_text()
    line = line_of(requests.get(f"{world.url}/oauth2/token", timeout=10))
    assert line["cause"] == "request"
    registry = yaml.safe_load((world.work / "clients.yaml").read_text())
    registry["clients"][0]["status"] = "revoked"
    (world.work / "clients.yaml").write_text(yaml.safe_dump(registry))
    stack.wait_until("the refusal", lambda: refused(client.id, client.secret).status_code == 400, world.tenantgate)
    line = line_of(refused(client.id, client.secret))
    assert (line["client"], line["cause"]) == (client.id, "app_revoked")


NARROWINGS = {
    "tenant": {"tenant": "T1"},
    "resource": {"resource": "urn:tenantgate:tenant:T1"},
    "audience beside it": {"tenant": "T1", "resource": "http://127.0.0.1:10000"},
}


@pytest.mark.parametrize("form", NARROWINGS.values(), ids=NARROWINGS.keys())
def test_a_token_can_be_narrowed_to_tenants(world, form):
    client = world.client("T1", "T2", "T3")
    token = world.token(client, **form)
    assert [world.get(f"/api/{tenant}/x", token).status_code for tenant in ("T1", "T2", "T3")] == [200, 403, 403]


@pytest.mark.parametrize("form", [{"tenant": ["T1", "T3"]}, {"tenant": "T1", "resource": "urn:tenantgate:tenant:T3"}])
def test_several_tenants_can_be_named(world, form):
    token = world.token(world.client("T1", "T2", "T3"), **form)
    assert [world.get(f"/api/{tenant}/x", token).status_code for tenant in ("T1", "T2", "T3")] == [200, 403, 200]


def test_without_narrowing_a_token_carries_all_tenants(world):
    client = world.client("T1", "T2", "T3")
    for form in ({}, {"resource": world.config["issuer"]["audience"]}):
        token = world.token(client, **form)
        assert [world.get(f"/api/{tenant}/x", token).status_code for tenant in ("T1", "T2", "T3")] == [200, 200, 200]


def test_a_foreign_resource_is_refused(world):
    assert_denied(world.mint(world.client("T1"), resource="https://elsewhere.example"), 400, "invalid_target")


def test_scope_narrowing(world):
    client = world.client("T1")
    answer = world.mint(client, scope="settings.write")
    assert answer.json()["scope"] == "settings.write"
    assert world.get("/settings/T1/theme", answer.json()["access_token"]).status_code == 200
    assert_denied(world.mint(client, scope="settings.write admin"), 400, "invalid_scope")


WRONG_REQUESTS = {
    "no grant type": ({}, "invalid_request"),
    "another grant type": ({"grant_type": "password"}, "unsupported_grant_type"),
    "a repeated parameter": ({"grant_type": ["client_credentials"] * 2}, "invalid_request"),
    "a repeated scope": ({"grant_type": "client_credentials", "scope": ["reports.read"] * 2}, "invalid_request"),
}


@pytest.mark.parametrize(("form", "error"), WRONG_REQUESTS.values(), ids=WRONG_REQUESTS.keys())
def test_wrong_token_requests(world, form, error):
    client = world.client("T1")
    answer = requests.post(f"{world.url}/oauth2/token", data=form, auth=(client.id, client.secret), timeout=10)
    assert_denied(answer, 400, error)


def test_unknown_client_and_wrong_secret_are_the_same_bytes(world):
    client = world.client("T1")
    form = {"grant_type": "client_credentials"}
    answers = [
        requests.post(f"{world.url}/oauth2/token", data=form, auth=credentials, timeout=10)
        for credentials in ((client.id, "wrong"), ("nobody", "wrong"), ("nobody", client.secret))
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.json()["error"] == "invalid_client"
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["www-authenticate"] for answer in answers}) == 1


def test_credentials_in_the_query_do_not_count(world):
    client = world.client("T1")
    query = {"client_id": client.id, "client_secret": client.secret, "grant_type": "client_credentials"}
    assert requests.post(f"{world.url}/oauth2/token", params=query, timeout=10).status_code in (400, 401)


def test_two_ways_of_authenticating_at_once_are_refused(world):
    client = world.client("T1")
    form = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret}
    answer = requests.post(f"{world.url}/oauth2/token", data=form, auth=(client.id, client.secret), timeout=10)
    assert_denied(answer, 400, "invalid_request")


def test_only_post_and_only_forms(world):
    client = world.client("T1")
    url, auth = f"{world.url}/oauth2/token", (client.id, client.secret)
    assert requests.get(url, auth=auth, timeout=10).status_code == 405
    assert_denied(requests.post(url, json={"grant_type": "client_credentials"}, auth=auth, timeout=10), 400, "invalid_request")


def test_envoy_bounds_the_body_of_a_token_request(world):
    answer = requests.post(f"{world.url}/oauth2/token", data=b"a" * 100_000, timeout=10)
    assert answer.status_code == 413
