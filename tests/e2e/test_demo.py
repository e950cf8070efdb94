"""`make run` and `make demo`, on ports chosen by the system."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import demo
import pytest
import stack
from conftest import ROOT, bin_dir

DEMO = [sys.executable, ROOT / "examples/demo/demo.py"]


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def alive(pid):
    return Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_the_story_goes_as_told(tmp_path):
    argv = [*DEMO, "play", "--bin-dir", bin_dir(), "--any-ports", tmp_path / "demo"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 15 steps went as told." in done.stdout


@pytest.fixture
def running(tmp_path):
    argv = [*DEMO, "run", "--bin-dir", bin_dir(), "--any-ports", tmp_path / "run"]
    # As a shell starts a background job: with SIGINT ignored.
    ignore_sigint = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=ignore_sigint)
    shown = ""
    while shown.count("# ") < 7 or line != "\n":
        line = process.stdout.readline()
        assert line, process.stderr.read()
        shown += line
    yield process, shown
    process.kill()
    process.wait()


def paste(lines):
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return re.findall(r"^HTTP/1.1 (\d+)", done.stdout, re.MULTILINE)


def test_the_lines_to_paste_do_what_they_say(running):
    assert shutil.which("curl"), "curl is missing: apt install curl"
    lines = running[1].split("another terminal:")[1]
    # A token, two calls; a grant, another token, a call; a withdrawal that is told, a call; one that is not, a call.
    assert paste(lines) == ["200", "403", "200", "200", "403", "403"]


def test_a_mint_that_fails_is_seen(running):
    lines = re.sub(r"(-u '[^:]+:)[^']+'", r"\1wrong'", running[1].split("another terminal:")[1].split("# The report")[0])
    done = subprocess.run(["bash", "-c", lines + "\necho token: $TOKEN."], capture_output=True, text=True, timeout=30)
    assert "invalid_client" in done.stderr
    assert done.stdout == "token: .\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing_running(running, number):
    process, _ = running
    children = children_of(process.pid)
    assert len(children) == 3
    process.send_signal(number)
    assert process.wait(35) == 0
    assert not any(alive(pid) for pid in children)


def test_a_dead_part_ends_it_with_its_name_and_leaves_nothing_running(running):
    process, _ = running
    children = children_of(process.pid)
    os.kill(int(children[1]), signal.SIGKILL)
    assert process.wait(35) == 1
    assert "tenantgate ended with exit code -9" in process.stderr.read()
    assert not any(alive(pid) for pid in children)


def test_what_runs_already_keeps_its_files(tmp_path, monkeypatch):
    """`make demo` beside `make run`: the second one finds the ports taken."""
    kept = tmp_path / "tenantgate.yaml"
    kept.write_text("in use")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(demo, "PROVIDER", "127.0.0.1:{}".format(taken.getsockname()[1]))
        with pytest.raises(stack.Failure, match="is in use"), demo.running(tmp_path, bin_dir(), any_ports=False):
            pass
    assert kept.read_text() == "in use"


def test_a_port_in_use_is_named_with_its_owner():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:{}".format(taken.getsockname()[1])
        with pytest.raises(stack.Failure, match=f"^{address} is in use, Envoy needs it; "):
            stack.require_free(address, "Envoy")
    stack.require_free(address, "Envoy")


def make(target, tools, tmp_path):
    """Runs make where only these tools are to be found."""
    for tool in tools:
        (tmp_path / tool).symlink_to(shutil.which(tool))
    argv = [shutil.which("make"), "--no-print-directory", "-C", ROOT, target]
    return subprocess.run(argv, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("target", ["run", "demo", "test"])
def test_make_says_that_cargo_is_missing(target, tmp_path):
    done = make(target, ["bash", "sh"], tmp_path)
    assert done.returncode != 0
    assert "cargo not found: install Rust from https://rustup.rs" in done.stderr


def test_make_says_that_python_is_missing(tmp_path):
    done = make("need-python", ["bash", "sh"], tmp_path)
    assert done.returncode != 0
    assert "python3 not found" in done.stderr
