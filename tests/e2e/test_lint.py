"""`tenantgate lint` as people run it: on what a running Envoy says of itself, and on the samples that are shipped.

Every single way to spoil a sample is in src/lint/tests; here are the command, its exit codes and its two outputs."""

import json
import re

import pytest
import requests
import stack
import wire
import yaml
from conftest import ROOT
from test_chart import VARIANTS, render
from test_cli import tenantgate
from test_envoy_configs import OURS, manager_of

FOLDERS = [ROOT / "deploy" / name for name in ("envoy-gateway", "istio", "kubernetes")]
LINE = re.compile(r"^(error|warning) \S+: .+, .+; .+$")


def dump_of(envoy, tmp_path):
    answer = requests.get(f"{envoy.admin_url}/config_dump?include_eds", timeout=10)
    assert answer.status_code == 200, answer.text
    file = tmp_path / "config_dump.json"
    file.write_text(answer.text)
    return file


def lint(*arguments):
    """The exit code and the JSON of a lint, which must agree with the lines of the same lint."""
    told, parsed = tenantgate("lint", *arguments), tenantgate("lint", *arguments, "--output", "json")
    report = json.loads(parsed.stdout)
    assert told.returncode == parsed.returncode == (1 if report["errors"] else 0)
    findings = report["findings"]
    lines = [f"{f['severity']} {f['place']}: {f['what']}, {f['why']}; {f['cure']}" for f in findings]
    assert told.stdout.splitlines() == lines
    assert all(LINE.match(line) for line in lines), lines
    for severity in ("error", "warning"):
        assert report[f"{severity}s"] == sum(finding["severity"] == severity for finding in findings)
    assert told.stderr.splitlines()[-1] == f"errors: {report['errors']}, warnings: {report['warnings']}"
    return told.returncode, report


def errors(report):
    return [finding for finding in report["findings"] if finding["severity"] == "error"]


def test_the_config_dump_of_the_running_envoy_has_no_errors(world, tmp_path):
    code, report = lint("envoy", dump_of(world.envoy, tmp_path))
    assert (code, errors(report)) == (0, [])


def filter_of(manager):
    (found,) = (entry for entry in manager["http_filters"] if entry["name"] == "envoy.filters.http.ext_authz")
    return found["typed_config"]


def fail_open(manager):
    filter_of(manager)["failure_mode_allow"] = True
    return "failure_mode_allow"


def refuse_when_in_doubt(manager):
    filter_of(manager)["status_on_error"] = {"code": "Forbidden"}
    return "status_on_error"


def wait_for_long(manager):
    filter_of(manager)["grpc_service"]["timeout"] = "10s"
    return "grpc_service.timeout"


def keep_slashes(manager):
    manager["merge_slashes"] = False
    return "merge_slashes"


def keep_escaped_slashes(manager):
    manager["path_with_escaped_slashes_action"] = "KEEP_UNCHANGED"
    return "path_with_escaped_slashes_action"


MUTATIONS = [fail_open, refuse_when_in_doubt, wait_for_long, keep_slashes, keep_escaped_slashes]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_spoilt_envoy_is_found_by_its_own_config_dump(world, tmp_path, mutate):
    """Envoy leaves defaults out of its dump and writes durations and enums in its own way."""
    config = yaml.safe_load(stack.ENVOY_CONFIG.read_text())
    place = mutate(manager_of(config))
    envoy = world.start_envoy(config, f"lint-{mutate.__name__}")
    try:
        code, report = lint("envoy", dump_of(envoy, tmp_path))
    finally:
        envoy.stop()
    assert code == 1
    assert [place in finding["place"] for finding in errors(report)] == [True], report


@pytest.mark.parametrize("sample", OURS, ids=lambda sample: sample.name)
def test_the_samples_of_envoy_have_no_errors(sample):
    code, report = lint("envoy", sample)
    assert (code, errors(report)) == (0, [])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_samples_of_kubernetes_have_no_errors(folder):
    files = sorted(folder.glob("*.yaml"))
    assert files
    code, report = lint("kubernetes", *files)
    assert (code, errors(report)) == (0, [])


def test_the_samples_of_the_module_have_no_findings():
    folder = ROOT / "deploy/in-process"
    assert lint("envoy", folder / "envoy.yaml")[1]["findings"] == []
    assert lint("kubernetes", folder / "envoyextensionpolicy.yaml")[1]["findings"] == []


def test_what_the_chart_makes_has_no_errors(tmp_path):
    for name, values in VARIANTS.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all(render(values).values()))
        code, report = lint("kubernetes", file)
        assert (code, errors(report)) == (0, []), name


def test_resources_are_read_together(tmp_path):
    """A policy that names a part of a route: the parts are in another file."""
    folder = ROOT / "deploy/envoy-gateway"
    policy = tmp_path / "securitypolicy.yaml"
    policy.write_text((folder / "securitypolicy.yaml").read_text().replace("sectionName: api", "sectionName: apis"))
    assert lint("kubernetes", policy)[0] == 0
    code, report = lint("kubernetes", policy, folder / "httproute.yaml")
    assert code == 1
    assert any("sectionName" in finding["place"] for finding in errors(report)), report


@pytest.mark.parametrize("kind", ["envoy", "kubernetes"])
@pytest.mark.parametrize("text", [None, "{", "hello: world\n"], ids=["missing", "broken", "other"])
def test_what_cannot_be_read_is_an_error_that_names_the_file(tmp_path, kind, text):
    file = tmp_path / "given.yaml"
    if text is not None:
        file.write_text(text)
    done = tenantgate("lint", kind, file)
    assert (done.returncode, done.stdout) == (1, "")
    assert str(file) in done.stderr


def test_a_lint_of_nothing_is_a_mistake_of_usage():
    done = tenantgate("lint", "kubernetes")
    assert done.returncode == 2
    assert "<FILE>" in done.stderr


def test_a_running_tenantgate_notices_what_its_gateway_sends(own_world):
    """From the first checks of a connection, with the real Envoy: as shipped nothing, otherwise one warning each."""
    findings = lambda world: {
        name
        for name, value in re.findall(
            r'^tenantgate_pairing_findings\{finding="(\w+)"\} (\d)',
            requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).text,
            re.MULTILINE,
        )
        if value == "1"
    }
    fresh = own_world(clients=["app-1"])
    assert fresh.get("/api/T1/", fresh.token(fresh.client("T1"))).status_code == 200
    assert findings(fresh) == set()
    config = yaml.safe_load(stack.ENVOY_CONFIG.read_text())
    manager = manager_of(config)
    manager |= {"normalize_path": False, "merge_slashes": False, "path_with_escaped_slashes_action": "KEEP_UNCHANGED"}
    (check,) = [f["typed_config"] for f in manager["http_filters"] if f["name"] == "envoy.filters.http.ext_authz"]
    check["with_request_body"] = {"max_request_bytes": 1024, "allow_partial_message": True}
    check["grpc_service"]["timeout"] = "10s"
    del check["allowed_headers"]
    envoy = fresh.start_envoy(config, "careless")
    wire.http1(envoy.address, "/api//T1", [("cookie", "a=b")])
    requests.post(f"{envoy.url}/api/T1/", data="x", timeout=10)
    wanted = {"path", "body", "all_headers", "timeout_long"}
    stack.wait_until("the findings", lambda: findings(fresh) == wanted, fresh.tenantgate)
    lines = [line for line in fresh.tenantgate.log.read_text().splitlines() if "not set up as it should be" in line]
    assert len(lines) == len(wanted), "once each"
