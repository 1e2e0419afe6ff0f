"""What a bench can measure beside the load: a place for profilers, which are not part of the wheel."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from todoku.lab.bench.report import BenchReport
    from todoku.lab.bench.run import Measurement


class Instruments:
    """Measures nothing more. A subclass overrides what it needs (`tests/bench/measure.py` does)."""

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Return variables for the system; files that it needs go into `folder`."""
        return {}

    def spawn(self, *arguments: object, **options: object) -> "subprocess.Popen[str]":
        """Start the system as `subprocess.Popen` does."""
        return subprocess.Popen(*arguments, **options)  # type: ignore[call-overload, no-any-return]

    def begin(self, pids: Mapping[str, int]) -> None:
        """Prepare for the load, which begins now."""

    def fsyncs(self, data_dir: Path) -> Mapping[str, int]:
        """Return how many fsyncs each process has made so far; empty if they are not counted."""
        return {}

    def complete(self, measurement: "Measurement", folder: Path) -> "BenchReport":
        """Return the report with what is known once the system has ended."""
        return measurement.report


NO_INSTRUMENTS = Instruments()
