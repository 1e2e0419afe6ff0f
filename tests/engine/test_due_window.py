"""Rows whose due times were computed by a clock that was wrong."""

from datetime import UTC, datetime, timedelta

import pytest

from engine.bank import NOW, Branch, SendBill, account_id, seconds
from todoku.engine.clock import Correction
from todoku.engine.due_window import due_window

AT = datetime(2030, 1, 1, tzinfo=UTC)
PAUSE = timedelta(seconds=300)
SECOND = timedelta(seconds=1)
JUMPS = [timedelta(hours=8), timedelta(hours=-8), timedelta(seconds=400), timedelta(seconds=-400)]


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("remaining", [1, 20, 300])
def test_what_remains_runs_by_boot_time_after_a_correction(jump: timedelta, remaining: int) -> None:
    due_at = AT + timedelta(seconds=remaining)
    correction = Correction(AT, AT + jump)

    come = [
        elapsed
        for elapsed in range(310)
        if due_window(AT + jump + elapsed * SECOND, PAUSE, correction).has_come(due_at)
    ]
    assert come[0] == remaining


@pytest.mark.parametrize("jump", [timedelta(hours=8), timedelta(hours=-8)])
def test_row_written_after_a_correction_is_due_by_the_new_clock(jump: timedelta) -> None:
    correction = Correction(AT, AT + jump)
    due_at = AT + jump + 20 * SECOND

    for elapsed in range(310):
        now = AT + jump + elapsed * SECOND
        assert due_window(now, PAUSE, correction).has_come(due_at) == (elapsed >= 20)


@pytest.mark.parametrize("jump", [timedelta(seconds=60), timedelta(seconds=-60)])
def test_correction_below_the_longest_pause_moves_no_row_by_more_than_itself(
    jump: timedelta,
) -> None:
    correction = Correction(AT, AT + jump)
    for remaining in (1, 59, 61, 120, 299):
        come = [
            elapsed
            for elapsed in range(400)
            if due_window(AT + jump + elapsed * SECOND, PAUSE, correction).has_come(
                AT + remaining * SECOND
            )
        ]
        assert remaining - 60 <= come[0] <= remaining


def test_row_further_ahead_than_the_longest_pause_is_due_now() -> None:
    window = due_window(AT, PAUSE)
    assert window.has_come(AT + PAUSE + SECOND)
    assert not window.has_come(AT + PAUSE)
    assert not due_window(AT, None).has_come(AT + timedelta(days=1)), (
        "without a longest pause it waits"
    )


class TestWriter:
    def test_row_beyond_the_longest_pause_is_due_now_and_its_neighbours_are_not(self) -> None:
        branch = Branch()
        branch.open(1, balance=5, fee=2, due_at=seconds(8 * 3_600))
        branch.open(2, balance=5, fee=2, due_at=seconds(20))

        steps = [branch.step(effect_slots=10) for _ in range(2)]

        effects = [pending.effect for step in steps for pending in step.effects]
        assert effects == [SendBill(account_id(1))]
        assert steps[-1].next_due.effects_at == seconds(20)

    def test_rows_held_after_a_correction_do_not_make_the_writer_spin(self) -> None:
        branch = Branch()
        jump = timedelta(hours=8)
        branch.writer._correction = lambda: Correction(NOW, NOW + jump)
        branch.open(1, balance=5, fee=2, due_at=seconds(20))
        now, rounds = NOW + jump, 0
        while not (actions := branch.step(now=now, effect_slots=10)).effects:
            assert actions.next_due.effects_at is not None
            assert actions.next_due.effects_at > now
            now, rounds = actions.next_due.effects_at, rounds + 1
        assert now == NOW + jump + timedelta(seconds=20)
        assert rounds <= 21
