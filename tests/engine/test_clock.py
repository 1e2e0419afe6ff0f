"""The clock of a process, on a machine whose wall clock is set, slewed, or suspended."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.engine.clock import SLEWED_SECONDS_MAX, SteadyClock
from todoku.engine.stamps import AHEAD_MAX, stamped

HOURS_8 = 8 * 3_600.0
NOON = 1_900_000_000.0


class Machine:
    """A machine with a wall clock that can be set, and a boot-time clock that cannot."""

    def __init__(self) -> None:
        self.wall = NOON
        self.boottime = 100.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.boottime)

    def go_on(self, seconds: float, *, drift: float = 0.0) -> None:
        """Let time pass, also by suspending: the boot-time clock counts that."""
        self.wall += seconds * (1 + drift)
        self.boottime += seconds

    def now(self) -> float:
        return self.clock.now().timestamp()


@pytest.mark.parametrize("step", [HOURS_8, -HOURS_8])
def test_correction_is_followed_at_once_and_noted(step: float) -> None:
    machine = Machine()
    machine.go_on(3)
    machine.wall += step

    assert machine.now() == pytest.approx(machine.wall)
    correction = machine.clock.correction()
    assert correction is not None
    assert correction.before.timestamp() == pytest.approx(NOON + 3)
    assert correction.after.timestamp() == pytest.approx(NOON + 3 + step)


def test_suspended_machine_is_no_correction() -> None:
    machine = Machine()
    machine.go_on(HOURS_8)

    assert machine.now() == pytest.approx(NOON + HOURS_8)
    assert machine.clock.correction() is None


def test_slow_drift_is_followed_and_no_correction() -> None:
    machine = Machine()
    for _ in range(1_000):
        machine.go_on(10, drift=0.0005)
        assert machine.now() == pytest.approx(machine.wall)
    assert machine.clock.correction() is None


@pytest.mark.parametrize("step", [-0.1, -SLEWED_SECONDS_MAX])
def test_small_step_back_is_slewed_within_5_seconds(step: float) -> None:
    machine = Machine()
    before = machine.now()
    machine.wall += step
    for _ in range(50):
        machine.go_on(0.1)
        assert machine.now() == pytest.approx(before + 0.05) or machine.now() == machine.wall
        assert machine.now() > before, "the clock neither stands still nor goes back"
        before = machine.now()
    assert machine.now() == pytest.approx(machine.wall)


@given(
    st.lists(
        st.tuples(
            st.floats(-0.1, 0.1)
            | st.floats(-3, 3)
            | st.sampled_from([HOURS_8, -HOURS_8])
            | st.floats(-HOURS_8, HOURS_8),
            st.floats(0, 10) | st.just(HOURS_8),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_stamps_never_go_back_within_an_order_and_follow_the_wall_in_others(
    steps: list[tuple[float, float, bool]],
) -> None:
    """Each order is stamped by some of the decisions; between them, the wall clock is set."""
    machine = Machine()
    orders = {True: Order(machine.clock.now()), False: Order(machine.clock.now())}
    for step, pause, which in steps:
        machine.wall += step
        reading = machine.clock.now()
        assert abs(reading.timestamp() - machine.wall) <= SLEWED_SECONDS_MAX + 1e-3
        before = orders[which]
        after, at = stamped(before, Order(reading, before.count + 1), None, reading)
        assert at == after.updated_at
        assert after.updated_at >= max(before.updated_at, reading)
        assert after.updated_at in {before.updated_at, reading}, "frozen only by its own stamp"
        orders[which] = after
        machine.go_on(pause)
        machine.clock.now()
        machine.go_on(5)
        assert machine.now() == pytest.approx(machine.wall, abs=1e-3)


class Order(msgspec.Struct, frozen=True):
    updated_at: datetime
    count: int = 0


AT = datetime(2030, 1, 1, tzinfo=UTC)


class TestStamps:
    def test_state_is_stamped_no_earlier_than_the_event_it_follows_from(self) -> None:
        occurred_at = AT + timedelta(hours=8)
        assert stamped(None, Order(AT), occurred_at, AT) == (Order(occurred_at), occurred_at)

    def test_event_from_the_far_future_moves_no_stamp(self) -> None:
        """A forged time would otherwise stay with the order for ever."""
        assert stamped(None, Order(AT), AT + AHEAD_MAX * 2, AT) == (Order(AT), AT)

    def test_decision_that_sets_no_stamp_gets_none(self) -> None:
        before = Order(AT)
        after = Order(AT, count=1)
        later = AT + timedelta(hours=1)
        assert stamped(before, after, later, AT) == (after, later)

    def test_state_without_stamp_is_left_alone(self) -> None:
        assert stamped(None, "a state", AT, AT) == ("a state", AT)
