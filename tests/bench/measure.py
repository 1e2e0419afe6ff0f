"""Profiles a bench: `todoku bench`, with instruments that are not part of the package.

    make profile ARGS="--connections 256 --seconds 20 --stages"

It takes every option of `todoku bench`, and

    --stages       CPU time of the services, stage by stage; makes them some percent slower
    --fsyncs       count fsyncs (Linux); makes them some percent slower
    --plot FILE    draw throughput and latency over time into an SVG file
"""

import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import stages, timeline
from bench.fsyncs import CannotCount, FsyncCounter, counting_fsyncs
from todoku.cli import application
from todoku.lab.bench.instruments import Instruments
from todoku.lab.bench.report import BenchReport
from todoku.lab.bench.run import Measurement
from todoku.lab.processes import PROGRAMS


class Profiler(Instruments):
    """The instruments that were asked for."""

    def __init__(
        self, *, profile_stages: bool, counter: FsyncCounter | None, plot: Path | None
    ) -> None:
        self._profile_stages = profile_stages
        self._counter = counter
        self._plot = plot

    def environment(self, folder: Path) -> Mapping[str, str]:
        return stages.environment(folder) if self._profile_stages else {}

    def spawn(self, *arguments: object, **options: object) -> "subprocess.Popen[str]":
        if self._counter is None:
            return super().spawn(*arguments, **options)
        return self._counter.run(super().spawn, *arguments, **options)

    def begin(self, pids: Mapping[str, int]) -> None:
        if self._profile_stages:
            stages.begin(pids)

    def fsyncs(self, data_dir: Path) -> Mapping[str, int]:
        if self._counter is None:
            return {}
        folder = data_dir.resolve()
        found = Counter(dict.fromkeys(PROGRAMS, 0))
        for path, count in dict(self._counter.counts).items():
            if Path(path).is_relative_to(folder) and path != str(folder):
                first = Path(path).relative_to(folder).parts[0]
                found[first.partition(".db")[0]] += count
        return found

    def complete(self, measurement: Measurement, folder: Path) -> BenchReport:
        report = measurement.report
        if self._plot is not None:
            load = measurement.load
            curves = timeline.panels(load.sent, load.answered, measurement.ended)
            self._plot.write_text(timeline.svg(report.loop, curves), encoding="utf-8")
        if not self._profile_stages:
            return report
        return msgspec.structs.replace(report, stages=stages.an_order(folder, report))


def main(words: list[str]) -> int:
    """Run `todoku bench` with the instruments that the command line names."""
    parser = ArgumentParser(description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--fsyncs", action="store_true")
    parser.add_argument("--plot", type=Path)
    own, others = parser.parse_known_args(words)
    command, bound, _ = application("bench").parse_args(["bench", *others])
    with ExitStack() as stack:
        counter = stack.enter_context(counting_fsyncs()) if own.fsyncs else None
        profiler = Profiler(profile_stages=own.stages, counter=counter, plot=own.plot)
        return int(command(*bound.args, **{**bound.kwargs, "instruments": profiler}))


if __name__ == "__main__":
    from todoku.cli.errors import CommandFailed

    try:
        sys.exit(main(sys.argv[1:]))
    except (CommandFailed, CannotCount) as failed:
        print(failed, file=sys.stderr)
        sys.exit(getattr(failed, "exit_code", 1))
