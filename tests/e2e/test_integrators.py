"""The programs of docs/integrators.md, as they are printed there, against the real thing."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT
from replies import REPORT

PROGRAMS = {
    "curl": ("run.sh", ["bash", "run.sh"], ["bash", "curl"]),
    "python": ("gateway.py", [".tools/venv/bin/python", "gateway.py"], []),
    "go": ("main.go", ["go", "run", "main.go"], ["go"]),
    "node": ("gateway.mjs", ["node", "gateway.mjs"], ["node"]),
    "java": ("Gateway.java", ["java", "Gateway.java"], ["java"]),
}


def program(name):
    page = (ROOT / "docs/integrators.md").read_text()
    found = [block for block in re.findall(r"^```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if marked(block, name)]
    assert len(found) == 1, f"{len(found)} blocks are marked `integrators: {name}`"
    return found[0]


def marked(block, name):
    return re.match(rf"(#|//) integrators: {name}\n", block)


@pytest.fixture
def run(tmp_path, world):
    def run(name, client, tenant, secret=None):
        file, argv, needed = PROGRAMS[name]
        for tool in needed:
            if not shutil.which(tool):
                pytest.skip(f"NOT TESTED: no {tool} here")
        (tmp_path / file).write_text(program(name))
        argv = [str(ROOT / argv[0]) if "/" in argv[0] else argv[0], *argv[1:]]
        asked = {
            "TOKEN_URL": f"{world.url}/oauth2/token",
            "REPORT_URL": world.url + REPORT.format(tenant),
            "CLIENT_ID": client.id,
            "CLIENT_SECRET": secret or client.secret,
        }
        return subprocess.run(argv, cwd=tmp_path, env=os.environ | asked, capture_output=True, text=True, timeout=120)

    return run


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_gets_the_report_and_is_refused_another_tenant_s(name, run, world):
    client = world.client("T1001")
    for tenant, status in (("T1001", "200"), ("T2002", "403")):
        done = run(name, client, tenant)
        assert (done.returncode, done.stdout.strip()) == (0, status), done.stderr


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"curl"}))
def test_each_program_says_why_there_is_no_token(name, run, world):
    done = run(name, world.client("T1001"), "T1001", secret="wrong")
    assert done.returncode != 0
    assert "no token: 401" in done.stderr and "invalid_client" in done.stderr
