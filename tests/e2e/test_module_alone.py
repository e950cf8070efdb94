"""The module without a feed, beside a sidecar on the same PostgreSQL: it follows the state by itself."""

import sys
import time

import pytest
from conftest import ROOT
from feeding import FedWorld, each_call_acts_within_2_seconds, status
from replies import REPORT
from test_module import LIBRARY, in_process, start

sys.path.insert(0, str(ROOT / "tests"))

import postgres  # noqa: E402  (found through the line above)

pytestmark = [
    pytest.mark.skipif(not LIBRARY.exists(), reason=f"no {LIBRARY}; `make test` builds it"),
    pytest.mark.skipif(postgres.installation() is None, reason="NOT TESTED WITH POSTGRESQL: run `make tools`"),
]
T1 = REPORT.format("T1")


@pytest.fixture(scope="module")
def database():
    server = postgres.Postgres()
    yield server
    server.close()


@pytest.fixture
def world(database, children, tmp_path):
    database.new_database("state")

    def on_postgres(config):
        config["state"] = {"postgres": {"url": database.url("state")}, "key_file": "secrets/state.key"}

    return FedWorld(children, tmp_path, change_config=on_postgres)


def alone(world):
    return start(world, world.children, in_process(world.work), "alone")


def test_what_calls_take_away_is_refused_without_a_feed(world):
    before, client = world.client("T1"), world.client("T1")
    withdrawn, token = world.token(before), world.token(client)
    world.manage("grants:withdraw", {"client_id": before.id, "tenant": "T1"})
    envoy = alone(world)
    world.wait_for("a first decision", lambda: status(envoy, T1, token) == 200)
    assert status(envoy, T1, withdrawn) == 403
    each_call_acts_within_2_seconds(world, envoy, client, token)


@pytest.mark.parametrize("outage", ["stopped", "hanging"])
def test_nothing_passes_before_the_state_is_known(world, database, outage):
    token = world.token(world.client("T1"))
    with database.away(outage):
        started = time.monotonic()
        envoy = alone(world)
        assert time.monotonic() - started < 10, "Envoy's start waits for one try only"
        assert status(envoy, T1, token) == 503
    world.wait_for("the state", lambda: status(envoy, T1, token) == 200)
