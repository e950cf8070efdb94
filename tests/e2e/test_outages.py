"""What happens when a part is gone, and when tenantgate is told to go."""

import json
import signal
import socket
import subprocess
import threading
import time

import requests
import stack
from conftest import bin_dir
from replies import REPORT, assert_denied


def test_a_dead_provider_stops_new_tokens_but_not_those_that_are_out(own_world):
    world = own_world(clients=["app-1", "app-2"], separate_api=True)
    holder, newcomer = world.client("T1001"), world.client("T1001")
    token = world.token(holder)
    world.provider.kill()
    assert_denied(world.mint(newcomer), 503, "temporarily_unavailable")
    assert world.get(REPORT.format("T1001"), token).status_code == 200
    assert_denied(world.get(REPORT.format("T2002"), token), 403, "access_denied")


def test_grants_that_nobody_can_vouch_for_any_more_are_503(own_world):
    def short_memory(config):
        config["tenants"]["freshness"] = {"refresh": "1s", "max_age": "2s"}

    world = own_world(change_config=short_memory, clients=["app-1"], separate_api=True)
    token = world.token(world.client("T1001"))
    world.provider.kill()
    assert world.get(REPORT.format("T1001"), token).status_code == 200
    time.sleep(4)
    assert_denied(world.get(REPORT.format("T1001"), token), 503, "temporarily_unavailable")
    # What needs no grants is still decided.
    assert world.get(REPORT.format("T1001"), token + "x").status_code == 401


def test_a_dead_tenantgate_closes_the_api(own_world):
    world = own_world(clients=["app-1"])
    token = world.token(world.client("T1001"))
    world.upstream()
    world.tenantgate.kill()
    answer = world.get(REPORT.format("T1001"), token)
    assert answer.status_code == 503
    assert world.upstream() == []


def test_sigterm_drains_and_ends_with_0(own_world):
    world = own_world(clients=["app-1"])
    client = world.client("T1001")
    world.provider.control("PUT", "faults", {"lookup": "slow"})
    answers = []
    mint = threading.Thread(target=lambda: answers.append(world.mint(client)))
    mint.start()
    time.sleep(0.2)  # the lookup, which takes its timeout of 1 s, is under way
    world.tenantgate.signal(signal.SIGTERM)
    readyz = f"{world.tenantgate.admin_url}/readyz"
    stack.wait_until("not ready", lambda: requests.get(readyz, timeout=5).status_code == 503, world.tenantgate, seconds=5)
    mint.join()
    assert_denied(answers[0], 503, "temporarily_unavailable")  # answered, not cut off
    assert world.tenantgate.child.wait(25) == 0


def test_sigint_ends_with_0_at_once_when_idle(own_world):
    world = own_world(clients=["app-1"])
    started = time.monotonic()
    world.tenantgate.signal(signal.SIGINT)
    assert world.tenantgate.child.wait(25) == 0
    assert time.monotonic() - started < 10


def test_peers_that_ask_nothing_do_not_hold_up_the_end(own_world):
    world = own_world(clients=["app-1"])
    addresses = [address.rsplit(":", 1) for address in world.tenantgate.ports.values() if address]
    silent = [socket.create_connection((host, int(port)), timeout=5) for host, port in addresses]
    started = time.monotonic()
    world.tenantgate.signal(signal.SIGTERM)
    assert world.tenantgate.child.wait(25) == 0
    assert time.monotonic() - started < 10
    for peer in silent:
        peer.close()


def test_a_reader_of_the_log_that_stalls_holds_up_nobody(own_world, tmp_path):
    world = own_world(clients=["app-1"])
    ports = tmp_path / "ports.json"
    argv = [bin_dir() / "tenantgate", "serve", "--config", world.work / "tenantgate.yaml", "--ports-file", ports]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as unread:
        try:
            stack.wait_until("starting tenantgate", lambda: json.loads(ports.read_text()), world.tenantgate)
            address = json.loads(ports.read_text())
            with requests.Session() as session:
                # Each refusal is a line; a pipe holds 64 KiB.
                for _ in range(1000):
                    refused = session.post(f"http://{address['token']}/oauth2/token", data={"grant_type": "x"}, timeout=5)
                    assert refused.status_code == 400
            assert requests.get(f"http://{address['admin']}/readyz", timeout=5).status_code == 200
        finally:
            unread.kill()


def test_a_port_in_use_is_one_clear_line(own_world, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:{}".format(taken.getsockname()[1])
        config = tmp_path / "tenantgate.yaml"
        own_world(clients=["app-1"])
        text = config.read_text().replace("token: 127.0.0.1:0", f"token: {address}")
        assert address in text
        config.write_text(text)
        argv = [bin_dir() / "tenantgate", "serve", "--config", config]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert done.returncode not in (0, -signal.SIGABRT)
    complaints = [line for line in done.stderr.splitlines() if address in line]
    assert len(complaints) == 1, done.stderr
    assert "panicked" not in done.stderr
