"""Minutes of trouble around clients that keep calling: keys rotate, files break, the provider comes and goes.

Nobody who holds a valid token may see a 5xx or a wrong decision, as no outage here is longer than a third of `max_age`.
Exits 0 if that held. `make soak SECONDS=300`
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import requests
import yaml
from conftest import bin_dir  # also puts the stack's folder on the path

import stack  # isort: skip
from live import LiveWorld  # isort: skip
from replies import REPORT

REFRESH, MAX_AGE, TOKEN_TTL = 2, 30, 40
LONGEST_OUTAGE = MAX_AGE / 3
OUTAGES = ["closed", "503", "500", "slow:5000", "429:3", "garbage", "401", "truncated"]
# A grant given or taken away is held against the decisions once everybody must know of it: `refresh` plus 10 s, an
# outage at the wrong moment, and for a grant that is given also a new token.
WITHDRAWN_BY = REFRESH + 10 + LONGEST_OUTAGE
GRANTED_BY = WITHDRAWN_BY + TOKEN_TTL
HOLDERS = 8


def config_for_soak(config):
    config["issuer"]["token_ttl"] = f"{TOKEN_TTL}s"
    config["tenants"]["freshness"] = {"refresh": f"{REFRESH}s", "max_age": f"{MAX_AGE}s"}
    config["tenants"]["lookup"]["cache_ttl"] = "5s"


class Record:
    """What came back, and what should not have."""

    def __init__(self):
        self.counts, self.wrong, self._lock = Counter(), [], threading.Lock()

    def note(self, asked, expected, status, text=""):
        with self._lock:
            self.counts[asked, status] += 1
            if status not in expected:
                self.wrong.append(f"{time.strftime('%H:%M:%S')} {asked}: {status} {text[:200]}")


class Holder(threading.Thread):
    """One client: mints ahead of its token's expiry, and calls all the time with the token it has."""

    def __init__(self, world, record, pause):
        super().__init__(daemon=True)
        self.world, self.record, self.pause = world, record, pause
        self.client = world.client("T1", "SOMETIMES")
        self.session, self.stop = requests.Session(), threading.Event()
        self.token, self.expires, self.mint_at = None, 0.0, 0.0
        # Since when the tenant SOMETIMES is granted, or is not.
        self.granted, self.changed = True, time.monotonic()

    def run(self):
        requests_to_make = [self.own, self.sometimes, self.foreign, self.own, self.forged]
        while not self.stop.wait(self.pause):
            try:
                self.mint_if_due()
                if self.token and time.monotonic() < self.expires - 1:
                    random.choice(requests_to_make)()
            except requests.RequestException as error:
                self.record.note("any request", (), "no answer", repr(error))

    def mint_if_due(self):
        now = time.monotonic()
        if now < self.mint_at:
            return
        form = {"grant_type": "client_credentials"}
        auth = (self.client.id, self.client.secret)
        answer = self.session.post(f"{self.world.url}/oauth2/token", data=form, auth=auth, timeout=15)
        # In an outage there is no new token; the old one has time left for another try.
        self.record.note("mint", (200, 503), answer.status_code, answer.text)
        self.mint_at = now + 1
        if answer.status_code == 200:
            self.token, self.expires = answer.json()["access_token"], now + answer.json()["expires_in"]
            # At random, so that mints fall into outages too.
            self.mint_at = now + TOKEN_TTL * random.uniform(0.3, 0.6)

    def get(self, asked, expected, tenant, token):
        bearer = {"Authorization": f"Bearer {token}"}
        answer = self.session.get(self.world.url + REPORT.format(tenant), headers=bearer, timeout=15)
        self.record.note(asked, expected, answer.status_code, answer.text)

    def own(self):
        self.get("own tenant", (200,), "T1", self.token)

    def foreign(self):
        self.get("foreign tenant", (403,), "T2", self.token)

    def forged(self):
        self.get("forged token", (401,), "T1", self.token[:-8] + "AAAAAAAA")

    def sometimes(self):
        granted, age = self.granted, time.monotonic() - self.changed
        if age > (GRANTED_BY if granted else WITHDRAWN_BY):
            expected = (200,) if granted else (403,)
            self.get(f"tenant {'granted' if granted else 'withdrawn'} long since", expected, "SOMETIMES", self.token)
        else:
            self.get("tenant that has just changed", (200, 403), "SOMETIMES", self.token)


