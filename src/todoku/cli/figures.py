"""Prints the report of `todoku bench`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from todoku.cli.output import KEY, NUMBER, cells, console, table

if TYPE_CHECKING:
    from todoku.lab.bench.report import BenchReport, Latency


def print_report(report: "BenchReport") -> None:
    """Print the report on stdout."""
    out = console()
    out.print(report.loop)
    if report.ready_seconds is not None:
        out.print(f"ready in {report.ready_seconds:.2f} s")
    out.print()
    for line in _orders(report):
        out.print(line)
    out.print()
    out.print(_latencies(report))
    out.print()
    out.print(_costs(report))
    out.print()
    if report.stages:
        out.print(_stages(report))
        out.print()
    for line in _broker_and_invariants(report):
        out.print(line)


def _orders(report: "BenchReport") -> Iterator[str]:
    yield f"{report.accepted_a_second:>10,.0f} orders accepted a second ({report.accepted:,} in all)"
    yield (
        f"{report.ended_a_second:>10,.0f} orders ended a second, "
        f"from the first POST to the last end, {report.seconds:.1f} s"
    )
    for status, count in report.endings.items():
        yield f"{count:>10,} {status}"
    yield f"{report.unfinished:>10,} unfinished"
    for code, count in report.refused.items():
        yield f"{count:>10,} responses {code}" if code else f"{count:>10,} without a response"


def _latencies(report: "BenchReport") -> Table:
    rows = table(KEY("ms"), *map(NUMBER, ("p50", "p95", "p99", "max", "count")))
    named: tuple[tuple[str, Latency | None], ...] = (
        ("POST", report.post),
        ("POST → end, by the server's clock", report.ended),
        ("POST → end, seen by polling", report.seen),
    )
    for name, latency in named:
        if latency is not None:
            figures = (latency.p50, latency.p95, latency.p99, latency.max)
            rows.add_row(*cells(name, *(f"{ms:,.1f}" for ms in figures), f"{latency.count:,}"))
    return rows


def _costs(report: "BenchReport") -> Table:
    columns = ("CPU ms", "commits", "fsyncs", "KiB written", "peak MiB")
    rows = table(KEY("an order"), *map(NUMBER, columns))
    for name, cost in report.costs.items():
        rows.add_row(
            *cells(
                name,
                f"{cost.cpu_ms:.3f}",
                _or_nothing(cost.commits),
                _or_nothing(cost.fsyncs),
                f"{cost.written_bytes / 1024:.1f}",
                f"{cost.memory_bytes_max / 2**20:.0f}",
            )
        )
    rows.add_row(*cells("together", f"{report.cpu_ms:.3f}", "", "", "", ""))
    return rows


def _stages(report: "BenchReport") -> Table:
    services = report.stages
    rows = table(KEY("CPU µs an order"), *map(NUMBER, (*services, "together")))
    for name in dict.fromkeys(name for stages in services.values() for name in stages):
        used = [1_000 * stages.get(name, 0.0) for stages in services.values()]
        if any(used):
            rows.add_row(*cells(name, *(f"{us:.0f}" for us in (*used, sum(used)))))
    totals = [1_000 * sum(stages.values()) for stages in services.values()]
    rows.add_row(*cells("together", *(f"{us:.0f}" for us in (*totals, sum(totals)))))
    return rows


def _or_nothing(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.3f}"


def _broker_and_invariants(report: "BenchReport") -> Iterator[str]:
    size = (
        "" if report.traffic.bytes is None else f", {report.traffic.bytes:,.0f} bytes on its disk"
    )
    yield f"{report.traffic.messages:.2f} messages an order in the stream{size}"
    yield f"{report.traffic.repeated:,} events published more than once"
    if report.other_cores is not None:
        yield f"{report.other_cores:.2f} cores were used by other programs"
    if report.broken is not None:
        yield "\n".join(report.broken) or "clean: no invariant is broken"
