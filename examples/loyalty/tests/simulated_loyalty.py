"""The loyalty service in `todoku simulate`, with what must hold, and with bugs planted into it.

    PYTHONPATH=examples/loyalty/src:examples/loyalty/tests \\
        TODOKU_SYSTEM=simulated_loyalty:system todoku simulate --seeds 100
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from loyalty.domain import Award, award_points
from loyalty.service import loyalty_service
from loyalty.system import loyalty

from todoku import system as todoku
from todoku.contracts import OrderCompletedEvent
from todoku.engine import Service
from todoku.settings import Settings
from todoku.simulated import SimulatedService, World

_AWARDS = "SELECT order_id, points FROM awards ORDER BY order_id"
_ACCEPTED = "SELECT id FROM orders ORDER BY id"
_COMPLETED = """
SELECT order_id, product_id, price FROM order_items JOIN orders ON orders.id = order_id
WHERE status = 'COMPLETED' ORDER BY order_id, product_id
"""
_SHIPPED = """
SELECT order_id, product_id, quantity FROM shipment_items JOIN shipments ON shipments.id = shipment_id
ORDER BY order_id, product_id
"""


class SimulatedLoyalty(SimulatedService):
    """Checks that points are given once, for completed orders and for no others."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._before: dict[str, int] = {}

    def check_commit(self) -> None:
        """Check that points that were given stay as they are."""
        now = dict(self.world.rows(_AWARDS))
        for order_id, points in self._before.items():
            if now.get(order_id) != points:
                problem = f"{points} points for {order_id} became {now.get(order_id)}"
                self.world.fail("L1", problem, order_id)
        self._before = now

    def check_end(self) -> None:
        """Check that of the accepted orders the completed ones have their points, and no others.

        Pieces that were cancelled before the shipment cost nothing, and give no points. The simulation
        also forges events, which may name an order that was never accepted.
        """
        accepted = {key for (key,) in self.world.rows_of("orders", _ACCEPTED)}
        shipped = {tuple(key): pieces for *key, pieces in self.world.rows_of("shipping", _SHIPPED)}
        amounts: Counter[str] = Counter()
        for order_id, product_id, price in self.world.rows_of("orders", _COMPLETED):
            amounts[order_id] += price * shipped.get((order_id, product_id), 0)
        given = {key: points for key, points in self.world.rows(_AWARDS) if key in accepted}
        if given != {key: total // 100 for key, total in amounts.items()}:
            self.world.fail("L2", "points do not match the completed orders")


def award_again(
    award: Award | None, event: OrderCompletedEvent, now: object
) -> tuple[Award, list[object]]:
    """Give points for each delivery of an event."""
    new, _ = award_points(None, event, now)
    points = new.points + (award.points if award else 0)
    return msgspec.structs.replace(new, points=points), []


def award_too_little(
    award: Award | None, event: OrderCompletedEvent, now: object
) -> tuple[Award, list[object]]:
    """Forget the last point."""
    new, events = award_points(award, event, now)
    return new if award else msgspec.structs.replace(new, points=new.points - 1), events


def _with(handler: Callable[..., Any]) -> todoku.System:
    def service(settings: Settings) -> Service:
        handlers = {OrderCompletedEvent: handler}
        return dataclasses.replace(loyalty_service(settings), event_handlers=handlers)

    simulated = msgspec.structs.replace(loyalty, simulation=SimulatedLoyalty, service=service)
    return todoku.System(*todoku.system.services, simulated)


system = _with(award_points)
awards_again = _with(award_again)
awards_too_little = _with(award_too_little)
