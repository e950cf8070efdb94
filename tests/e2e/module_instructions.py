"""Instructions that Envoy spends on a request: without a filter, with jwt_authn and its token cache, and with the
module, and how many of them are the module's hook. Times are noisy on shared machines; instructions are not.

`make module build`, then in `tests/e2e`: `../../.tools/venv/bin/python module_instructions.py` (needs valgrind).
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import requests
from conftest import ROOT  # also puts the stack's folder on the path

import stack  # isort: skip
import test_module
from feeding import FedWorld, status
from replies import REPORT
from test_module import http_filters

WARM_UP, REQUESTS = 300, 2000
HOOK = "envoy_dynamic_module_on_http_filter_request_headers"
# Valgrind knows no SHA instructions of the CPU, so these would be far more than they are.
LEFT_OUT = "sha256_block_data_order"


def main():
    if not shutil.which("valgrind"):
        sys.exit("valgrind not found: install it (Debian, Ubuntu: apt install valgrind)")
    test_module.LIBRARY = ROOT / "target/release/libtenantgate_module.so"
    envoy = stack.envoy_binary()
    with tempfile.TemporaryDirectory() as work, stack.Children() as children:
        work = Path(work)
        world = FedWorld(children, work)
        wrapper = work / "envoy-under-valgrind"
        wrapper.write_text(
            f"#!/bin/sh\nexec valgrind --quiet --tool=callgrind --callgrind-out-file={work}/out.%p '{envoy}' \"$@\"\n"
        )
        wrapper.chmod(0o700)
        stack.envoy_binary = lambda: str(wrapper)
        stack.wait_until.__defaults__ = (300,)  # under valgrind everything takes fifty times as long
        client = world.client("T1")
        keys = requests.get(f"{world.tenantgate.token_url}/oauth2/jwks", timeout=5).text
        changes = {
            "no filter": without_module,
            "jwt_authn, token cache": lambda config: jwt_authn_instead(config, world, keys),
            "tenantgate, module": lambda config: None,
        }
        base = None
        for name, change in changes.items():
            whole, hook = measure(world, name, change, client)
            base = base or whole
            print(f"{name}: {whole:.0f} instructions a request ({whole / base:.3f} of no filter), {hook:.0f} in the hook")


def measure(world, name, change, client):
    file_name = re.sub(r"\W+", "-", name)
    envoy = world.inside(file_name, change, wait=False)
    pid = envoy.child.pid
    path, token = REPORT.format("T1"), world.token(client)
    stack.wait_until("a first answer", lambda: status(envoy, path, token) == 200, envoy)
    with requests.Session() as session:
        headers = {"Authorization": f"Bearer {world.token(client)}"}

        def ask(times):
            for _ in range(times):
                assert session.get(envoy.url + path, headers=headers, timeout=30).status_code == 200

        ask(WARM_UP)
        control("--zero", pid)
        ask(REQUESTS)
        control("--dump", pid)
    (out,) = world.work.glob(f"out.{pid}.1")
    own, inclusive = annotated(out), annotated(out, "--inclusive=yes")
    left_out = sum(count for function, count in own if LEFT_OUT in function)
    hook = sum(count for function, count in inclusive if HOOK in function)
    total = next(count for function, count in own if "PROGRAM TOTALS" in function)
    envoy.stop()
    return (total - left_out) / REQUESTS, max(hook - left_out, 0) / REQUESTS


def control(what, pid):
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True, timeout=60)


def annotated(out, *options):
    text = subprocess.run(
        ["callgrind_annotate", "--threshold=100", "--auto=no", *options, out], check=True, capture_output=True, text=True
    ).stdout
    rows = re.findall(r"^\s*([\d,]+)\s+\([^)]*\)\s+(.*)$", text, re.MULTILINE)
    return [(function, int(count.replace(",", ""))) for count, function in rows]


def without_module(config):
    filters = http_filters(config)
    filters[:] = [entry for entry in filters if entry["name"] != "tenantgate"]


def jwt_authn_instead(config, world, keys):
    filters = http_filters(config)
    (at,) = [at for at, entry in enumerate(filters) if entry["name"] == "tenantgate"]
    issuer = world.config["issuer"]
    provider = {
        "issuer": issuer["url"],
        "audiences": [issuer["audience"]],
        "local_jwks": {"inline_string": keys},
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    filters[at] = {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"own": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "own"}}],
        },
    }


if __name__ == "__main__":
    main()
