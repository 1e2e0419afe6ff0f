"""Tests of the simulated carrier, whose answers are pseudo-random and reproducible; and of how another one
is loaded."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.settings import SettingsInvalid
from todoku.shipping import carriers
from todoku.shipping.carriers import SimulatedCarrier, fraction, load_carrier, pickup_delay
from todoku.shipping.domain import Accepted, Answer, Parcel, Rejected
from todoku.system import system

PARCEL: Final = Parcel(order_id="order", items=(), shipping_address="")
PARCELS: Final = 2_000


def book(carrier: SimulatedCarrier, key: str) -> Answer:
    return asyncio.run(carrier.book(key, PARCEL))


def books(carrier: SimulatedCarrier) -> list[Answer]:
    async def all_of_them() -> list[Answer]:
        return [await carrier.book(f"shipment-{n:012}", PARCEL) for n in range(PARCELS)]

    return asyncio.run(all_of_them())


def share_accepted(success_rate: float, seed: int) -> float:
    answers = books(SimulatedCarrier(success_rate=success_rate, seed=seed))
    return sum(isinstance(answer, Accepted) for answer in answers) / PARCELS


@pytest.mark.parametrize("success_rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_share_of_accepted_parcels_is_close_to_the_success_rate(
    success_rate: float, seed: int
) -> None:
    """Within four standard deviations, for seeds that do not change."""
    deviation = (success_rate * (1 - success_rate) / PARCELS) ** 0.5
    assert abs(share_accepted(success_rate, seed) - success_rate) < 4 * deviation


def test_rate_of_one_accepts_and_rate_of_zero_rejects_every_parcel() -> None:
    assert share_accepted(1.0, seed=0) == 1.0
    assert share_accepted(0.0, seed=0) == 0.0


@pytest.mark.parametrize(
    ("octets", "expected"), [(b"\xff" * 32, 1 - 2**-48), (b"\x00" * 32, 0.0)], ids=["top", "bottom"]
)
def test_rates_of_one_and_zero_hold_for_extreme_hashes(
    octets: bytes, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest fraction is below 1, exactly; the smallest is not below 0."""

    class Digest:
        def __init__(self, _: bytes) -> None: ...

        def digest(self) -> bytes:
            return octets

    monkeypatch.setattr(carriers.hashlib, "sha256", Digest)
    assert fraction("anything") == expected < 1.0
    assert isinstance(book(SimulatedCarrier(success_rate=1.0), "key"), Accepted)
    assert isinstance(book(SimulatedCarrier(success_rate=0.0), "key"), Rejected)


@given(key=st.text(), seed=st.integers(), success_rate=st.floats(0, 1))
def test_same_key_gets_the_same_answer_from_any_process(
    key: str, seed: int, success_rate: float
) -> None:
    one, other = (SimulatedCarrier(success_rate=success_rate, seed=seed) for _ in range(2))
    assert book(one, key) == book(one, key) == book(other, key)


def test_another_seed_gives_other_answers() -> None:
    assert books(SimulatedCarrier(success_rate=0.5, seed=1)) != books(
        SimulatedCarrier(success_rate=0.5, seed=2)
    )


def test_different_parcels_get_different_tracking_numbers() -> None:
    answers = books(SimulatedCarrier(success_rate=1.0))
    assert len({answer.tracking_number for answer in answers if isinstance(answer, Accepted)}) == (
        PARCELS
    )


@given(key=st.text(), low=st.floats(0, 3600), width=st.floats(0, 3600), seed=st.integers(0, 2**32))
def test_delay_is_within_its_bounds_and_constant(
    key: str, low: float, width: float, seed: int
) -> None:
    delay = pickup_delay(key, low, low + width, seed)
    # A timedelta counts whole microseconds.
    assert low - 1e-6 <= delay.total_seconds() <= low + width + 1e-6
    assert delay == pickup_delay(key, low, low + width, seed)


def test_delays_are_spread_over_the_whole_range() -> None:
    seconds = [pickup_delay(f"shipment-{n}", 10, 20, 0).total_seconds() for n in range(PARCELS)]
    assert min(seconds) < 10.1
    assert max(seconds) > 19.9


class TestLoading:
    """A carrier is made by the function that the setting names."""

    @pytest.mark.parametrize(
        ("body", "name", "problem"),
        [
            ("", "absent:make", "cannot be imported: ModuleNotFoundError: "),
            ("", "{module}:make", "cannot be imported: AttributeError: "),
            ("1 / 0", "{module}:make", "cannot be imported: ZeroDivisionError: "),
            ("def", "{module}:make", "cannot be imported: SyntaxError: "),
            ("make = 1", "{module}:make", "cannot be called"),
            ("def make(settings): return None", "{module}:make", "which returned NoneType"),
            ("def make(settings): return str", "{module}:make", "which returned type"),
        ],
    )
    def test_carrier_that_cannot_be_used_is_refused_with_the_reason(
        self, body: str, name: str, problem: str, modules: Callable[[str], str]
    ) -> None:
        settings = system.settings(carrier=name.format(module=modules(body)))
        with pytest.raises(SettingsInvalid) as raised:
            load_carrier(settings)
        assert problem in raised.value.problems[0]

    def test_error_of_the_factory_is_its_own(self, modules: Callable[[str], str]) -> None:
        """Unlike a wrong setting it may be over at the next start, so `up` starts the service again."""
        module = modules("def make(settings): raise ConnectionError('away')")
        with pytest.raises(ConnectionError, match="away"):
            load_carrier(system.settings(carrier=f"{module}:make"))

    @pytest.fixture
    def modules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
        """Return a function that writes a module, and returns its name."""

        def write(body: str) -> str:
            name = f"carrier_{uuid4().hex}"
            (tmp_path / f"{name}.py").write_text(body)
            return name

        monkeypatch.syspath_prepend(tmp_path)
        return write
