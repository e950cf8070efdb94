"""How many of 400 active clients still pass after a tenant was withdrawn from all of them, while one other client, whose
own lookup fails, mints all the time. Default periods, real processes; takes three minutes.

Exits 0 if nobody passes after the bound of 70 s (and a few for the counting). `python tests/e2e/withdrawal_bound.py`
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests
from conftest import World  # also puts the stack's folder on the path

import stack  # isort: skip
from replies import REPORT

BAD = "bad"


def config_for_trouble(config):
    # The provider does not know the bad client and answers 404; to this config that is not an answer.
    config["tenants"]["lookup"]["no_grants_status"] = []


def mint_all_the_time(world, per_second, done):
    with requests.Session() as session:
        due = time.monotonic()
        while not done.is_set():
            form = {"grant_type": "client_credentials"}
            session.post(f"{world.url}/oauth2/token", data=form, auth=(BAD, world.secrets[BAD]), timeout=10)
            due += 1 / per_second
            time.sleep(max(0, due - time.monotonic()))


def passing(world, tokens):
    with requests.Session() as session:
        answers = [
            session.get(world.url + REPORT.format("T1001"), headers={"Authorization": f"Bearer {token}"}, timeout=10)
            for token in tokens
        ]
    return sum(answer.status_code == 200 for answer in answers)


def measure(world, threads, per_second, after):
    tokens = [world.token(world.client("T1001", "T2002")) for _ in range(len(world.secrets) - 1)]
    done = threading.Event()
    minters = [
        threading.Thread(target=mint_all_the_time, args=(world, per_second / threads, done)) for _ in range(threads)
    ]
    for minter in minters:
        minter.start()
    print(f"at the start {passing(world, tokens)} of {len(tokens)} pass", flush=True)
    for client in world.secrets:
        if client != BAD:
            world.provider.control("DELETE", f"grants/{client}/T1001")
    withdrawn, left = time.monotonic(), []
    for seconds in after:
        time.sleep(max(0, withdrawn + seconds - time.monotonic()))
        left.append(passing(world, tokens))
        print(f"after {seconds} s {left[-1]} of {len(tokens)} pass", flush=True)
    done.set()
    for minter in minters:
        minter.join()
    return left


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=400)
    parser.add_argument("--mints-per-second", type=int, default=40)
    parser.add_argument("--after", type=int, nargs="*", default=[75, 160])
    arguments = parser.parse_args()
    clients = [f"app-{number:03}" for number in range(arguments.clients)] + [BAD]
    with tempfile.TemporaryDirectory() as work, stack.Children() as children:
        world = World(children, Path(work), config_for_trouble, clients)
        left = measure(world, 8, arguments.mints_per_second, arguments.after)
    sys.exit(1 if any(left) else 0)


if __name__ == "__main__":
    main()
