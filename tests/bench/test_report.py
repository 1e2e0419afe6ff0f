"""Tests of figures and of their picture."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.timeline import panels, svg
from todoku.lab.bench.report import Latency, percentile

VALUES = st.lists(st.floats(0, 1e6), min_size=1)


@given(VALUES, st.floats(0, 1))
def test_percentile_is_a_value_that_the_share_does_not_exceed(
    values: list[float], share: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) * (1 - 1e-9)


def test_latency_is_in_milliseconds() -> None:
    assert Latency.of([0.125] * 98 + [0.25, 0.5]) == Latency(100, 125, 125, 250, 500)


def test_no_samples_give_no_latency() -> None:
    assert Latency.of([]) is None


def test_svg_is_well_formed_and_shows_every_curve() -> None:
    drawn = panels([0.0, 0.5, 1.5], [0.01, 0.02, 0.03], [(0.1, 0.1), (1.0, 0.5), (1.7, 0.2)])
    picture = ElementTree.fromstring(svg("<one> & two", drawn))
    texts = [element.text for element in picture.iter() if element.text]
    names = [curve.name for panel in drawn for curve in panel.curves]
    assert "<one> & two" in texts
    assert set(names) <= set(texts)
    lines = [e for e in picture.iter() if e.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [
        len(curve.points) for panel in drawn for curve in panel.curves
    ]


def test_throughput_adds_up_to_all_orders() -> None:
    throughput, _ = panels([0.1 * n for n in range(95)], [0.05] * 95, [(9.9, 1.0)])
    accepted, ended = throughput.curves
    assert sum(value for _, value in accepted.points) == pytest.approx(95)
    assert sum(value for _, value in ended.points) == pytest.approx(1)
