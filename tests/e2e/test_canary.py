"""Secrecy: nothing that tenantgate writes or answers holds a tenant code, a token or a secret, whatever happens.

The provider here is a hostile one: it puts what it knows of us into every answer.
"""

import base64
import contextlib
import hashlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h2.config
import h2.connection
import h2.events
import pytest
import requests
import stack
import yaml
from conftest import bin_dir

OWN, FOREIGN = "canary-tenant-own-7f3a9", "canary-tenant-foreign-9c1d4"
NO_CODE = "canary-tenant/no-code-5b2e8"
CALLOUT_SECRET = "canary-callout-secret-41d7c"
CALLOUT_TOKEN = "canary-callout-token-88e0f"
HEADER_SECRET = "canary-header-secret-c3f55"
WRONG_SECRET = "canary-wrong-secret-0a6d2"
IMPORTED_SECRET = "canary-imported-secret-b7714"


class HostileProvider(BaseHTTPRequestHandler):
    """Answers with `answers[path]`, or as a good provider would."""

    answers = {}
    asked = []

    def do_GET(self):
        self.asked.append(self.path)
        self.reply({"tenants": [{"code": OWN}, {"code": NO_CODE}]})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.reply({"access_token": CALLOUT_TOKEN, "token_type": "Bearer", "expires_in": 3600})

    def reply(self, usual):
        kind = "token" if self.path.startswith("/token") else "lookup"
        status, headers, body = self.answers.get(kind, (200, {}, usual))
        body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


# Everything that a provider may get wrong, with canaries in it.
LOOKUP_FAULTS = {
    "garbage": (200, {}, f"<{OWN} {CALLOUT_TOKEN}"),
    "wrong shape": (200, {}, {"tenants": {"code": OWN}}),
    "flags": (200, {}, {"tenants": [{"code": True}, {"code": OWN}]}),
    "only bad codes": (200, {}, {"tenants": [{"code": NO_CODE}]}),
    "another array": (200, {}, {OWN: [OWN]}),
    "error body": (500, {}, {"error": f"token {CALLOUT_TOKEN} may not see {OWN}"}),
    "forbidden": (403, {"www-authenticate": f'Bearer error_description="{CALLOUT_TOKEN}"'}, OWN),
    "redirect": (302, {"location": f"/{OWN}?token={CALLOUT_TOKEN}"}, OWN),
    "retry after": (429, {"retry-after": OWN}, OWN),
    "etag": (200, {"etag": OWN + '"'}, {"tenants": {}}),
    "other encoding": (200, {"content-encoding": "gzip"}, OWN),
}
TOKEN_FAULTS = {
    "invalid client": (401, {}, {"error": "invalid_client", "error_description": CALLOUT_SECRET}),
    "odd error": (400, {}, {"error": CALLOUT_SECRET}),
    "garbage": (200, {}, CALLOUT_TOKEN),
    "not bearer": (200, {}, {"access_token": CALLOUT_TOKEN, "token_type": CALLOUT_SECRET}),
    "no text": (200, {}, {"access_token": [CALLOUT_TOKEN]}),
    "not for a header": (200, {}, {"access_token": CALLOUT_TOKEN + "\r\n", "token_type": "Bearer"}),
    "redirect": (307, {"location": f"/token?secret={CALLOUT_SECRET}"}, CALLOUT_SECRET),
    "error page": (503, {}, f"<html>{CALLOUT_SECRET}"),
}


def in_all_forms(canary):
    """The text, and what is found of it in hexadecimal or base64, at whatever byte it begins there."""
    data = canary.encode()
    yield canary
    yield data.hex()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data).decode()
        # Without the characters that depend on the neighbours.
        core = encoded[4 if shift else 0 : -4]
        yield from {core, core.replace("+", "-").replace("/", "_")}


