"""Write the Grafana dashboard: `python dashboard.py > dashboard.json`, in this folder.

Each row of the dashboard is a list of panels, each panel a title, a unit and its queries with their legends.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

Queries = Mapping[str, str]
"""PromQL by legend."""

JOB: Final = 'job="todoku"'
WIDTH: Final = 24
HEIGHT: Final = 7


def rate(metric: str, *by: str, **labels: str) -> str:
    """Return the rate of a counter per second, summed by labels."""
    found = ", ".join([JOB, *(f'{name}="{value}"' for name, value in labels.items())])
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate({metric}{{{found}}}[$__rate_interval]))"


def largest(metric: str, *by: str) -> str:
    """Return the largest value of a gauge, by labels: replicas show the same rows."""
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"max{grouped} ({metric}{{{JOB}}})"


def quantile(share: float, metric: str, *by: str) -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', 'le', *by)})"


ROWS: Final[Mapping[str, Sequence[tuple[str, str, Queries]]]] = {
    "Objectives (share of errors in an hour)": [
        (
            "Errors against the objectives",
            "percentunit",
            {
                slo: f"todoku:{slo}_errors:ratio_rate1h"
                for slo in ("acceptance", "freshness", "completeness", "correctness")
            },
        ),
        (
            "Orders a second",
            "ops",
            {
                "accepted": rate("todoku_orders_accepted_total"),
                "{{status}}": rate("todoku_order_duration_seconds_count", "status"),
            },
        ),
        (
            "Time to the end",
            "s",
            {
                "p50": quantile(0.5, "todoku_order_duration_seconds"),
                "p95": quantile(0.95, "todoku_order_duration_seconds"),
            },
        ),
    ],
    "Orders that have not ended": [
        ("Open", "short", {"{{status}}": largest("todoku_orders_open", "status")}),
        (
            "Age of the oldest",
            "s",
            {"{{status}}": largest("todoku_orders_oldest_open_seconds", "status")},
        ),
        (
            "Need attention",
            "short",
            {
                "overdue": largest("todoku_orders_overdue"),
                "held": largest("todoku_orders_held"),
                "parked at {{instance}}": largest("todoku_dead_letters_parked", "instance"),
            },
        ),
    ],
    "Carrier": [
        ("Calls a second", "ops", {"{{answer}}": rate("todoku_carrier_calls_total", "answer")}),
        (
            "Duration of a call",
            "s",
            {
                "p50": quantile(0.5, "todoku_carrier_call_duration_seconds"),
                "p95": quantile(0.95, "todoku_carrier_call_duration_seconds"),
            },
        ),
        (
            "Shipments",
            "short",
            {
                "{{status}}": largest("todoku_shipments_open", "status"),
                "failing": largest("todoku_shipments_failing"),
            },
        ),
    ],
    "Events between services": [
        (
            "Age of the oldest delivery without a receipt",
            "s",
            {
                "{{instance}} → {{subscriber}}": largest(
                    "todoku_outbox_oldest_pending_seconds", "instance", "subscriber"
                )
            },
        ),
        (
            "Messages before a service",
            "short",
            {"{{instance}}": largest("todoku_stream_lag_messages", "instance")},
        ),
        (
            "Broker",
            "short",
            {
                "connected {{instance}}": largest("todoku_broker_connected", "instance"),
                "unsent {{instance}}": largest("todoku_outbox_unsent_events", "instance"),
            },
        ),
    ],
    "Dead letters and pauses": [
        (
            "By error",
            "short",
            {
                "{{error_class}} ({{error_group}})": largest(
                    "todoku_dead_letter_group_size", "error_class", "error_group"
                )
            },
        ),
        ("Pauses", "short", {"{{instance}}": largest("todoku_pauses", "instance")}),
        (
            "Delay of what is due",
            "s",
            {"{{agenda}}": largest("todoku_due_rows_delay_seconds", "agenda")},
        ),
    ],
    "Processes": [
        (
            "Batches: p95",
            "s",
            {
                "batch {{instance}}": quantile(0.95, "todoku_batch_duration_seconds", "instance"),
                "commit {{instance}}": quantile(
                    0.95, "todoku_database_commit_duration_seconds", "instance"
                ),
            },
        ),
        ("Mailbox", "short", {"{{instance}}": largest("todoku_mailbox_messages", "instance")}),
        (
            "Disk, memory",
            "bytes",
            {
                "free {{instance}}": largest("todoku_disk_free_bytes", "instance"),
                "memory {{instance}}": largest("process_resident_memory_bytes", "instance"),
            },
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(_panel(title, "row", 0, top, WIDTH, 1))
        width = WIDTH // len(row)
        for place, (name, unit, queries) in enumerate(row):
            panel = _panel(name, "timeseries", place * width, top + 1, width, HEIGHT)
            panel["datasource"] = {"type": "prometheus", "uid": "${datasource}"}
            panel["fieldConfig"] = {"defaults": {"unit": unit, "min": 0}, "overrides": []}
            panel["targets"] = [
                {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend}
                for number, (legend, query) in enumerate(queries.items())
            ]
            panels.append(panel)
        top += HEIGHT + 1
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    source = {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Prometheus",
    }
    return {
        "uid": "todoku",
        "title": "Todoku",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def _panel(title: str, kind: str, left: int, top: int, width: int, height: int) -> dict[str, Any]:
    return {"title": title, "type": kind, "gridPos": {"x": left, "y": top, "w": width, "h": height}}


def text() -> str:
    """Return the dashboard as JSON."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
