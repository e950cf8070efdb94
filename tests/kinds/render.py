"""Renders every variant of the chart into a folder, a file each, for the test beside this file."""

import sys
from pathlib import Path

import helm_python as helm
import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy/chart/tenantgate"
CUSTOM = {"ServiceMonitor", "PodMonitor", "Certificate"}

target = Path(sys.argv[1])
target.mkdir(parents=True, exist_ok=True)
for values in sorted(CHART.glob("ci/*-values.yaml")):
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(yaml.safe_load(values.read_text()) or {}, name="tg", namespace="gates")
    docs = [doc for name, text in texts.items() if name.endswith(".yaml") for doc in yaml.safe_load_all(text) if doc]
    custom = [doc for doc in docs if doc["kind"] in CUSTOM]
    (target / values.name).write_text("---\n".join(yaml.safe_dump(doc) for doc in custom))
