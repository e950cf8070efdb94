"""Writes dashboard.json beside this file: a Grafana dashboard, one panel a question. A test holds the two together and
asks a real Prometheus every query."""

import json
import sys
from pathlib import Path

RATE = "$__rate_interval"


def quantiles(histogram):
    return [(f"p{q}", f"histogram_quantile(0.{q}, sum by (le) (rate({histogram}_bucket[{RATE}])))") for q in (50, 99)]


# (title, unit, description, [(legend, query)])
ROWS = {
    "Requests": [
        ("Decisions", "reqps", "What became of the requests that Envoy asked about.",
         [("{{reason}}", f"sum by (reason) (rate(tenantgate_decisions_total[{RATE}]))")]),
        ("Cannot decide", "percentunit", "The share of requests that got 503.",
         [("503", 'sum(rate(tenantgate_decisions_total{reason=~"keys_unavailable|grants_stale|state_unavailable|'
           f'internal_error"}}[{RATE}])) / sum(rate(tenantgate_decisions_total[{RATE}]))')]),
        ("Time of a decision", "s", "Without gRPC.",
         quantiles("tenantgate_decision_duration_seconds")),
        ("Let pass in shadow mode", "reqps", "What would have been denied.",
         [("{{api}} {{reason}}", f"sum by (api, reason) (rate(tenantgate_shadow_denials_total[{RATE}]))")]),
    ],
    "Tokens": [
        ("Token requests", "reqps", "`issued`, or the OAuth error.",
         [("{{outcome}}", f"sum by (outcome) (rate(tenantgate_token_requests_total[{RATE}]))")]),
        ("Throttled", "reqps", "Token requests refused for too many failures.",
         [("{{limit}}", f"sum by (limit) (rate(tenantgate_token_throttled_total[{RATE}]))")]),
        ("Age of the signing key", "s", "Rotate it before your policy says that it is old.",
         [("{{instance}}", "time() - tenantgate_signing_key_created_timestamp_seconds")]),
    ],
    "Lookups": [
        ("Lookups", "reqps", "`granted`, `denied`, or why there was no answer.",
         [("{{outcome}}", f"sum by (outcome) (rate(tenantgate_lookups_total[{RATE}]))")]),
        ("Time of a lookup", "s", "With all its tries.",
         quantiles("tenantgate_lookup_duration_seconds")),
        ("The callout's token", "s", "How long the token that lookups authenticate with is still good.",
         [("{{instance}}", "tenantgate_callout_token_expiry_timestamp_seconds - time()")]),
        ("Load of the refresh", "percentunit", "The share of its time that the refresh of active clients takes.",
         [("{{instance}}", "tenantgate_refresh_load_ratio")]),
        ("Lost grants", "cps", "Tenants that clients had and have no more.",
         [("{{instance}}", f"rate(tenantgate_grants_lost_total[{RATE}])")]),
        ("Caches", "short", "Entries.",
         [("{{cache}}", "sum by (cache) (tenantgate_cache_entries)")]),
    ],
    "Process": [
        ("Sources", "short", "1: read and in force. 0: broken, its last good value is in force.",
         [("{{source}} {{instance}}", "tenantgate_source_ok")]),
        ("Memory", "bytes", "Resident.", [("{{instance}}", 'process_resident_memory_bytes{job=~".*tenantgate.*"}')]),
        ("CPU", "percentunit", "Of one core.",
         [("{{instance}}", f'rate(process_cpu_seconds_total{{job=~".*tenantgate.*"}}[{RATE}])')]),
        ("Connections", "short", "By listener.", [("{{listener}} {{instance}}", "tenantgate_connections")]),
        ("Clients", "short", "Registered.", [("{{instance}}", "tenantgate_clients")]),
    ],
}


def dashboard():
    panels, y = [], 0
    for row, contents in ROWS.items():
        panels.append({"type": "row", "title": row, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": []})
        y += 1
        for index, (title, unit, description, targets) in enumerate(contents):
            panels.append({
                "type": "timeseries", "title": title, "description": description,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": 8, "w": 12, "x": 12 * (index % 2), "y": y + 8 * (index // 2)},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
                "targets": [{"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend}
                            for number, (legend, query) in enumerate(targets)],
            })
        y += 8 * ((len(contents) + 1) // 2)
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "title": "tenantgate", "uid": "tenantgate", "tags": ["tenantgate", "envoy"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        ]},
        "panels": panels,
    }


if __name__ == "__main__":
    text = json.dumps(dashboard(), indent=2) + "\n"
    sys.stdout.write(text) if sys.argv[1:] == ["-"] else Path(__file__).with_name("dashboard.json").write_text(text)
