"""Tests that a service of another package is simulated, and that bugs planted in it are found."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulation import planting
from todoku.contracts import OrderCompletedEvent
from todoku.lab.simulation import SimulationPlan, SimulationResult, simulate
from todoku.lab.simulation.wiring import Wire, as_it_is
from todoku.simulated import SimulatedService, World

LOYALTY = Path(__file__).parents[2] / "examples" / "loyalty" / "src"
COMPLETED = """
SELECT order_id, product_id, price FROM order_items JOIN orders ON orders.id = order_id
WHERE status = 'COMPLETED'
"""
SHIPPED = """
SELECT order_id, product_id, quantity FROM shipment_items JOIN shipments ON shipments.id = shipment_id
"""
AWARDS = "SELECT order_id, points FROM awards"
SEEDS_MAX = 40

Simulate = Callable[[int, Wire], SimulationResult]


class Points(SimulatedService):
    """Expects that every completed order has its points, which never change."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._awards: Mapping[str, int] = {}

    def check_commit(self) -> None:
        awards = dict(self.world.rows(AWARDS))
        for order_id, points in self._awards.items():
            if awards.get(order_id) != points:
                self.world.fail("I4", f"the points of {order_id} changed", order_id)
        self._awards = awards

    def check_end(self) -> None:
        # Pieces that were cancelled before the shipment give no points.
        shipped = {tuple(key): pieces for *key, pieces in self.world.rows_of("shipping", SHIPPED)}
        amounts: Counter[str] = Counter()
        for order_id, product_id, price in self.world.rows_of("orders", COMPLETED):
            amounts[order_id] += price * shipped.get((order_id, product_id), 0)
        expected = {order_id: amount // 100 for order_id, amount in amounts.items()}
        accepted = {key for (key,) in self.world.rows_of("orders", "SELECT id FROM orders")}
        # A forged event may name an order that was never accepted.
        given = {key: points for key, points in self._awards.items() if key in accepted}
        if expected != given:
            self.world.fail("I4", f"points {given} instead of {expected}")


@pytest.fixture
def simulate_shop(monkeypatch: pytest.MonkeyPatch) -> Simulate:
    """Simulates the system of the example, with a part for its service."""
    monkeypatch.syspath_prepend(LOYALTY)
    from loyalty import system as shop

    from todoku.system import System

    checked = msgspec.structs.replace(shop.loyalty, simulation=Points)
    monkeypatch.setattr(
        shop, "system", System(*(each for each in shop.system if each is not shop.loyalty), checked)
    )
    return lambda seed, wire: simulate(
        SimulationPlan(seed=seed, system="loyalty.system:system"), wire
    )


def first_violation(simulate_shop: Simulate, plant: Callable[[], Wire]) -> str:
    """Return what finds a bug, and where: empty if nothing does."""
    for seed in range(1, SEEDS_MAX + 1):
        if violations := simulate_shop(seed, plant()).violations:
            return violations[0].problem
    return ""


def test_outside_service_breaks_no_invariant(simulate_shop: Simulate) -> None:
    for seed in range(1, 9):
        assert simulate_shop(seed, as_it_is).violations == ()


def test_database_that_does_not_answer_after_the_faults_excuses_a_late_order(
    simulate_shop: Simulate,
) -> None:
    """In this seed the writes of orders stall before the end of the faults, and until long after it."""
    assert simulate_shop(4066, as_it_is).violations == ()


def test_points_given_twice_are_found(simulate_shop: Simulate) -> None:
    def plant() -> Wire:
        def decide(original: Any, award: Any, event: Any, now: Any) -> Any:
            given, events = original(award, event, now)
            return msgspec.structs.replace(given, points=given.points + (award is not None)), events

        return planting.events("loyalty", OrderCompletedEvent, decide)

    assert "points" in first_violation(simulate_shop, plant)


def test_event_that_is_dropped_is_found(simulate_shop: Simulate) -> None:
    """The service acknowledges what it has not stored."""

    class Broker(planting.WrappedBroker):
        def arrive(self, deliveries: Any, deliver: Any) -> None:
            if self.parts.service.name == "loyalty":
                self.subscription.ack(deliveries)
            else:
                deliver(deliveries)

    assert "loyalty acknowledged" in first_violation(simulate_shop, lambda: planting.broker(Broker))
