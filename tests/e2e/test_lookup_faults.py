"""Holds every row of the fault table in docs/lookup.md: what an integrator gets while the provider misbehaves."""

import json
import re
import time
from dataclasses import dataclass

import pytest
import requests
import stack
import yaml
from conftest import ROOT, World
from replies import REPORT, assert_denied

COLUMNS = ["endpoint", "fault", "the provider", "a new token", "within", "tokens already out", "reason"]
# What a busy machine may add to the times of the table.
ALLOWANCE = 1.0
NO_FAULTS = {"lookup": None, "token": None}


@dataclass
class Row:
    endpoint: str
    kind: str | None
    once: bool
    status: int
    error: str | None
    seconds: float
    holder_status: int
    reason: str

    @property
    def name(self):
        return f"{self.endpoint} {self.kind}{' once' if self.once else ''}"

    def faults(self):
        """The body of `PUT /control/faults`."""
        fault = {"kind": self.kind, **({"times": 1} if self.once else {})} if self.kind else None
        return {**NO_FAULTS, self.endpoint: fault}


def read_row(cells):
    endpoint, fault, _, outcome, within, holder, reason = cells
    kind, once = re.fullmatch(r"(?:none|`([\w:]+)`)( once)?", fault).groups()
    status, error = re.fullmatch(r"(\d+)(?: `(\w+)`)?(?:, .*)?", outcome).groups()
    (seconds,) = re.fullmatch(r"([\d.]+) s", within).groups()
    return Row(endpoint, kind, bool(once), int(status), error, float(seconds), int(holder), reason.strip("`"))


def read_table():
    lines = (ROOT / "docs/lookup.md").read_text().splitlines()
    start = lines.index("| " + " | ".join(COLUMNS) + " |") + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(read_row([cell.strip() for cell in line.strip("|").split("|")]))
    return rows


ROWS = read_table()


def test_the_table_has_every_fault_that_the_example_provider_knows():
    source = (ROOT / "examples/provider/src/faults.rs").read_text()
    known = set()
    for kind, endpoint in re.findall(r'^ +\("(\w+)", (_|Lookup|Token)\) =>', source, re.MULTILINE):
        known |= {(name, kind) for name in ("lookup", "token") if endpoint in ("_", name.capitalize())}
    assert len(known) > 30
    assert known == {(row.endpoint, row.kind.split(":")[0]) for row in ROWS if row.kind}


class FaultWorld(World):
    """A stack in which no row feels what the one before it left behind."""

    def start_row(self, faults):
        self.provider.control("PUT", "faults", faults)
        before = self.metric('tenantgate_config_reloads_total{outcome="ok"}')
        # Another lookup config means another directory: no token, no backoff, no retries used up.
        oauth2 = self.config["tenants"]["lookup"]["auth"]["oauth2"]
        oauth2["default_lifetime"] = f"{int(before) + 1000}s"
        # In one step: half a file would be refused.
        (self.work / "next.yaml").write_text(yaml.safe_dump(self.config))
        (self.work / "next.yaml").rename(self.work / "tenantgate.yaml")
        reloaded = lambda: self.metric('tenantgate_config_reloads_total{outcome="ok"}') > before
        stack.wait_until("a reload", reloaded, self.tenantgate)

    def metric(self, sample):
        text = requests.get(f"{self.tenantgate.admin_url}/metrics", timeout=5).text
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


    def lookups_of(self, client):
        """The outcomes of this client's lookups, from the log."""
        outcomes = []
        for line in self.tenantgate.log.read_text().splitlines():
            entry = json.loads(line)
            if entry.get("client") != client.id:
                continue
            if entry["message"] == "looked up tenants":
                outcomes.append("granted" if entry["tenants"] else "denied")
            elif entry["message"] == "cannot look up tenants":
                outcomes.append(entry["reason"])
        return outcomes


def start_world(tmp_path_factory, freshness):
    def change(config):
        config["tenants"]["freshness"] = freshness

    with stack.Children() as children:
        yield FaultWorld(children, tmp_path_factory.mktemp("faults"), change)


@pytest.fixture(scope="module")
def mint_world(tmp_path_factory):
    """Nothing is looked up but what a mint needs."""
    yield from start_world(tmp_path_factory, "token")


@pytest.fixture(scope="module")
def check_world(tmp_path_factory):
    # The clients of the rows before are active no more: a provider that is down is asked about a few of them at a time.
    yield from start_world(tmp_path_factory, {"refresh": "1s", "max_age": "15s"})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_new_token(mint_world, row):
    world = mint_world
    world.start_row(NO_FAULTS)
    client = world.client("T1001")
    sample = f'tenantgate_lookups_total{{outcome="{row.reason}"}}'
    before = world.metric(sample)
    world.provider.control("PUT", "faults", row.faults())
    started = time.monotonic()
    answer = world.mint(client)
    took = time.monotonic() - started
    if row.status == 200:
        assert answer.status_code == 200, answer.text
        token = answer.json()["access_token"]
        assert world.get(REPORT.format("T1001"), token).status_code == 200
        assert_denied(world.get(REPORT.format("T1002"), token), 403, "access_denied")
    else:
        assert_denied(answer, row.status, row.error)
    assert took < row.seconds + ALLOWANCE
    assert world.metric(sample) == before + 1
    assert world.provider.control("GET", "state")["attacker_requests"] == 0


@pytest.mark.parametrize("row", [row for row in ROWS if not row.once], ids=lambda row: row.name)
def test_a_token_that_is_already_out(check_world, row):
    world = check_world
    world.start_row(NO_FAULTS)
    client = world.client("T1001")
    path = REPORT.format("T1001")
    token = world.token(client)
    world.start_row(row.faults())
    statuses = []
    # A lookup that joins the request of another client for a token may see how that ends before its own time is over.
    reasons = {row.reason, "callout_token"} if row.endpoint == "token" else {row.reason}

    def refreshed():
        statuses.append(world.get(path, token).status_code)
        return reasons & set(world.lookups_of(client)[1:])  # the first one was for the mint

    stack.wait_until("a refresh", refreshed, world.tenantgate)
    answer = world.get(path, token)
    if row.holder_status == 403:
        assert_denied(answer, 403, "access_denied")
    else:
        assert {answer.status_code, *statuses} == {200}