class Trouble:
    def __init__(self, world, holders, seed):
        self.world, self.holders, self.random = world, holders, random.Random(seed)
        self.done, self.down_for, self.cache_ttl = Counter(), 0.0, 5
        self.keys = ["--dir", world.work / "keys"]
        self.next_outage, self.back_at, self.mend = 3.0, None, []

    def every_second(self, second):
        now = time.monotonic()
        for due, text in [entry for entry in self.mend if entry[0] <= now]:
            self.world.write(*text)
            self.mend.remove((due, text))
        if self.back_at and self.back_at <= now:
            self.world.faults()
            self.back_at = None
        if second >= self.next_outage:
            self.outage(second, now)
        if second % 5 == 4 and not self.mend:
            self.random.choice([self.touch_registry, self.change_config, self.break_file, self.sighup])(now)
        if second % 25 == 10:
            self.rotate_keys()
        if second % 90 == 15:
            self.change_grants()

    def outage(self, second, now):
        lasts = self.random.uniform(LONGEST_OUTAGE / 3, LONGEST_OUTAGE - 1)
        kind = self.random.choice(OUTAGES)
        self.world.faults(**self.random.choice([{"lookup": kind}, {"lookup": "closed", "token": "closed"}]))
        self.back_at, self.next_outage = now + lasts, second + lasts + self.random.uniform(5, 15)
        self.down_for += lasts
        self.done["outages"] += 1

    def touch_registry(self, _now):
        registry = self.world.registry()
        registry["clients"].append(registry["clients"].pop(0))
        self.world.write("clients.yaml", yaml.safe_dump(registry))
        self.done["registry changes"] += 1

    def change_config(self, _now):
        """Another lookup config: its token and its connections are made again."""
        self.cache_ttl = 11 - self.cache_ttl
        self.world.config["tenants"]["lookup"]["cache_ttl"] = f"{self.cache_ttl}s"
        self.world.write("tenantgate.yaml", yaml.safe_dump(self.world.config))
        self.done["config changes"] += 1

    def break_file(self, now):
        name = self.random.choice(["clients.yaml", "tenantgate.yaml"])
        good = (self.world.work / name).read_text()
        self.world.write(name, self.random.choice([good + "\nnonsense: [", good[: len(good) // 2] + "\n: {", ""]))
        self.mend.append((now + 2, (name, good)))
        self.done["broken files"] += 1

    def sighup(self, _now):
        self.world.tenantgate.signal(signal.SIGHUP)
        self.done["SIGHUPs"] += 1

    def rotate_keys(self):
        """A key is retired once no token of it can be alive."""
        stack.tenantgate(bin_dir(), "keys", "generate", *self.keys, "--activate-after", "3s")
        self.done["new keys"] += 1
        files = sorted((self.world.work / "keys").glob("*.json"), key=lambda file: file.stat().st_mtime)
        alive = [file for file in files if "retired_at" not in json.loads(file.read_text())]
        # Of one that signs every 25 s, those before the last three signed more than 50 s ago.
        for file in alive[:-4]:
            stack.tenantgate(bin_dir(), "keys", "retire", *self.keys, "--kid", file.stem)
            self.done["retired keys"] += 1

    def change_grants(self):
        for holder in self.holders:
            holder.granted, holder.changed = not holder.granted, time.monotonic()
            change = self.world.provider.grant if holder.granted else self.world.provider.withdraw
            change(holder.client.id, "SOMETIMES")
        self.done["grant changes"] += len(self.holders)


def soak(world, seconds, rate, seed):
    record = Record()
    holders = [Holder(world, record, HOLDERS / rate) for _ in range(HOLDERS)]
    trouble = Trouble(world, holders, seed)
    for holder in holders:
        holder.start()
    started = time.monotonic()
    for second in range(seconds):
        trouble.every_second(second)
        time.sleep(max(0, started + second + 1 - time.monotonic()))
        for process in (world.tenantgate, world.envoy, world.provider):
            process.check_alive()
    for holder in holders:
        holder.stop.set()
    for holder in holders:
        holder.join()
    report(world, record, trouble, time.monotonic() - started)
    return record


def report(world, record, trouble, took):
    total = sum(record.counts.values())
    print(f"{total} requests in {took:.0f} s ({total / took:.0f}/s)")
    for (asked, status), count in sorted(record.counts.items(), key=str):
        print(f"  {asked:28} {status}  {count}")
    print(f"provider down for {trouble.down_for:.0f} s in all")
    for what, count in trouble.done.items():
        print(f"{what}: {count}")
    for outcome in ("ok", "failed"):
        reloads = world.metric(f'tenantgate_config_reloads_total{{outcome="{outcome}"}}') or 0
        print(f"reloads {outcome}: {reloads:.0f}")
    print(f"resident memory: {world.metric('process_resident_memory_bytes') / 2**20:.0f} MiB")
    for line in record.wrong[:20]:
        print(f"WRONG {line}")
    print(f"wrong: {len(record.wrong)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--rate", type=int, default=100, help="requests a second, of all clients together")
    parser.add_argument("--seed", type=int, default=1, help="chooses the troubles")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, stack.Children() as children:
        clients = [f"holder-{number}" for number in range(HOLDERS)]
        world = LiveWorld(children, Path(work), change_config=config_for_soak, clients=clients, separate_api=True)
        record = soak(world, arguments.seconds, arguments.rate, arguments.seed)
    sys.exit(1 if record.wrong else 0)


if __name__ == "__main__":
    main()
