"""The module over the feed for some minutes: how soon what is taken away stops, and whether Envoy's memory stays flat while
clients, tokens, withdrawals and sidecars come and go under load.

`TENANTGATE_BIN_DIR=target/debug .tools/venv/bin/python tests/e2e/module_churn.py --minutes 5`; exits 0 if every bound holds.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import requests
import yaml
from conftest import Client, entry  # also puts the stack's folder on the path

import stack  # isort: skip
from feeding import FedWorld, status
from replies import REPORT

T1 = REPORT.format("T1")


def resident_mib(process):
    text = Path(f"/proc/{process.child.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def bound(world, envoy, token, refused, act, limit):
    """Seconds from the act until the module refuses."""
    assert status(envoy, T1, token) == 200
    act()
    started = time.monotonic()
    while status(envoy, T1, token) != refused:
        assert time.monotonic() - started < limit, "not within its bound"
        time.sleep(0.005)
    return time.monotonic() - started


def measure_withdrawals(world, envoys, times):
    took = {}
    for edge, envoy in envoys.items():
        for what, refused, limit in (("a call", 403, 2), ("the file", 401, 10), ("the lookup", 403, 10)):
            for _ in range(times):
                client = world.client("T1")
                token = world.token(client)
                act = {
                    "a call": lambda: world.manage("grants:withdraw", {"client_id": client.id, "tenant": "T1"}),
                    "the file": lambda: world.change_client(client, status="revoked"),
                    "the lookup": lambda: world.provider.withdraw(client.id, "T1"),
                }[what]
                took.setdefault((what, edge), []).append(bound(world, envoy, token, refused, act, limit))
    for (what, edge), seconds in took.items():
        print(f"withdrawn by {what}, {edge}: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, "
              f"{len(seconds)} times", flush=True)


def churn(world, envoy, minutes):
    """Clients that mint, call, are withdrawn and go; a registry that changes; a sidecar that is killed twice a minute."""
    results, stop = Counter(), threading.Event()
    held = [world.token(world.client("T1")) for _ in range(20)]

    def call(number):
        with requests.Session() as session:
            while not stop.is_set():
                token = held[number % len(held)]
                for path in (T1, REPORT.format(f"T{number}"), "/status/x", f"/api/T1/{number}"):
                    answer = session.get(envoy.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=5)
                    results[answer.status_code] += 1
                    if path == REPORT.format(f"T{number}") and number > 1 and answer.status_code == 200:
                        results["passed, and should not"] += 1
                number += len(held)

    def mint():
        number = 0
        while not stop.is_set():
            number += 1
            try:
                client = world.client("T1")
            except StopIteration:
                world._unused = iter([Client(*pair) for pair in world.secrets.items()])
                continue
            answer = requests.post(f"{world.tenantgate.token_url}/oauth2/token", {"grant_type": "client_credentials"},
                                   auth=(client.id, client.secret), timeout=10)
            if answer.ok:
                held[number % len(held)] = answer.json()["access_token"]
            if number % 5 == 0:
                world.manage("grants:withdraw", {"client_id": client.id, "tenant": "T9"})
            time.sleep(0.05)

    callers = [threading.Thread(target=call, args=(n + 2,), daemon=True) for n in range(4)]
    for thread in callers:
        thread.start()
    memory, ends, number = [], time.monotonic() + 60 * minutes, 0
    minter = None
    while time.monotonic() < ends:
        if minter is None or not minter.is_alive():
            minter = threading.Thread(target=quietly, args=(mint,), daemon=True)
            minter.start()
        number += 1
        registry = world.registry()
        registry["clients"] = [e for e in registry["clients"] if not e["id"].startswith("extra-")]
        registry["clients"] += [entry(f"extra-{number}-{n}", f"secret {number} {n}") for n in range(500)]
        world.write("clients.yaml", yaml.safe_dump(registry, default_flow_style=True))
        if number % 6 == 0:
            world.tenantgate.kill()
            world.restart_sidecar()
        time.sleep(5)
        memory.append(resident_mib(envoy))
    stop.set()
    for thread in callers:
        thread.join()
    envoy.check_alive()
    return memory, results


def quietly(work):
    """Ends where the sidecar is gone; it is begun again."""
    try:
        work()
    except (requests.RequestException, AssertionError):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--times", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, stack.Children() as children:
        world = FedWorld(children, Path(work))
        envoy = world.inside()
        measure_withdrawals(world, {"through the module": envoy, "through ext_authz": world.envoy}, arguments.times)
        memory, results = churn(world, envoy, arguments.minutes)
        quarter = max(1, len(memory) // 4)
        second, last = (statistics.median(part) for part in (memory[quarter:2 * quarter], memory[-quarter:]))
        print(f"{arguments.minutes:g} minutes of churn: {dict(results)}")
        print(f"Envoy's memory: {second:.1f} MiB in the second quarter, {last:.1f} MiB in the last")
    sys.exit(1 if results["passed, and should not"] or last > second * 1.1 else 0)


if __name__ == "__main__":
    main()
