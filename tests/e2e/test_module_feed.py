"""The module fed by the sidecar, in the real Envoy: it decides as ext_authz does, what is taken away stops in it as soon,
and whatever becomes of the feed, Envoy stays up and nothing passes that should not."""

import json
import re
import signal
import threading
import time

import pytest
import requests
import stack
import wire
import yaml
from conftest import bin_dir
from feeding import (COMMIT, HELLO, MAX_AGE, OTHER_HELLO, FalseSidecar, FedWorld, each_call_acts_within_2_seconds, frame,
                     read_feed, status)
from live import Calling
from replies import REPORT
from test_module import LIBRARY, corpus, filter_of, in_process, shown, validated

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"no {LIBRARY}; `make test` builds it")
T1 = REPORT.format("T1")


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    with stack.Children() as children:
        world = FedWorld(children, tmp_path_factory.mktemp("fed"))
        world.within = world.inside()
        yield world


@pytest.fixture
def own_fed(children, tmp_path):
    return FedWorld(children, tmp_path)


FED_ONLY = bin_dir() / "libtenantgate_module_fed.so"


@pytest.mark.skipif(not FED_ONLY.exists(), reason=f"no {FED_ONLY}; `make test` builds it")
def test_a_library_for_a_feed_alone(own_fed):
    def fed_only(config):
        filter_of(config)["dynamic_module_config"]["module"]["local"]["filename"] = str(FED_ONLY)

    envoy = own_fed.inside(change=fed_only)
    client = own_fed.client("T1")
    token = own_fed.token(client)
    assert status(envoy, T1, token) == 200
    assert status(envoy, REPORT.format("T2"), token) == 403
    own_fed.manage("grants:withdraw", {"client_id": client.id, "tenant": "T1"})
    assert own_fed.wait_for("the withdrawal", lambda: status(envoy, T1, token) == 403, 2) < 2

    without_a_feed = in_process(own_fed.work)
    fed_only(without_a_feed)
    done = validated(own_fed, without_a_feed)
    assert done.returncode == 1 and "feed: missing" in done.stderr, (done.returncode, done.stderr)


def test_it_needs_no_key_and_no_secret(fed):
    alone = sorted(path.name for path in (fed.work / "alone").iterdir())
    assert alone == ["tenantgate.yaml"]
    client = fed.client("T1")
    token = fed.token(client)
    assert status(fed.within, T1, token) == 200
    assert status(fed.within, REPORT.format("T2"), token) == 403
    assert status(fed.within, T1) == 401


@pytest.mark.parametrize("send", [wire.http1, wire.http2], ids=["HTTP/1.1", "HTTP/2"])
def test_every_path_of_the_corpus_is_decided_as_by_ext_authz(fed, send):
    bearer = [("authorization", f"Bearer {fed.token(fed.client('T1'))}")]
    for path in corpus():
        outside, within = (shown(send(envoy.address, path, bearer)) for envoy in (fed.envoy, fed.within))
        assert outside == within, path


def test_what_is_withdrawn_by_a_call_is_refused_within_2_seconds(fed):
    client = fed.client("T1")
    token = fed.token(client)
    assert status(fed.within, T1, token) == 200
    each_call_acts_within_2_seconds(fed, fed.within, client, token)


def test_a_client_revoked_in_the_file_is_refused_within_10_seconds(fed):
    client = fed.client("T1")
    token = fed.token(client)
    assert status(fed.within, T1, token) == 200
    fed.change_client(client, status="revoked")
    assert fed.wait_for("the withdrawal", lambda: status(fed.within, T1, token) == 401, 10) < 10


def test_what_the_provider_takes_away_is_refused_within_a_refresh(fed):
    """It is the use told by the module alone that keeps the client looked up."""
    client = fed.client("T1", "T2")
    token = fed.token(client)
    deadline = time.monotonic() + 2 * MAX_AGE
    while time.monotonic() < deadline:
        assert status(fed.within, T1, token) == 200
        time.sleep(0.2)
    fed.provider.withdraw(client.id, "T1")
    assert fed.wait_for("the withdrawal", lambda: status(fed.within, T1, token) == 403, 5) < 5
    assert status(fed.within, REPORT.format("T2"), token) == 200


