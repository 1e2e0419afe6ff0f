"""Tests of what distinguishes a copy of the feed from what orders has recorded."""

from collections import Counter

from todoku.lab.chaos.copier import differences

RECORDED = {("order-1", "event-1"), ("order-1", "event-2")}


def test_exact_copy_has_no_differences() -> None:
    assert differences(Counter(RECORDED), RECORDED) == ()


def test_events_that_lack_are_added_or_come_twice_are_told() -> None:
    copied = Counter({("order-1", "event-1"): 2, ("order-2", "event-3"): 1})

    assert differences(copied, RECORDED) == (
        "event event-2 of order order-1 lacks",
        "event event-3 of order order-2 is unknown to orders",
        "event event-1 of order order-1 was copied 2 times",
    )
