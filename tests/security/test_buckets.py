"""Token buckets admit what their policy says, in bounded memory, whoever comes."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from todoku.web.buckets import OTHERS, Buckets, Policy

TEN_A_MINUTE = Policy("p", 10, 60.0)


def admitted(buckets: Buckets, caller: str, now: float, times: int) -> int:
    return sum(buckets.take(caller, now).admitted for _ in range(times))


def test_quota_is_admitted_at_once_and_comes_back_in_the_window() -> None:
    buckets = Buckets(TEN_A_MINUTE)
    assert admitted(buckets, "a", 1_000.0, 20) == 10
    assert admitted(buckets, "a", 1_005.9, 20) == 0
    assert admitted(buckets, "a", 1_006.0, 20) == 1
    assert admitted(buckets, "a", 1_066.0, 20) == 10
    assert admitted(buckets, "b", 1_066.0, 20) == 10


def test_refusal_says_when_one_more_is_admitted() -> None:
    buckets = Buckets(TEN_A_MINUTE)
    admitted(buckets, "a", 0.0, 10)
    refused = buckets.take("a", 2.5)
    assert (refused.admitted, refused.remaining, refused.next_seconds) == (False, 0, 4)
    assert buckets.take("a", 2.5 + refused.next_seconds).admitted


def test_headers_have_the_syntax_of_the_draft() -> None:
    buckets = Buckets(Policy("requests", 100, 0.2))
    assert buckets.policy.header == '"requests";q=100;w=1'
    taken = buckets.take("a", 0.0)
    assert taken.header == '"requests";r=99;t=1'


@given(st.lists(st.floats(0, 120), max_size=200), st.integers(1, 20), st.floats(0.5, 60))
@settings(max_examples=100, deadline=None)
def test_no_window_admits_more_than_the_quota_and_what_came_back(
    pauses: list[float], quota: int, window: float
) -> None:
    buckets, times = Buckets(Policy("p", quota, window)), []
    now = 0.0
    for pause in pauses:
        now += pause / 20
        if buckets.take("a", now).admitted:
            times.append(now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            came_back = (times[last] - times[first]) * quota / window
            assert last - first + 1 <= quota + came_back + 1e-6


@given(st.lists(st.floats(0, 2), min_size=2, max_size=50))
@settings(max_examples=50, deadline=None)
def test_remaining_is_what_is_admitted_next(pauses: list[float]) -> None:
    buckets, now = Buckets(Policy("p", 5, 3.0)), 0.0
    taken = []
    for pause in pauses:
        now += pause
        taken.append(buckets.take("a", now))
    for before, after in pairwise(taken):
        assert after.admitted or before.remaining == 0


def test_ten_thousand_callers_take_bounded_memory() -> None:
    buckets = Buckets(TEN_A_MINUTE, callers_max=100)
    for number in range(10_000):
        buckets.take(f"caller {number}", number * 0.01)
        assert len(buckets) <= 101


def test_new_callers_do_not_make_it_forget_one_over_its_quota() -> None:
    buckets = Buckets(TEN_A_MINUTE, callers_max=100)
    admitted(buckets, "attacker", 0.0, 10)
    for number in range(10_000):
        buckets.take(f"caller {number}", 0.001)
    assert not buckets.take("attacker", 0.002).admitted


def test_callers_share_a_bucket_while_all_others_are_in_use() -> None:
    buckets = Buckets(TEN_A_MINUTE, callers_max=100)
    together = sum(buckets.take(f"caller {number}", 0.0).admitted for number in range(10_000))
    assert together == 100 + 10
    assert not buckets.take(OTHERS, 0.0).admitted
    assert buckets.take("caller 10001", 60.0).admitted


@pytest.mark.parametrize("now", [0.0, 1e6])
def test_small_intervals_are_counted_at_any_time(now: float) -> None:
    buckets = Buckets(Policy("p", 1_000, 0.1))
    assert admitted(buckets, "a", now, 2_000) == 1_000
