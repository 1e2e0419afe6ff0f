"""A Prometheus of its own that scrapes a running system every few seconds, with the shipped rules."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.error import URLError

from todoku.lab.stack import Stack, free_ports

RULES: Final = Path(__file__).parents[2] / "deploy" / "observability" / "rules.yaml"
CONFIG: Final = """
global: {{scrape_interval: 5s, scrape_timeout: 4s, evaluation_interval: 5s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: todoku
    static_configs: [{{targets: {targets}}}]
"""
READY_SECONDS_MAX: Final = 30.0
LOOK_SECONDS: Final = 1.0


class Prometheus:
    """What it says about alerts."""

    def __init__(self, url: str) -> None:
        self._url = url

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        with urllib.request.urlopen(f"{self._url}/api/v1/alerts", timeout=10) as answer:
            alerts = json.load(answer)["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def wait_for(self, wanted: set[str], since: float, seconds_max: float) -> dict[str, float]:
        """Return after how many seconds each of these fired; those are missing that did not."""
        found: dict[str, float] = {}
        while wanted - found.keys() and time.monotonic() - since < seconds_max:
            for name in self.firing() & wanted - found.keys():
                found[name] = time.monotonic() - since
            time.sleep(LOOK_SECONDS)
        return found


@contextmanager
def watching(stack: Stack, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that watches every service of a system."""
    [port] = free_ports(1)
    addresses = [stack.url(name).removeprefix("http://") for name in stack.services]
    config = folder / "prometheus.yaml"
    config.write_text(CONFIG.format(rules=RULES, targets=json.dumps(addresses)))
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _until_ready(url)
            yield Prometheus(url)
        finally:
            process.terminate()


def _until_ready(url: str) -> None:
    ends = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
                return
        except (URLError, OSError):
            if time.monotonic() > ends:
                raise
            time.sleep(LOOK_SECONDS / 10)
