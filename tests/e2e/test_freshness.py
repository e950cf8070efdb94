"""How fast a withdrawn grant stops, what vouches for a request while the provider is down, and what idle clients cost;
in real time, through a real Envoy."""

import time

import pytest
from live import live_world
from replies import REPORT, assert_denied

REFRESH = 1


def fresh(config):
    config["tenants"]["freshness"] = {"refresh": f"{REFRESH}s", "max_age": "300s"}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with live_world(tmp_path_factory.mktemp("freshness"), change_config=fresh) as world:
        yield world


@pytest.fixture
def world(live):
    live.faults()
    yield live
    live.faults()


def status(world, token, tenant):
    return world.get(REPORT.format(tenant), token).status_code


def test_a_withdrawn_grant_stops_within_refresh_and_only_that_one(world):
    world.reconfigure()
    client = world.client("T1", "T2")
    token = world.token(client)
    assert [status(world, token, tenant) for tenant in ("T1", "T2")] == [200, 200]
    world.provider.withdraw(client.id, "T1")
    took = world.wait_for("the refusal of T1", lambda: status(world, token, "T1") == 403)
    print(f"a withdrawn grant was refused after {took:.2f} s")
    assert took < REFRESH + 10
    assert_denied(world.get(REPORT.format("T1"), token), 403, "access_denied")
    assert status(world, token, "T2") == 200

    # What is granted now and was not when the token was made needs another token; what comes back, does not.
    world.provider.grant(client.id, "T3")
    world.provider.grant(client.id, "T1")
    world.wait_for("T1 again", lambda: status(world, token, "T1") == 200)
    assert status(world, token, "T3") == 403


def test_refreshes_of_an_unchanged_answer_are_304(world):
    world.reconfigure()
    client = world.client("T1")
    token = world.token(client)
    before = world.counters()["not_modified"]

    def unchanged():
        assert status(world, token, "T1") == 200
        return world.counters()["not_modified"] >= before + 2

    world.wait_for("two refreshes answered with 304", unchanged)
    assert status(world, token, "T1") == 200
    world.provider.withdraw(client.id, "T1")
    world.wait_for("the refusal of T1", lambda: status(world, token, "T1") == 403)


def test_past_max_age_requests_are_503_until_the_provider_is_back(world):
    def short_memory(config):
        config["tenants"]["freshness"] = {"refresh": "1s", "max_age": "3s"}

    world.reconfigure(short_memory)
    token = world.token(world.client("T1"))
    assert status(world, token, "T1") == 200
    world.faults(lookup="closed")
    down, seen = time.monotonic(), []
    while (time.monotonic() - down) < 6 and 503 not in seen:
        seen.append(status(world, token, "T1"))
        time.sleep(0.05)
    took = time.monotonic() - down
    assert set(seen) == {200, 503}
    assert 1.5 < took < 5  # the last good lookup was up to a refresh before the outage
    assert_denied(world.get(REPORT.format("T1"), token), 503, "temporarily_unavailable")
    # What the token says of itself is decided all the same.
    assert_denied(world.get(REPORT.format("T2"), token), 403, "access_denied")
    world.faults()
    back = world.wait_for("the recovery", lambda: status(world, token, "T1") == 200)
    print(f"503 after {took:.2f} s, 200 again {back:.2f} s after the provider was back")


def test_idle_clients_are_not_looked_up(world):
    max_age = 3

    def soon_idle(config):
        config["tenants"]["freshness"]["max_age"] = f"{max_age}s"

    world.reconfigure(soon_idle)
    used, only_minted = world.client("T1"), world.client("T1")
    token = world.token(used)
    world.token(only_minted)
    # A token that is not used yet may be used at any time.
    world.wait_for("a refresh of both", lambda: all(world.lookups_of(client) >= 2 for client in (used, only_minted)))
    world.wait_for("a later refresh", lambda: status(world, token, "T1") == 200 and world.lookups_of(used) >= 3)
    time.sleep(max_age + 1.5 * REFRESH)
    settled = world.lookups_of(used), world.lookups_of(only_minted)
    time.sleep(1.5 * REFRESH)
    assert (world.lookups_of(used), world.lookups_of(only_minted)) == settled
    settled, _ = settled
    # And it is looked up again as soon as it is back.
    world.wait_for("a lookup", lambda: status(world, token, "T1") == 200 and world.lookups_of(used) > settled)


def test_freshness_token_asks_only_for_mints(world):
    def by_token(config):
        config["tenants"]["freshness"] = "token"

    world.reconfigure(by_token)
    client = world.client("T1")
    token = world.token(client)
    world.provider.withdraw(client.id, "T1")
    world.faults(lookup="closed")
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert [status(world, token, tenant) for tenant in ("T1", "T2")] == [200, 403]
    assert world.lookups_of(client) == 1


def on_miss(config):
    fresh(config)
    config["tenants"] |= {"freshness": {"refresh": "60s", "max_age": "300s"}, "on_miss": "lookup"}


def test_on_miss_the_client_is_looked_up_long_before_its_refresh(world):
    world.reconfigure(on_miss)
    client = world.client("T1", "T2")
    token = world.token(client)
    world.provider.withdraw(client.id, "T2")
    assert [status(world, token, tenant) for tenant in ("T1", "T2", "X")] == [200, 200, 403]
    # The miss of X has brought the news of T2 ...
    world.wait_for("the refusal of T2", lambda: status(world, token, "T2") == 403, seconds=5)
    # ... and the misses of T2 bring it back. One lookup in 5 s is what a client may cause.
    world.provider.grant(client.id, "T2")
    world.wait_for("T2 again", lambda: status(world, token, "T2") == 200, seconds=8)
    assert world.lookups_of(client) <= 4


def test_on_miss_probing_is_not_amplified(world):
    world.reconfigure(on_miss)
    client = world.client("T1")
    token = world.token(client)
    assert status(world, token, "T1") == 200
    before, started = world.lookups_of(client), time.monotonic()
    assert {status(world, token, f"X{number}") for number in range(200)} == {403}
    took = time.monotonic() - started
    time.sleep(0.5)
    lookups = world.lookups_of(client) - before
    assert 1 <= lookups <= took / 5 + 2


def test_static_grants_need_no_lookup_and_follow_the_registry(world):
    world.reconfigure()
    client = world.client()
    world.change_client(client, tenants=["S1", "S2"])
    world.faults(lookup="closed", token="closed")
    world.wait_for("the static grants", lambda: world.mint(client).status_code == 200)
    token, before = world.token(client), world.lookups_of(client)
    assert [status(world, token, tenant) for tenant in ("S1", "S2", "S3")] == [200, 200, 403]
    world.change_client(client, tenants=["S2", "S3"])
    world.wait_for("the refusal of S1", lambda: status(world, token, "S1") == 403, seconds=5)
    assert [status(world, token, tenant) for tenant in ("S2", "S3")] == [200, 403]
    assert status(world, world.token(client), "S3") == 200
    assert world.lookups_of(client) == before