def test_a_rotated_key_and_other_routes_are_taken_without_a_word_to_envoy(fed):
    stack.tenantgate(bin_dir(), "keys", "generate", "--dir", fed.work / "keys")
    client = fed.client("T1")
    fed.wait_for("the second key", lambda: len(requests.get(f"{fed.url}/oauth2/jwks", timeout=5).json()["keys"]) == 2)
    token = fed.token(client)
    fed.wait_for("the new key", lambda: status(fed.within, T1, token) == 200)

    def add(config):
        config["apis"][0]["routes"] = [*config["apis"][0]["routes"], {"path": "/new/{tenant}", "methods": ["GET"]}]

    assert status(fed.within, "/new/T1", token) == 403
    fed.reconfigure(add)
    fed.wait_for("the route", lambda: status(fed.within, "/new/T1", token) == 200)


def test_the_feed_has_no_plain_tenant_code_and_its_socket_is_not_for_everybody(fed):
    client = fed.client("CANARY-1")
    token = fed.token(client)
    assert status(fed.within, REPORT.format("CANARY-1"), token) == 200
    fed.manage("grants:withdraw", {"client_id": client.id, "tenant": "CANARY-1"})
    read = read_feed(fed.socket)
    assert client.id.encode() in read and b"CANARY" not in read
    assert fed.socket.stat().st_mode & 0o777 == 0o660


def test_nothing_is_in_the_logs(fed):
    for envoy in (fed.within, fed.tenantgate):
        log = envoy.log.read_text()
        assert "CANARY" not in log
        for token in fed.tokens:
            assert token.split(".")[2] not in log


def test_it_answers_503_until_the_first_snapshot(own_fed):
    own_fed.tenantgate.stop()
    within = own_fed.inside(wait=False)
    answer = requests.get(within.url + T1, timeout=5)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"] == "temporarily_unavailable"
    own_fed.restart_sidecar()
    own_fed.wait_for("the feed", lambda: status(within, T1) == 401)
    stack.wait_until("the log", lambda: "the sidecar's feed is in force" in within.log.read_text(), within)


def test_a_sidecar_that_was_killed_vouches_for_max_age_and_its_successor_goes_on(own_fed):
    within = own_fed.inside()
    client = own_fed.client("T1")
    token = own_fed.token(client)
    assert status(within, T1, token) == 200
    own_fed.tenantgate.kill()
    killed = time.monotonic()
    passed = 0
    # Public, so that only the age of the feed decides.
    while (code := status(within, "/status/x")) == 200:
        passed = time.monotonic() - killed
        time.sleep(0.05)
    assert (code, status(within, T1), status(within, T1, token)) == (503, 503, 503)
    assert MAX_AGE - 1 < passed <= MAX_AGE + 0.5
    # What is taken away while nobody feeds is refused from the first answer on.
    own_fed.change_client(client, status="revoked")
    other = own_fed.client("T1")
    own_fed.restart_sidecar()
    seen = set()
    own_fed.wait_for("the feed", lambda: seen.add(status(within, T1, token)) or 401 in seen)
    assert seen <= {503, 401}
    mint = requests.post(f"{own_fed.tenantgate.token_url}/oauth2/token", {"grant_type": "client_credentials"},
                         auth=(other.id, other.secret), timeout=5)
    own_fed.wait_for("a new token", lambda: status(within, T1, mint.json()["access_token"]) == 200)