class Gate:
    """A tenantgate of its own with the hostile provider, and everything it has been heard to say."""

    def __init__(self, children, work, provider_port):
        self.work, self.said = work, {}
        url = f"http://127.0.0.1:{provider_port}"
        config = yaml.safe_load(stack.CONFIG.read_text())
        config["listen"] = dict.fromkeys(config["listen"], stack.ANY_PORT)
        config["tenants"]["freshness"] = {"refresh": "1s", "max_age": "300s"}
        lookup = config["tenants"]["lookup"]
        lookup |= {"url": f"{url}/clients/{{client_id}}", "cache_ttl": "0s", "max_tries": 1}
        lookup["headers"] = [{"name": "x-api-secret", "value_file": "secrets/header"}]
        lookup["auth"]["oauth2"]["token_url"] = f"{url}/token"
        config["apis"][0]["api_key"] = {"header": "x-api-key"}
        config["apis"][0]["routes"] = [
            {"path": "/api/{tenant}/report", "methods": ["GET"], "scopes": ["reports.read"]},
            {"path": "/api/{tenant}/admin", "methods": ["GET"], "scopes": ["admin"]},
            {"path": "/api/{name}/x/{tenant}", "methods": ["GET"]},
        ]
        config["limits"] = {"probing": {"tenants": 3, "window": "60s", "throttle": True}}
        (work / "secrets").mkdir()
        stack.write_secret(work / "secrets/header", HEADER_SECRET)
        secrets = stack.prepare(work, bin_dir(), config, {"app": ["--scope", "reports.read"], "probe": []})
        stack.write_secret(work / "secrets/lookup-client", CALLOUT_SECRET)
        self.secret = secrets["app"]
        add = [bin_dir() / "tenantgate", "clients", "add", "--file", work / "clients.yaml", "--id", "imported"]
        subprocess.run([*add, "--secret-stdin"], input=IMPORTED_SECRET + "\n", text=True, check=True, capture_output=True)
        self.config = config
        self.process = children.start(stack.Tenantgate, work, bin_dir(), "trace")
        self.canaries = {
            *(OWN, FOREIGN, NO_CODE, CALLOUT_SECRET, CALLOUT_TOKEN, HEADER_SECRET, WRONG_SECRET, IMPORTED_SECRET),
            *secrets.values(),
            (work / "secrets/tenant-digest.key").read_text().strip(),
            *self.private_keys(),
        }

    def private_keys(self):
        for file in (self.work / "keys").iterdir():
            lines = [line for line in file.read_text().splitlines() if not line.startswith("-----")]
            text = "".join(lines)
            # The middle holds the private number; the head is the same for every key.
            yield text[len(text) // 3 : 2 * len(text) // 3]

    def hear(self, where, text):
        self.said[where] = self.said.get(where, "") + text
        return text

    def mint(self, secret=None, client="app", **form):
        form = {"grant_type": "client_credentials", **form}
        url = f"{self.process.token_url}/oauth2/token"
        answer = requests.post(url, data=form, auth=(client, secret or self.secret), timeout=10)
        if answer.ok:
            self.canaries |= set(answer.json()["access_token"].split(".")[1:])
        else:
            self.hear("token errors", str(answer.headers) + answer.text)
        return answer

    def check(self, path, *headers):
        status, reply = check(self.process.ports["check"], path, headers)
        self.hear("check replies", reply)
        return status

    def admin(self, path):
        return self.hear(path, requests.get(self.process.admin_url + path, timeout=5).text)

    def run(self, *arguments):
        argv = [str(part) for part in (bin_dir() / "tenantgate", "--log-level", "trace", *arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd=self.work)
        self.hear(arguments[0], done.stdout + done.stderr)
        return done

    def logs(self):
        return self.process.log.read_text(errors="replace")

    def reload(self):
        before = self.logs().count("reloaded")
        self.process.signal(signal.SIGHUP)
        stack.wait_until("a reload", lambda: self.logs().count("reloaded") > before, self.process)


def field(number, data):
    """A length-delimited field of a protobuf message."""
    data = data.encode() if isinstance(data, str) else data
    length, prefix = len(data), b""
    while length > 127:
        prefix, length = prefix + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + prefix + bytes([length]) + data


def check(address, path, headers):
    """One Check call; the HTTP status that Envoy would answer, and all that the reply says."""
    request = field(2, "GET") + b"".join(field(3, field(1, name) + field(2, value)) for name, value in headers)
    message = field(1, field(4, field(2, request + field(4, path))))
    client = h2.connection.H2Connection(h2.config.H2Configuration())
    client.initiate_connection()
    method = "/envoy.service.auth.v3.Authorization/Check"
    call = {":method": "POST", ":scheme": "http", ":authority": "tenantgate", ":path": method}
    client.send_headers(1, [*call.items(), ("content-type", "application/grpc"), ("te", "trailers")])
    client.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    host, port = address.rsplit(":", 1)
    reply, trailers = b"", []
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(client.data_to_send())
        while chunk := connection.recv(65536):
            for event in client.receive_data(chunk):
                if isinstance(event, h2.events.DataReceived):
                    reply += event.data
                elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    trailers += event.headers
                elif isinstance(event, h2.events.StreamEnded):
                    text = reply.decode("utf-8", "replace") + str(trailers)
                    denied = re.search(rb"\x08([\x80-\xff].)", reply[:40])
                    if b"error_description" not in reply:
                        return 200, text
                    low, high = denied[1]
                    return low & 127 | high << 7, text
            connection.sendall(client.data_to_send())
    raise AssertionError("the check was not answered")


@pytest.fixture
def gate(children, tmp_path):
    provider = ThreadingHTTPServer(("127.0.0.1", 0), HostileProvider)
    HostileProvider.answers, HostileProvider.asked = {}, []
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    yield Gate(children, tmp_path, provider.server_port)
    provider.shutdown()
    provider.server_close()


def bearer(token):
    return ("authorization", f"Bearer {token}")


def tampered(token):
    return token[:-10] + ("A" if token[-10] != "A" else "B") + token[-9:]


def drive_checks(gate, token):
    header, payload, signature = token.split(".")
    good = bearer(token)
    statuses = {
        "allowed": (200, f"/api/{OWN}/report", [good]),
        "foreign": (403, f"/api/{FOREIGN}/report", [good]),
        "no route": (403, f"/nowhere/{FOREIGN}", [good]),
        "no scope": (403, f"/api/{OWN}/admin", [good]),
        "dot segment": (400, f"/api/{OWN}/../{FOREIGN}", [good]),
        "bad tenant": (400, f"/api/{OWN},{FOREIGN}/report", [good]),
        "no token": (401, f"/api/{OWN}/report", []),
        "garbage": (401, f"/api/{OWN}/report", [bearer("canary")]),
        "bad signature": (401, f"/api/{OWN}/report", [bearer(tampered(token))]),
        "bad header": (401, f"/api/{OWN}/report", [bearer(f"{header}x.{payload}.{signature}")]),
        "two tokens": (400, f"/api/{OWN}/report", [("authorization", f"Bearer {token}, Bearer {token}")]),
        "key and token": (400, f"/api/{OWN}/report", [good, ("x-api-key", gate.secret)]),
        "wrong key": (401, f"/api/{OWN}/report", [("x-api-key", WRONG_SECRET)]),
        "key": ((200, 503), f"/api/{OWN}/report", [("x-api-key", gate.secret)]),
        "key, foreign": ((403, 503), f"/api/{FOREIGN}/report", [("x-api-key", gate.secret)]),
        "other scheme": (401, f"/api/{OWN}/report", [("authorization", f"Basic {gate.secret}")]),
        "in the query": (401, f"/api/{OWN}/report?access_token={token}", []),
    }
    for what, (expected, path, headers) in statuses.items():
        status = gate.check(path, *headers)
        assert status in (expected if isinstance(expected, tuple) else (expected,)), (what, status)
    for number in range(6):
        status = gate.check(f"/api/{FOREIGN}-{number}/report", good)
    assert status == 429, "probing is throttled"


def drive_mints(gate):
    for secret, form, expected in [
        (None, {"tenant": FOREIGN}, 400),
        (None, {"resource": f"urn:tenantgate:tenant:{FOREIGN}"}, 400),
        (None, {"tenant": NO_CODE}, 400),
        (None, {"scope": FOREIGN}, 400),
        (None, {"resource": f"https://{FOREIGN}"}, 400),
        (None, {"client_secret": WRONG_SECRET}, 400),
        (None, {"grant_type": [FOREIGN, OWN]}, 400),
        (WRONG_SECRET, {}, 401),
    ]:
        assert gate.mint(secret, **form).status_code == expected, form
    assert gate.mint(WRONG_SECRET, client=FOREIGN).status_code == 401
    assert gate.mint(IMPORTED_SECRET, client="imported").status_code == 200
    assert gate.mint(WRONG_SECRET, client="imported").status_code == 401
    url = f"{gate.process.token_url}/oauth2/token"
    for request in [
        {"params": {"client_secret": WRONG_SECRET}},
        {"data": f"%{WRONG_SECRET}&&={OWN}"},
        {"data": b"\xff" + OWN.encode(), "headers": {"authorization": f"Basic {WRONG_SECRET}"}},
        {"json": {"client_secret": WRONG_SECRET, "tenant": OWN}},
    ]:
        answer = requests.post(url, timeout=10, **request)
        assert answer.status_code in (400, 401, 415), answer.text
        gate.hear("token errors", str(answer.headers) + answer.text)


def drive_faults(gate):
    for kind, faults in (("lookup", LOOKUP_FAULTS), ("token", TOKEN_FAULTS)):
        for what, answer in faults.items():
            HostileProvider.answers = {kind: answer}
            if kind == "token":
                # The token in hand is dropped when the lookup refuses it.
                HostileProvider.answers["lookup"] = (401, {}, CALLOUT_TOKEN)
            assert gate.mint().status_code == 503, what
        HostileProvider.answers = {}
        deadline = time.monotonic() + 10
        while gate.mint().status_code != 200:
            assert time.monotonic() < deadline, "the provider is well again"
            time.sleep(0.2)


def drive_commands(gate, token):
    # A SQLite file serves one process: beside a running one `explain` cannot know what is withdrawn, and says whom to ask.
    beside = gate.run("explain", "--config", gate.work / "tenantgate.yaml", "--path", f"/api/{OWN}/report", "--token", token)
    assert (beside.returncode, "tenantgate admin explain" in beside.stderr) == (1, True), beside.stderr
    without = yaml.safe_load((gate.work / "tenantgate.yaml").read_text())
    del without["state"]
    (gate.work / "without-state.yaml").write_text(yaml.safe_dump(without))
    config = ["--config", gate.work / "without-state.yaml"]
    token_file = gate.work / "token"
    token_file.write_text(token)
    for path, code in ((f"/api/{OWN}/report", 0), (f"/api/{FOREIGN}/report", 3), (f"/api/{OWN}/../{FOREIGN}", 3)):
        explained = gate.run("explain", *config, "--path", path, "--token-file", token_file)
        assert explained.returncode == code, explained.stderr
    assert gate.run("explain", *config, "--path", f"/api/{OWN}/report", "--token", tampered(token)).returncode == 3
    assert gate.run("explain", *config, "--client", "app", "--tenant", OWN).returncode == 0
    assert gate.run("explain", *config, "--client", "app", "--tenant", FOREIGN).returncode == 3
    gate.run("explain", *config, "--client", "app", "--tenant", NO_CODE)
    assert gate.run("validate", *config).returncode == 0
    assert gate.run("lookup", "test", *config, "--client", "app").returncode == 0
    HostileProvider.answers = {"lookup": LOOKUP_FAULTS["error body"]}
    assert gate.run("lookup", "test", *config, "--client", "app").returncode == 1
    HostileProvider.answers = {}


def broken_files(gate):
    """Files that somebody has got wrong, with a secret where the mistake is or beside it."""
    registry = (gate.work / "clients.yaml").read_text()
    client = "  - id: other\n    tenants: [{}]\n    credentials: [{{ digest: \"{}\" }}]\n{}"
    digest = "sha256:" + hashlib.sha256(b"x").hexdigest()
    changed = lambda change: yaml.safe_dump({**gate.config, **change})
    pem = next((gate.work / "keys").glob("*")).read_text()
    return {
        "a secret where its digest belongs": ("clients.yaml", registry + client.format(OWN, WRONG_SECRET, "")),
        "a secret under a name of its own": ("clients.yaml", registry + client.format(OWN, digest, f"    secret: {WRONG_SECRET}\n")),
        "a bad tenant code": ("clients.yaml", registry + client.format(NO_CODE, digest, "")),
        "a tenant twice": ("clients.yaml", registry + client.format(f"{OWN}, {OWN}", digest, f"    status: {WRONG_SECRET}\n")),
        "codes as one text": ("clients.yaml", registry + f"  - id: other\n    tenants: {OWN}\n"),
        "a syntax error after codes": ("clients.yaml", registry + client.format(OWN, WRONG_SECRET, f"   x: [{FOREIGN}\n")),
        "a code as key": ("clients.yaml", registry + f"  - id: other\n    {OWN}: {WRONG_SECRET}: x\n"),
        "an unknown escape": ("clients.yaml", registry + f'  - id: "\\q{OWN}"\n'),
        "a digest key that is none": ("secrets/tenant-digest.key", WRONG_SECRET),
        "a digest key of the wrong length": ("secrets/tenant-digest.key", (gate.work / "secrets/tenant-digest.key").read_text()[:-5]),
        "a callout secret of two lines": ("secrets/lookup-client", f"{CALLOUT_SECRET}\n{WRONG_SECRET}"),
        "a header of two lines": ("secrets/header", f"{HEADER_SECRET}\n{WRONG_SECRET}\x01"),
        "a secret in the config": ("tenantgate.yaml", changed({"client_secret": WRONG_SECRET})),
        "a header in the config": (
            "tenantgate.yaml",
            changed({"tenants": {"lookup": {**gate.config["tenants"]["lookup"], "headers": [{"name": "x-s", "value": HEADER_SECRET + "\n\x01"}]}}}),
        ),
        "a URL with a password": (
            "tenantgate.yaml",
            changed({"tenants": {"lookup": {**gate.config["tenants"]["lookup"], "url": f"http://u:{WRONG_SECRET}@h/"}}}),
        ),
        "a truncated signing key": (f"keys/{next((gate.work / 'keys').glob('*')).name}", pem[: len(pem) // 2]),
    }


def drive_broken_files(gate):
    for what, (name, text) in broken_files(gate).items():
        file = gate.work / name
        good = file.read_text()
        file.write_text(text)
        gate.run("validate", "--config", gate.work / "tenantgate.yaml")
        gate.run("explain", "--config", gate.work / "tenantgate.yaml", "--path", f"/api/{OWN}/report")
        gate.reload()
        gate.admin("/readyz?verbose")
        file.write_text(good)
    gate.reload()


def test_no_canary_leaves_the_house(gate):
    token = gate.mint().json()["access_token"]
    time.sleep(1.5)  # grants are refreshed once
    drive_checks(gate, token)
    drive_mints(gate)
    drive_faults(gate)
    drive_commands(gate, token)
    drive_broken_files(gate)
    for path in ("/metrics", "/readyz", "/readyz?verbose", "/livez"):
        gate.admin(path)
    assert gate.process.stop() == 0
    gate.hear("the log", gate.logs())

    for where in ("the log", "check replies", "token errors", "explain", "validate", "lookup", "/metrics", "/readyz?verbose"):
        assert len(gate.said[where]) > 20, f"{where}: nothing was heard"
    assert '"DEBUG"' in gate.said["the log"], "the level is low"
    found = {
        f"{canary} in {where}: {line.strip()[:300]}"
        for where, text in gate.said.items()
        for canary in gate.canaries
        for form in in_all_forms(canary)
        if form in text
        for line in text.splitlines()
        if form in line
    }
    assert not found, "\n".join(sorted(found))


def test_the_search_finds_a_canary_in_any_form():
    """Otherwise the test above could hold for the wrong reason."""
    data = b"ab" + OWN.encode() + b"cd"
    for text in (data.decode(), data.hex(), *(base64.b64encode(b"x" * n + data).decode() for n in range(3))):
        assert any(form in text for form in in_all_forms(OWN)), text
    assert not any(form in base64.b64encode(FOREIGN.encode()).decode() for form in in_all_forms(OWN))
