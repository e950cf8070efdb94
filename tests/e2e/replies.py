"""The forms of an answer that the contract promises, as assertions."""

REPORT = "/oda/apis/get/reports/assets/tenant/{}/devicedistribution"
REALM = 'realm="http://127.0.0.1:10000"'  # the audience in the demo's config


def assert_denied(answer, status, error, challenge=None):
    """A refusal with exactly this status, error code and WWW-Authenticate header."""
    assert answer.status_code == status, answer.text[:300]
    body = answer.json()
    assert set(body) == {"error", "error_description"}
    assert body["error"] == error
    assert body["error_description"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.get("www-authenticate") == challenge
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0
    else:
        assert "retry-after" not in answer.headers


def challenge_with(error, description, *, scope=None):
    """The Bearer challenge of RFC 6750 that names an error."""
    challenge = f'Bearer {REALM}, error="{error}", error_description="{description}"'
    return challenge if scope is None else f'{challenge}, scope="{scope}"'