def test_a_sidecar_that_lies_still_vouches_for_max_age(own_fed):
    within = own_fed.inside()
    token = own_fed.token(own_fed.client("T1"))
    assert status(within, T1, token) == 200
    own_fed.tenantgate.signal(signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        stack.wait_until("the end of its word", lambda: status(within, T1, token) == 503, within, MAX_AGE + 2)
        assert time.monotonic() - stopped > MAX_AGE - 1
        line = "has said nothing for too long"
        stack.wait_until("the log", lambda: line in within.log.read_text(), within)
    finally:
        own_fed.tenantgate.signal(signal.SIGCONT)
    # The token is older than its own `max_age` by now: it is the lookup that vouches again.
    own_fed.wait_for("the feed", lambda: status(within, T1, token) == 200)


CORRUPT = {
    "garbage": bytes(range(256)) * 64,
    "a length of 4 GiB": b"\xff\xff\xff\xff" + frame(HELLO),
    "a frame that is cut off": frame(HELLO) + b"\x00\x00\x10\x00\x12",
    "nothing and hanging up": b"hang up",
    "an empty frame": b"\x00\x00\x00\x00",
    "a commit without a beginning": frame(HELLO) + frame(COMMIT),
    "rules that are none": frame(HELLO) + frame(b"\x12\x00") + frame(b"\x1a\x00") + frame(COMMIT),
    "clients that are none": frame(HELLO) + frame(b"\x22\x04\x0a\x02\x0a\x00") + frame(COMMIT),
    "a second hello": frame(HELLO) * 2,
    "no hello": frame(COMMIT) * 100,
    "lengths within that lie": frame(HELLO) + frame(b"\x12\xff\xff\xff\x7f"),
    "nothing at all": b"",
}


@pytest.mark.parametrize("say", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_feed_lets_nothing_pass_and_envoy_lives(fed, say, tmp_path):
    at = tmp_path / "f.sock"
    with FalseSidecar(at, say) as false:
        within = fed.inside("corrupt", wait=False, feed=f"unix:{at}")
        stack.wait_until("its connection", lambda: false.connections, within)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert status(within, "/status/x") == 503
            time.sleep(0.1)
        within.check_alive()
    within.stop()


def test_corruption_in_the_middle_leaves_what_was_good_for_its_time(own_fed, tmp_path):
    """A false sidecar takes the socket over: what was told before ends by its age, and the true one is taken again."""
    within = own_fed.inside()
    token = own_fed.token(own_fed.client("T1"))
    assert status(within, T1, token) == 200
    own_fed.tenantgate.kill()
    with FalseSidecar(own_fed.socket, frame(HELLO) + frame(b"\x12\x00") + frame(b"\x1a\x00") + frame(COMMIT)):
        stack.wait_until("the end of its word", lambda: status(within, T1, token) == 503, within, MAX_AGE + 2)
        assert "no feed from the sidecar" in within.log.read_text()
    own_fed.restart_sidecar()
    own_fed.wait_for("the true one", lambda: status(within, T1) == 401)


def test_a_sidecar_of_another_version_is_named_and_not_believed(fed, tmp_path):
    at = tmp_path / "f.sock"
    with FalseSidecar(at, frame(OTHER_HELLO) + frame(COMMIT)) as false:
        within = fed.inside("version", wait=False, feed=f"unix:{at}")
        stack.wait_until("its connections", lambda: len(false.connections) > 2, within)
        assert status(within, "/status/x") == 503
        line = "speaks version 2 of the feed (release ), this one version 1"
        stack.wait_until("the log", lambda: line in within.log.read_text(), within)
        assert within.log.read_text().count(line) == 1, "told once, not at every try"
    within.stop()


def test_a_module_of_another_version_is_named_and_not_fed(fed):
    assert b"https" not in read_feed(fed.socket, OTHER_HELLO)
    fed.wait_for("the log", lambda: fed.log_lines("speaks version 2 of the feed", "a module is not fed any more"))
    for nonsense in (b"\xff" * 64, b"\x0a\x00" * 3, b""):
        read_feed(fed.socket, nonsense)
    assert status(fed.within, T1) == 401


@pytest.mark.parametrize("text, named", [
    ("", "the filter's config"),
    ("[]", "the filter's config"),
    ('{"config": 1}', "config"),
    ('{"config": "/nowhere", "feed": "unix:/x"}', "/nowhere"),
    ('{"config": "CONFIG", "feed": "tcp:1"}', "feed"),
    ('{"config": "CONFIG", "feed": "unix:relative"}', "feed"),
    ('{"config": "CONFIG", "feeds": "unix:/x"}', "feeds"),
    ('{"config": "/dev/null", "feed": "unix:/x"}', "/dev/null"),
    ('{"config": "' + "a" * 100_000 + '", "feed": "unix:/x"}', "cannot be read"),
    ("{" * 10_000, "the filter's config"),
    ('{"config": "CONFIG\\u0000", "feed": "unix:/x"}', "cannot be read"),
], ids=str)
def test_a_hostile_filter_config_is_refused_at_the_start(fed, text, named):
    config = in_process(fed.work)
    value = text.replace("CONFIG", str(fed.work / "tenantgate.yaml"))
    filter_of(config)["filter_config"]["value"] = value
    done = validated(fed, config)
    assert done.returncode == 1 and named in done.stderr, (done.returncode, done.stderr)


def test_listener_updates_and_a_drain_under_load_let_nothing_pass(own_fed):
    """The listener comes from a file that changes: other texts of the filter, broken ones between them."""
    work = own_fed.work
    token = own_fed.token(own_fed.client("T1"))

    def by_file(config):
        (listener,) = config["static_resources"].pop("listeners")
        listener["address"]["socket_address"]["port_value"] = 0
        own_fed.listener = listener
        config["node"] = {"id": "one", "cluster": "one"}
        config["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(work / "lds.yaml")}}}
        config["static_resources"]["listeners"] = []

    def publish(**settings):
        listener = json.loads(json.dumps(own_fed.listener))
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        module = next(entry for entry in manager["http_filters"] if entry["name"] == "tenantgate")["typed_config"]
        text = {**json.loads(module["filter_config"]["value"]), **settings}
        module["filter_config"]["value"] = json.dumps(text)
        kind = "type.googleapis.com/envoy.config.listener.v3.Listener"
        resources = {"resources": [{"@type": kind, **listener}]}
        own_fed.write("lds.yaml", yaml.safe_dump(resources))

    def begin(config):
        by_file(config)
        publish()

    within = own_fed.inside(change=begin)
    host, port = within.address.rsplit(":", 1)
    own_fed.listener["address"]["socket_address"]["port_value"] = int(port)
    calls = {
        "good": lambda: status(within, T1, token),
        "foreign": lambda: status(within, REPORT.format("T2"), token),
        "none": lambda: status(within, T1),
    }
    ours = [Calling(call, pause=0.005) for call in calls.values()]
    for calling in ours:
        calling.__enter__()
    updates = lambda name: int(requests.get(
        f"{within.admin_url}/stats?filter=^listener_manager.lds.{name}$", timeout=5).text.split(": ")[1])
    try:
        for number in range(6):
            done, refused = updates("update_success"), updates("update_rejected")
            publish(metadata=number % 2 == 0)
            stack.wait_until("the update", lambda: updates("update_success") > done, within)
            publish(nonsense=number)
            stack.wait_until("the refusal", lambda: updates("update_rejected") > refused, within)
        requests.post(f"{within.admin_url}/drain_listeners?graceful&skip_exit", timeout=5)
        time.sleep(1)
    finally:
        for calling in ours:
            calling.__exit__()
    within.check_alive()
    good, foreign, none = (calling.results for calling in ours)
    wrong = lambda results, *right: {
        code for code in results if code not in right and "Connection" not in str(code)
    }
    assert not wrong(good, 200) and good[200] > 30, good
    assert not wrong(foreign, 403) and foreign[403] > 30, foreign
    assert not wrong(none, 401) and none[401] > 30, none


def test_many_envoys_and_threads_share_one_feed(own_fed):
    """Two Envoys, eight callers; a withdrawal reaches both within its bound under load."""
    envoys = [own_fed.inside("one"), own_fed.inside("two")]
    client = own_fed.client("T1")
    token = own_fed.token(client)
    stop = threading.Event()
    seen = {envoy: [] for envoy in envoys}

    def call(envoy):
        with requests.Session() as session:
            while not stop.is_set():
                answer = session.get(envoy.url + T1, headers={"Authorization": f"Bearer {token}"}, timeout=5)
                seen[envoy].append((time.monotonic(), answer.status_code))

    threads = [threading.Thread(target=call, args=(envoy,)) for envoy in envoys * 4]
    for thread in threads:
        thread.start()
    time.sleep(1)
    own_fed.manage("grants:withdraw", {"client_id": client.id, "tenant": "T1"})
    withdrawn = time.monotonic()
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join()
    for envoy in envoys:
        assert {code for _, code in seen[envoy]} == {200, 403}
        assert max(at for at, code in seen[envoy] if code == 200) - withdrawn < 2
    assert re.search(r"a module is being fed", own_fed.tenantgate.log.read_text())
