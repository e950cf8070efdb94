"""A stack whose files change while it runs, and what can be asked of it meanwhile."""

import contextlib
import copy
import itertools
import os
import re
import threading
import time
from collections import Counter

import requests
import stack
import yaml
from conftest import World, check_secrecy

NO_FAULTS = {"lookup": None, "token": None}


class LiveWorld(World):
    def __init__(self, children, work, **options):
        super().__init__(children, work, **options)
        self.started_with = copy.deepcopy(self.config)
        self._numbers = itertools.count(1)
        self.canaries = {stack.LOOKUP_SECRET}  # what no log may hold

    def metric(self, sample):
        """`None` where there is no such sample (yet)."""
        text = requests.get(f"{self.tenantgate.admin_url}/metrics", timeout=5).text
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def log_lines(self, *words):
        """tenantgate's log lines that hold all these words."""
        lines = self.tenantgate.log.read_text().splitlines()
        return [line for line in lines if all(word in line for word in words)]

    def faults(self, **faults):
        self.provider.control("PUT", "faults", {**NO_FAULTS, **faults})

    def counters(self):
        return self.provider.control("GET", "state")

    def lookups_of(self, client):
        return self.counters()["lookups"]["by_client"].get(client.id, 0)

    def secret_file(self, name, value):
        """A file of the config, relative to it, with a secret that no log may hold."""
        self.canaries.add(value)
        stack.write_secret(self.work / "secrets" / name, value)
        return f"secrets/{name}"

    def write(self, name, text):
        """In one step: half a file would be refused."""
        new = self.work / f".new-{name}"
        new.write_text(text)
        os.replace(new, self.work / name)

    def reconfigure(self, change=lambda config: None):
        """The config that the stack started with, changed; returns once it holds."""
        config = copy.deepcopy(self.started_with)
        change(config)
        # Reloads may follow each other for one change, so that counting them does not tell which one this is.
        name = config["apis"][0]["name"] = f"api-{next(self._numbers)}"
        self.write("tenantgate.yaml", yaml.safe_dump(config))
        sample = f'tenantgate_decisions_total{{api="{name}",reason="allowed"}}'
        self.wait_for("a reload", lambda: self.metric(sample) is not None)

    def registry(self):
        return yaml.safe_load((self.work / "clients.yaml").read_text())

    def change_client(self, client, **fields):
        """Without waiting for the reload."""
        registry = self.registry()
        (entry,) = [entry for entry in registry["clients"] if entry["id"] == client.id]
        entry.update(fields)
        self.write("clients.yaml", yaml.safe_dump(registry))

    def wait_for(self, what, probe, seconds=20):
        """How long it took."""
        started = time.monotonic()
        stack.wait_until(what, probe, self.tenantgate, seconds)
        return time.monotonic() - started


@contextlib.contextmanager
def live_world(work, **options):
    with stack.Children() as children:
        world = LiveWorld(children, work, **options)
        yield world
        check_secrecy(world)
        logs = world.logs()
        for canary in world.canaries:
            assert canary not in logs, "a secret of the config, or what it was exchanged for, is in a log"


class Calling:
    """Calls in a loop from a thread of its own for as long as the block runs; `results` counts what came back."""

    def __init__(self, call, pause=0.02):
        self.results = Counter()
        self._call, self._pause, self._stop = call, pause, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.wait(self._pause):
            try:
                self.results[self._call()] += 1
            except Exception as error:  # counted like a wrong status, which fails the test
                self.results[repr(error)] += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
