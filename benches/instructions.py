#!/usr/bin/env python3
"""Counts the instructions of one warm check and fails when they rise by over 5 % against instructions.json.

Times are noisy on shared machines; instructions are not. A rise that is meant is recorded anew with
`benches/instructions.py --record`, and so is the figure after a change of toolchain.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECORD = HERE / "instructions.json"
TOLERANCE = 0.05
OPTIMISED = ("opt-level=2", "codegen-units=16", "debug-assertions=false", "overflow-checks=false")
CHECKS = 1000
# Valgrind knows no SHA instructions of the CPU, so these would be two thirds of all and hide a rise of the rest.
LEFT_OUT = "sha256_block_data_order"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write instructions.json instead of comparing")
    record = parser.parse_args().record

    program = build()
    figure = count(program) / CHECKS
    now = {"instructions_per_check": round(figure), **toolchain()}
    if record:
        RECORD.write_text(json.dumps(now, indent=2) + "\n")
        print(f"recorded: {now['instructions_per_check']} instructions a warm check")
        return 0
    return compare(now, json.loads(RECORD.read_text()))


def compare(now, recorded):
    if now["architecture"] != recorded["architecture"]:
        print(f"not compared: recorded on {recorded['architecture']}, this is {now['architecture']}")
        return 0
    change = now["instructions_per_check"] / recorded["instructions_per_check"] - 1
    print(
        f"{now['instructions_per_check']} instructions a warm check, "
        f"recorded {recorded['instructions_per_check']} ({change:+.1%})"
    )
    for part in ("rustc", "valgrind"):
        if now[part] != recorded[part]:
            print(f"note: recorded with {recorded[part]}, this is {now[part]}")
    if change <= TOLERANCE:
        return 0
    print(f"that is over {TOLERANCE:.0%} more: find out why, or record it: benches/instructions.py --record")
    return 1


def build():
    """The dev build, with our own code optimised: CI has compiled everything else for that already, or is about to."""
    command = "cargo build --locked --bench instructions --message-format=json-render-diagnostics".split()
    for setting in OPTIMISED:
        command += ["--config", f"profile.dev.package.tenantgate.{setting}"]
    lines = output(command, cwd=HERE.parent).splitlines()
    # Cargo builds the server too, in whatever order.
    built = [message for message in map(json.loads, lines) if message.get("executable")]
    (program,) = (message["executable"] for message in built if message["target"]["name"] == "instructions")
    return program


def count(program):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        options = ["--quiet", "--tool=callgrind", "--toggle-collect=*counted_checks*", f"--callgrind-out-file={out}"]
        output(["valgrind", *options, program, str(CHECKS)])
        costs = self_costs(out.read_text().splitlines())
        return sum(cost for function, cost in costs if LEFT_OUT not in function)


def self_costs(lines):
    """Pairs of a function and instructions of its own, from callgrind's format (its manual, "Callgrind Format")."""
    names, function, of_a_call = {}, "", False
    for line in lines:
        if named := re.match(r"fn=\((\d+)\)(?: (.*))?", line):
            number, name = named.groups()
            function = names.setdefault(number, name)
        elif named := re.match(r"cfn=\((\d+)\) (.*)", line):
            names.setdefault(*named.groups())
        elif line.startswith("calls="):
            # The next line is what the called function cost, which is counted there.
            of_a_call = True
        elif re.match(r"[+*\d-]", line):
            if not of_a_call:
                yield function, int(line.split()[-1])
            of_a_call = False


def toolchain():
    return {
        "architecture": platform.machine(),
        "rustc": output(["rustc", "--version"]).strip(),
        "valgrind": output(["valgrind", "--version"]).strip(),
    }


def output(command, **how):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **how).stdout


if __name__ == "__main__":
    sys.exit(main())
