"""A sidecar with a feed, Envoys with the module that are fed by it, and false sidecars."""

import json
import shutil
import socket
import struct
import threading

import requests
import stack
import yaml
from live import LiveWorld
from replies import REPORT
from test_module import in_process, start

MAX_AGE = 3
# A `Hello` of this version and one of the next, in either direction: field 1, its length, and the version in it.
HELLO, OTHER_HELLO = b"\x0a\x02\x08\x01", b"\x0a\x02\x08\x02"
COMMIT = b"\x3a\x00"


def frame(message):
    return struct.pack(">I", len(message)) + message


class FedWorld(LiveWorld):
    """As it is in front of an API: ext_authz in `envoy`, the module in the Envoys of `inside`."""

    def __init__(self, children, work, change_config=lambda config: None):
        def with_feed(config):
            config["listen"] |= {"feed": "unix:feed.sock", "management": stack.ANY_PORT}
            config["tenants"]["freshness"] = {"refresh": "1s", "max_age": f"{MAX_AGE}s"}
            config["state"] = {"sqlite": "state/tenantgate.db", "key_file": "secrets/state.key"}
            config["management"] = {"token_file": "secrets/management-token"}
            change_config(config)

        self.socket = work / "feed.sock"
        super().__init__(children, work, change_config=with_feed)

    def inside(self, name="inside", change=lambda config: None, wait=True, **settings):
        """An Envoy that is fed. Its config is in a folder without keys and secrets."""
        alone = self.work / "alone"
        alone.mkdir(exist_ok=True)
        shutil.copy(self.work / "tenantgate.yaml", alone)
        config = in_process(alone, **{"feed": f"unix:{self.socket}", **settings})
        change(config)
        envoy = start(self, self.children, config, name)
        if wait:
            self.wait_for("the feed", lambda: status(envoy, "/api/T1/") in (401, 403))
        return envoy

    def manage(self, path, body):
        url, headers = self.tenantgate.management_url, {"Authorization": f"Bearer {stack.MANAGEMENT_TOKEN}"}
        answer = requests.post(f"{url}/v1/{path}", json=body, headers=headers, timeout=5)
        assert answer.ok, answer.text
        return answer.json()

    def restart_sidecar(self):
        self.tenantgate = self.children.start(stack.Tenantgate, self.work, self.bin_dir, "trace")

    @property
    def bin_dir(self):
        from conftest import bin_dir

        return bin_dir()


def status(envoy, path, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(envoy.url + path, headers=headers, timeout=5).status_code


def each_call_acts_within_2_seconds(world, envoy, client, token):
    """Calls that take away, and give back, what this client may read of T1."""
    for call, body, expected in [
        ("grants:withdraw", {"client_id": client.id, "tenant": "T1"}, 403),
        ("grants:restore", {"client_id": client.id, "tenant": "T1"}, 200),
        (f"clients/{client.id}:block", {}, 401),
        (f"clients/{client.id}:unblock", {}, 200),
        (f"clients/{client.id}:revoke-tokens", {}, 401),
    ]:
        world.manage(call, body)
        assert world.wait_for(call, lambda: status(envoy, REPORT.format("T1"), token) == expected, 2) < 2


class FalseSidecar:
    """Says `say` to everybody who connects to `path`, and then nothing more."""

    def __init__(self, path, say):
        path.unlink(missing_ok=True)
        self.path, self.say, self.connections, self.heard = path, say, [], b""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            connection.settimeout(1)
            try:
                connection.sendall(self.say)
                if self.say.endswith(b"hang up"):
                    connection.close()
            except OSError:
                pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            connection.close()
        self.thread.join()
        self.path.unlink()


def read_feed(path, hello=HELLO, until=COMMIT, seconds=5):
    """What a module gets to read, up to the first commit."""
    with socket.socket(socket.AF_UNIX) as feed:
        feed.settimeout(seconds)
        feed.connect(str(path))
        feed.sendall(frame(hello))
        read = b""
        with feed.makefile("rb") as frames:
            while head := frames.read(4):
                message = frames.read(struct.unpack(">I", head)[0])
                read += message
                if message[:1] == until[:1]:
                    break
        return read


def as_text(config):
    return yaml.safe_dump(json.loads(json.dumps(config)))
