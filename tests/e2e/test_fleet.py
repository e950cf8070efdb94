"""Replicas on one PostgreSQL: what its outages do to checks, mints and starts. `make tools` brings the server."""

import sys
import time
from pathlib import Path

import pytest
import requests
import stack
import yaml
from conftest import World, bin_dir
from live import Calling

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import postgres  # noqa: E402  (found through the line above)

pytestmark = pytest.mark.skipif(postgres.installation() is None, reason="NOT TESTED WITH POSTGRESQL: run `make tools`")


@pytest.fixture(scope="module")
def database():
    server = postgres.Postgres()
    yield server
    server.close()


@pytest.fixture
def fleet(database, children, tmp_path):
    database.new_database("state")

    def with_state(config):
        stack.tenantgate(bin_dir(), "keys", "digest", "--out", tmp_path / "state.key")
        config["state"] = {
            "postgres": {"url": database.url("state")},
            "key_file": "state.key",
            "snapshot_file": "state.snapshot",
        }

    yield World(children, tmp_path, change_config=with_state)
    if database.process.poll() is not None:
        database.start()


def readyz(world):
    answer = requests.get(f"{world.tenantgate.admin_url}/readyz?verbose", timeout=5)
    return answer.status_code, next(line for line in answer.text.splitlines() if line.startswith("state:"))


def troubled(world):
    status, line = readyz(world)
    return None if line.startswith("state: ok") else (status, line)


def becomes(probe, seconds=20):
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def metric(world, name):
    text = requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).text
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


@pytest.mark.parametrize("outage", ["stopped", "hanging"])
def test_no_check_and_no_mint_fails_for_a_database_that_is_away(fleet, database, outage):
    client = fleet.client("T1")
    token = fleet.token(client)
    check = lambda: fleet.get("/api/T1/", token).status_code
    mint = lambda: fleet.mint(client).status_code
    assert readyz(fleet)[1].startswith("state: ok")
    with Calling(check) as checks, Calling(mint) as mints:
        time.sleep(0.5)
        with database.away(outage):
            status, line = becomes(lambda: troubled(fleet))
            assert (status, "cannot be used" in line) == (200, True), line
            becomes(lambda: metric(fleet, "tenantgate_state_age_seconds") > 3)
            assert metric(fleet, "tenantgate_state_ok") == 0
        becomes(lambda: readyz(fleet)[1].startswith("state: ok"))
        becomes(lambda: metric(fleet, "tenantgate_state_age_seconds") < 2)
        time.sleep(0.5)
    assert set(checks.results) == {200}, checks.results
    assert set(mints.results) == {200}, mints.results
    assert checks.results[200] > 50


def test_a_start_without_the_database_needs_the_local_copy(fleet, database, children, tmp_path):
    client = fleet.client("T1")
    token = fleet.token(client)
    copy = tmp_path / "state.snapshot"
    becomes(copy.exists)
    assert copy.stat().st_mode & 0o777 == 0o600
    database.stop()
    fleet.tenantgate.stop()

    def restarted():
        # Not `children.start`: it waits for readiness.
        process = stack.Tenantgate(tmp_path, bin_dir(), "info")
        children.callback(process.stop)
        becomes(process.ports_file.exists)
        fleet.tenantgate, process.admin_url = process, "http://" + yaml.safe_load(process.ports_file.read_text())["admin"]
        return process

    with_copy = restarted()
    status, line = becomes(lambda: readyz(fleet))
    assert (status, "from the local copy" in line) == (200, True), line
    with_copy.stop()

    copy.unlink()
    without = restarted()
    assert becomes(lambda: readyz(fleet))[0] == 503
    database.start()
    becomes(lambda: readyz(fleet)[0] == 200)
    without.stop()
    assert token


def test_migrate_and_status(fleet, database, tmp_path):
    tool = lambda *argv: stack.tenantgate(bin_dir(), "state", *argv, "--config", tmp_path / "tenantgate.yaml")
    assert "nothing to do" in tool("migrate")
    status = tool("status")
    assert "schema: 1, this build wants 1" in status and "withdrawals: 0" in status
