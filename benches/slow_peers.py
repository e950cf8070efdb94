#!/usr/bin/env python3
"""Checks a second with and without 200 slow connections on the token and admin listeners, in turn.

`benches/slow_peers.py [BINARY]`; needs h2load (Debian's nghttp2-client). Loopback only, bounded, a minute at most.
"""

import base64
import json
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROUNDS = 7
CHECKS = 6000
CONFIG = """
listen: { check: 127.0.0.1:0, token: 127.0.0.1:0, admin: 127.0.0.1:0 }
issuer: { url: https://a.example, audience: https://a.example, signing_keys: keys, tenant_claim: { key_file: digest.key } }
clients: { file: clients.yaml }
apis: [{ name: oda, routes: [{ path: "/api/{tenant}/**", methods: [GET] }] }]
"""


def main():
    binary = Path(sys.argv[1] if len(sys.argv) > 1 else "target/release/tenantgate").resolve()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tenantgate.yaml").write_text(CONFIG)

        def run(*args):
            return subprocess.run([binary, *args], cwd=folder, check=True, capture_output=True, text=True).stdout

        run("keys", "generate", "--dir", "keys")
        run("keys", "digest", "--out", "digest.key")
        client = json.loads(run("clients", "add", "--file", "clients.yaml", "--id", "a", "--tenant", "T1", "--output", "json"))
        serve = [binary, "--log-level", "error", "serve", "--config", "tenantgate.yaml", "--ports-file", "ports.json"]
        with subprocess.Popen(serve, cwd=folder) as server:
            try:
                compare(Path(folder), client)
            finally:
                server.terminate()


def compare(folder, client):
    ports = folder / "ports.json"
    while not ports.exists():
        time.sleep(0.05)
    listeners = json.loads(ports.read_text())
    body = folder / "check.bin"
    body.write_bytes(check_request(token(listeners["token"], client)))
    load(listeners["check"], body)
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(load(listeners["check"], body))
        slow = [connect(listeners["token"]) for _ in range(150)] + [connect(listeners["admin"]) for _ in range(50)]
        beside.append(load(listeners["check"], body))
        for connection in slow:
            connection.close()
    for name, rates in (("alone", alone), ("beside 200 slow connections", beside)):
        print(f"{name}: {statistics.median(rates):.0f} checks/s ({min(rates):.0f} to {max(rates):.0f})")
    print(f"ratio of medians: {statistics.median(beside) / statistics.median(alone):.3f}")


def token(address, client):
    pair = base64.b64encode(f"{client['client_id']}:{client['client_secret']}".encode()).decode()
    request = urllib.request.Request(
        f"http://{address}/oauth2/token", b"grant_type=client_credentials", {"Authorization": f"Basic {pair}"}
    )
    return json.load(urllib.request.urlopen(request))["access_token"]


def connect(address):
    """A connection that never finishes its head."""
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(b"POST /oauth2/token HTTP/1.1\r\nhost: a\r\nx: ")
    return connection


def load(address, body):
    url = f"http://{address}/envoy.service.auth.v3.Authorization/Check"
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command = ["h2load", "-n", str(CHECKS), "-c", "1", "-m", "4", "-d", str(body), *headers, url]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"{CHECKS} succeeded" in report, report
    return float(re.search(r"finished in \S+ ([\d.]+) req/s", report).group(1))


def check_request(bearer):
    def varint(number):
        return bytes([number & 0x7F | 0x80]) + varint(number >> 7) if number > 0x7F else bytes([number])

    def field(number, content):
        return varint(number << 3 | 2) + varint(len(content)) + content

    header = field(1, b"authorization") + field(2, b"Bearer " + bearer.encode())
    http = field(2, b"GET") + field(3, header) + field(4, b"/api/T1/report")
    message = field(1, field(4, field(2, http)))
    return b"\0" + struct.pack(">I", len(message)) + message


if __name__ == "__main__":
    main()
