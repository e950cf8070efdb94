"""deploy/monitoring, with the real Prometheus: the rules fire where they have to, and every query of rules and dashboard
means something for a process that runs."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import stack
import yaml

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy/monitoring"
TOOLS = ROOT / ".tools/prometheus/usr/bin"
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())


def tool(name):
    return shutil.which(name) or (str(TOOLS / name) if (TOOLS / name).exists() else None)


needs_prometheus = pytest.mark.skipif(
    not (tool("prometheus") and tool("promtool")), reason="no Prometheus; `make prometheus` brings it where apt is"
)


def queries():
    """Every query by a name: rules, and panels with the variables that Grafana would fill in."""
    found = {rule.get("alert") or rule["record"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m")
            found[f"{panel['title']} {target['legendFormat']}"] = expression
    return found


def promtool(*argv):
    return subprocess.run([tool("promtool"), *map(str, argv)], capture_output=True, text=True, timeout=60)


def test_the_dashboard_is_the_one_that_its_script_writes():
    written = subprocess.run([sys.executable, MONITORING / "dashboard.py", "-"], capture_output=True, text=True, timeout=60)
    assert json.loads(written.stdout) == DASHBOARD


def test_every_alert_has_its_section():
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for alert in ALERTS:
        assert alert["annotations"]["runbook_url"].partition("#")[2] in anchors, alert["alert"]
    tested = (MONITORING / "rules_test.yaml").read_text()
    assert not [alert["alert"] for alert in ALERTS if f"alertname: {alert['alert']}\n" not in tested]


@needs_prometheus
def test_each_alert_fires_and_does_not(tmp_path):
    (tmp_path / "rules-spec.yaml").write_text(yaml.safe_dump(RULES))
    shutil.copy(MONITORING / "rules_test.yaml", tmp_path)
    for arguments in (["check", "rules", tmp_path / "rules-spec.yaml"], ["test", "rules", tmp_path / "rules_test.yaml"]):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_the_metrics_follow_the_conventions(world):
    text = requests.get(f"{world.tenantgate.admin_url}/metrics", timeout=5).content
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


class Prometheus(stack.Process):
    def __init__(self, work, target):
        self.work = work
        config = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "250ms"},
            "scrape_configs": [{"job_name": "tenantgate", "static_configs": [{"targets": [target]}]}],
        }
        (work / "prometheus.yml").write_text(yaml.safe_dump(config))
        with stack.socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        argv = [tool("prometheus"), f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data"]
        argv += [f"--web.listen-address={self.url.removeprefix('http://')}"]
        super().__init__("Prometheus", argv, work / "prometheus.log")

    def wait_ready(self):
        stack.wait_until("starting Prometheus", lambda: requests.get(f"{self.url}/-/ready", timeout=5).ok, self)

    def ask(self, query):
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10).json()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]["result"]


@needs_prometheus
def test_every_query_is_about_metrics_that_a_running_process_has(world, children, tmp_path):
    """No panel that stays empty for a typo: each metric name of each query has samples."""
    prometheus = children.start(Prometheus, tmp_path, world.tenantgate.admin_url.removeprefix("http://"))
    client = world.client("T1001")
    token = world.token(client)
    for _ in range(3):
        world.get("/api/T1001/", token)
        world.get("/api/T2002/", token)
    name = "tenantgate_lookups_total"
    stack.wait_until("two scrapes", lambda: len(prometheus.ask(f"{name}[1m]") and
                     prometheus.ask(f"{name}[1m]")[0]["values"]) > 2, prometheus)
    known = set(requests.get(f"{prometheus.url}/api/v1/label/__name__/values", timeout=10).json()["data"])
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    for title, query in queries().items():
        prometheus.ask(query)
        names = set(re.findall(r"\b(?:tenantgate|process)_[a-z_]+\b(?!:)", re.sub(r'"[^"]*"', "", query)))
        missing = {n for n in names if n not in known and not any(n in r for r in recorded)}
        assert not missing - OPTIONAL, (title, missing)


# There only where the config has what they are about.
OPTIONAL = {
    "tenantgate_certificate_expiry_timestamp_seconds",
    "tenantgate_shadow_mode",
    "tenantgate_state_age_seconds",
    "tenantgate_token_throttled_total",
    "tenantgate_jwks_last_success_timestamp_seconds",
}
