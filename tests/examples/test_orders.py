"""The walk through what can happen to an order prints what its page promises."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from end_to_end.running import BOUND_SECONDS, PORT_COUNT, up
from todoku.cli.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
FLAGS = (
    *("--carrier-delay-seconds", "5", "--carrier-success-rate", "1"),
    *("--order-deadline-grace-seconds", "0"),
)


def test_walk_through_an_order_ends_as_expected(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    with up(tmp_path, free_ports(PORT_COUNT), *FLAGS) as running:
        running.output.until("todoku is ready in ")
        names = ("orders", "inventory", "shipping")
        addresses = {name.upper(): running.url(name) for name in names}
        walked = subprocess.run(
            ["sh", str(ROOT / "examples" / "orders.sh")],
            env={**os.environ, **addresses},
            capture_output=True,
            text=True,
            timeout=BOUND_SECONDS,
            check=False,
        )
        assert walked.returncode == 0, walked.stdout + walked.stderr
        assert walked.stdout.endswith("all as expected\n")
        assert running.interrupt() == ExitCode.OK
