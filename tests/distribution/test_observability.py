"""The rules and the dashboard for Prometheus and Grafana: they name metrics that exist, and alerts fire."""

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alerts import run as real_runs

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "observability"
GUIDE: Final = ROOT / "docs" / "how-to" / "observe.md"
SUFFIXES: Final = {"histogram": ("_bucket", "_sum", "_count")}
NOT_OURS: Final = {"up"}
"""What Prometheus itself knows of each target."""

PROMTOOL: Final = shutil.which("promtool")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> set[str]:
    return {rule["alert"] for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def series() -> set[str]:
    """Return the names of all series that the documented metrics have."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return {
        f"{name}{suffix}"
        for name, kind in re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
        for suffix in SUFFIXES.get(kind, ("",))
    }


def queries_of_dashboard() -> Iterator[str]:
    panels = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    for panel in panels:
        yield from (target["expr"] for target in panel.get("targets", ()))


def names_in(query: str) -> set[str]:
    """Return the names of the series that a query reads: what has a selector, or is recorded."""
    return set(re.findall(r"([a-zA-Z_:][\w:]*)\{", query)) | set(
        re.findall(r"todoku:\w+:\w+", query)
    )


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is absent (Debian package prometheus)")
def test_every_alert_fires_in_its_fault_and_none_in_calm() -> None:
    assert PROMTOOL is not None
    checked = subprocess.run(
        [PROMTOOL, "test", "rules", "rules_test.yaml"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    tests = (FOLDER / "rules_test.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r'alertname="(\w+)"', tests)) == alerts()


def test_every_alert_fires_in_a_real_run_or_it_is_said_why_not() -> None:
    """What `make alerts` runs."""
    shown = {name for scenario in real_runs.SCENARIOS for name in scenario.alerts}
    assert shown | real_runs.NOT_RUN.keys() == alerts()
    assert not shown & real_runs.NOT_RUN.keys()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_read_only_what_exists(rule: dict[str, Any]) -> None:
    names = names_in(rule["expr"])
    assert names
    assert names <= series() | recorded() | NOT_OURS


def test_dashboard_reads_only_what_exists() -> None:
    queries = list(queries_of_dashboard())
    assert queries
    for query in queries:
        assert names_in(query), query
        assert names_in(query) <= series() | recorded(), query


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is absent (Debian package prometheus)")
def test_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    of_dashboard = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries_of_dashboard())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": of_dashboard}]}))
    checked = subprocess.run(
        [PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_dashboard_is_what_its_program_writes() -> None:
    program = runpy.run_path(str(FOLDER / "dashboard.py"))
    assert (FOLDER / "dashboard.json").read_text(encoding="utf-8") == program["text"]()


def test_every_alert_is_explained() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    explained = set(re.findall(r"`(Todoku\w+)`", text))
    assert explained == alerts()


def test_each_objective_has_a_fast_and_a_slow_burn_rate() -> None:
    burning = [rule for rule in rules() if "slo" in rule.get("labels", {})]
    found = {(rule["labels"]["slo"], rule["labels"]["severity"]) for rule in burning}
    slos = ("acceptance", "freshness", "completeness", "correctness")
    assert found == {(slo, severity) for slo in slos for severity in ("critical", "warning")}
