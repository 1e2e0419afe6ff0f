"""Draws throughput and latency over time as SVG."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape

import msgspec

from todoku.lab.bench.report import percentile

WIDTH, HEIGHT = 900, 260
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 40
SLICES_MAX = 120
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
)  # for any colour vision (Okabe and Ito)

Point = tuple[float, float]


class Curve(msgspec.Struct, frozen=True):
    """A named series of (seconds, value)."""

    name: str
    points: Sequence[Point]


class Panel(msgspec.Struct, frozen=True):
    """Curves that share an axis."""

    title: str
    curves: Sequence[Curve]


def panels(
    sent: Sequence[float], answered: Sequence[float], ended: Sequence[Point]
) -> tuple[Panel, Panel]:
    """Return throughput and latency, in slices of a second or more.

    `sent` and `answered` are when orders were sent and how long their responses took, `ended` when
    orders ended and how long that took; all in seconds.
    """
    accepted = [(at + took, took) for at, took in zip(sent, answered, strict=True)]
    last = max(at for at, _ in (*accepted, *ended))
    width = max(1.0, last / SLICES_MAX)
    return (
        Panel(
            "orders a second",
            [
                Curve("accepted", _rates(accepted, width)),
                Curve("ended", _rates(ended, width)),
            ],
        ),
        Panel(
            "milliseconds",
            [
                Curve("POST p50", _latencies(accepted, width, 0.50)),
                Curve("POST p99", _latencies(accepted, width, 0.99)),
                Curve("ended p50", _latencies(ended, width, 0.50)),
                Curve("ended p99", _latencies(ended, width, 0.99)),
            ],
        ),
    )


def _sliced(points: Iterable[Point], width: float) -> dict[int, list[float]]:
    slices: dict[int, list[float]] = defaultdict(list)
    for at, value in points:
        slices[int(at / width)].append(value)
    return slices


def _rates(points: Iterable[Point], width: float) -> list[Point]:
    slices = _sliced(points, width)
    return [(i * width, len(slices.get(i, ())) / width) for i in range(max(slices, default=-1) + 1)]


def _latencies(points: Iterable[Point], width: float, share: float) -> list[Point]:
    return [
        (i * width, 1_000 * percentile(sorted(values), share))
        for i, values in sorted(_sliced(points, width).items())
    ]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """Return an SVG with the panels below each other."""
    seconds = max((at for p in panels for c in p.curves for at, _ in c.points), default=0) or 1
    height = HEIGHT * len(panels)
    drawn = "".join(
        f'<g transform="translate(0 {HEIGHT * row})">{_panel(panel, seconds)}</g>'
        for row, panel in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12" fill="#333">'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f'<text x="{LEFT}" y="16" font-size="14">{escape(title)}</text>{drawn}</svg>\n'
    )


def _panel(panel: Panel, seconds: float) -> str:
    top = _round_up(max((value for c in panel.curves for _, value in c.points), default=0) or 1)

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / seconds

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    parts = [f'<text x="{LEFT}" y="{TOP - 8}">{escape(panel.title)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        level = y(share * top)
        parts.append(
            f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{share * top:,g}</text>'
            f'<text x="{x(share * seconds):.1f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{share * seconds:.3g} s</text>'
        )
    for number, curve in enumerate(panel.curves):
        colour = COLOURS[number]
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in curve.points)
        label = TOP + 12 + 18 * number
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            f'<text x="{WIDTH - RIGHT + 15}" y="{label}" fill="{colour}">{escape(curve.name)}</text>'
        )
    return "".join(parts)


def _round_up(value: float) -> float:
    """Return the next round number: 1, 2, 4 or 10 times a power of ten."""
    power = 10.0 ** (len(str(int(value))) - 1)
    return next(power * digit for digit in (1, 2, 4, 10) if power * digit >= value)
