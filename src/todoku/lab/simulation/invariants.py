"""Checks the invariants of a run: after every commit, at every message that leaves a service, at the end.

I1 to I5 are the invariants of docs/reliability.md. R2 and R5 are rules of the engine: nothing is
published, acknowledged or receipted before its commit, and every event reaches every subscriber.
"""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from todoku.audit import Report
from todoku.broker.port import Delivery, Outgoing
from todoku.inventory.domain import RESERVATION, ReservationState
from todoku.lab.simulation.trace import head_of
from todoku.lifecycle import name_of
from todoku.orders.domain import ORDER, Order, OrderStatus
from todoku.shipping.domain import SHIPMENT, Accepted, Answer, ShipmentStatus

Rows = Sequence[tuple[Any, ...]]


class Violation(msgspec.Struct, frozen=True):
    """A broken invariant: which, how, and the orders concerned."""

    invariant: str
    problem: str
    orders: tuple[str, ...] = ()


_STOCK_OFF = """
SELECT id, stock_quantity, reserved_quantity, ledger, live FROM (
  SELECT id, stock_quantity, reserved_quantity,
    (SELECT coalesce(sum(quantity), 0) FROM stock_ledger WHERE product_id = p.id) AS ledger,
    (SELECT coalesce(sum(quantity), 0) FROM reservations
      WHERE product_id = p.id AND state = 'RESERVED') AS live
  FROM products AS p)
WHERE stock_quantity <> ledger OR reserved_quantity <> live
  OR reserved_quantity NOT BETWEEN 0 AND stock_quantity
"""
_RESERVATIONS = (
    "SELECT order_id, product_id, quantity, state FROM reservations ORDER BY order_id, product_id"
)
_LEDGER = "SELECT id, product_id, quantity, note FROM stock_ledger ORDER BY id"
_ORDERS = "SELECT id, status, total_amount FROM orders ORDER BY id"
_SHIPMENTS = "SELECT id, order_id, status FROM shipments ORDER BY id"
_PUBLISHED = "SELECT DISTINCT event_id FROM outbox"
_RECORDED = "SELECT event_id FROM order_events"
_CONSUMED = "SELECT event_id FROM inbox UNION SELECT event_id FROM dead_letters"
_DEAD_BODIES = "SELECT DISTINCT body FROM dead_letters"
_HISTORY = "SELECT order_id, type FROM order_events"


class InvariantChecker:
    """Collects what a run has committed, accepted and sent, and every violation of an invariant.

    `databases` are those of the services, read without injected faults.
    """

    def __init__(self, databases: Mapping[str, sqlite3.Connection]) -> None:
        self.violated = asyncio.Event()
        self.violations: list[Violation] = []
        self.accepted: dict[str, Order] = {}
        self._databases = databases
        self._checks: Mapping[str, Callable[[], None]] = {
            "orders": self._check_orders,
            "inventory": self._check_stock,
            "shipping": self._check_shipments,
        }
        self._changes: Counter[str] = Counter()
        self._statuses: dict[str, OrderStatus] = {}
        self._reservations: dict[str, tuple[ReservationState, Rows]] = {}
        self._ledger: Rows = []
        self._shipments: dict[str, ShipmentStatus] = {}
        self._published: dict[str, set[str]] = defaultdict(set)
        self._consumed: dict[str, set[str]] = defaultdict(set)

    def fail(self, invariant: str, problem: str, *orders: str) -> None:
        """Record a violation."""
        violation = Violation(invariant, problem, orders)
        if violation not in self.violations:
            self.violations.append(violation)
        self.violated.set()

    # After every commit.

    def committed(self, service: str) -> None:
        """Check what a service has just committed, if it has changed anything."""
        changes = self._databases[service].total_changes
        if changes == self._changes[service]:
            return
        self._changes[service] = changes
        written = _PUBLISHED if service != "orders" else f"{_PUBLISHED} UNION {_RECORDED}"
        self._published[service].update(event_id for (event_id,) in self._rows(service, written))
        self._consumed[service].update(event_id for (event_id,) in self._rows(service, _CONSUMED))
        if check := self._checks.get(service):
            check()

    def _check_orders(self) -> None:
        """Check I1 and I4: accepted orders exist; a status only moves forward, and never from an end."""
        rows = {
            order_id: (status, total) for order_id, status, total in self._rows("orders", _ORDERS)
        }
        for order_id, order in self.accepted.items():
            _, total = rows.get(order_id, (None, None))
            if total != order.total_amount:
                self.fail(
                    "I1", f"order {order_id} was accepted and is missing or changed", order_id
                )
        for order_id, (status, _) in rows.items():
            now = OrderStatus(status)
            before = self._statuses.get(order_id, now)
            if now is not before and now not in ORDER.reachable(before):
                self.fail("I4", f"order {order_id} was {before} and is {now} now", order_id)
            self._statuses[order_id] = now

    def _check_stock(self) -> None:
        """Check I2 and I4: the ledger adds up and only grows; a reservation is decided and ended once."""
        for product_id, on_hand, reserved, ledger, live in self._rows("inventory", _STOCK_OFF):
            self.fail(
                "I2",
                f"product {product_id}: {on_hand} on hand with {ledger} in the ledger, "
                f"{reserved} reserved with {live} in live reservations",
            )
        ledger = self._rows("inventory", _LEDGER)
        if ledger[: len(self._ledger)] != self._ledger:
            self.fail("I2", "entries of the ledger were changed or lost")
        self._ledger = ledger
        reservations = self._reservations_now()
        for order_id, (before, lines_before) in self._reservations.items():
            now, lines = reservations.get(order_id, (None, ()))
            if lines != lines_before or (
                now is not before and now not in RESERVATION.reachable(before)
            ):
                self.fail(
                    "I4", f"reservation of {order_id} was {before} and is {now} now", order_id
                )
        self._reservations = reservations

    def _reservations_now(self) -> dict[str, tuple[ReservationState, Rows]]:
        lines: dict[str, list[tuple[Any, ...]]] = {}
        states: dict[str, ReservationState] = {}
        for order_id, product_id, quantity, state in self._rows("inventory", _RESERVATIONS):
            lines.setdefault(order_id, []).append((product_id, quantity))
            states[order_id] = ReservationState(state)
        return {order_id: (states[order_id], lines[order_id]) for order_id in lines}

    def _check_shipments(self) -> None:
        """Check I4: the status of a shipment only moves forward."""
        for key, order_id, status in self._rows("shipping", _SHIPMENTS):
            now = ShipmentStatus(status)
            before = self._shipments.get(key, now)
            if now is not before and now not in SHIPMENT.successors(before):
                self.fail("I4", f"shipment {key} was {before} and is {now} now", order_id)
            self._shipments[key] = now

    # At every message that leaves a service.

    def answered(self, order: Order) -> None:
        """Check I1 when a caller is told that an order is accepted."""
        found = self._databases["orders"].execute(
            "SELECT total_amount FROM orders WHERE id = ?", (order.id,)
        )
        if found.fetchone() != (order.total_amount,):
            self.fail("I1", f"order {order.id} was accepted and is not in the database", order.id)
        first = self.accepted.setdefault(order.id, order)
        if (first.items, first.created_at) != (order.items, order.created_at):
            self.fail("I1", f"order {order.id} was answered with two different contents", order.id)

    def published(self, service: str, messages: Iterable[Outgoing]) -> None:
        """Check R2: an event is in the database before it is published."""
        for message in messages:
            head = head_of(message.body)
            assert head is not None
            if head.id not in self._published[service]:
                self.fail(
                    "R2", f"{service} published {head.type} before it was committed", head.subject
                )

    def acknowledged(self, service: str, deliveries: Iterable[Delivery]) -> None:
        """Check R2: a message is processed in the database before it is acknowledged."""
        for delivery in deliveries:
            head = head_of(delivery.body)
            if (
                head is None
                or head.id in self._consumed[service]
                or head.id in self._published[service]
            ):
                continue
            self.fail(
                "R2", f"{service} acknowledged {head.type} before it was committed", head.subject
            )

    def receipted(self, service: str, ids: Iterable[str]) -> None:
        """Check R2: a message is processed in the database before its receipt is sent."""
        for event_id in ids:
            if event_id not in self._consumed[service]:
                self.fail("R2", f"{service} receipted {event_id} before it was committed")

    def booked(self, order_id: str) -> None:
        """Check I4: the claim to call the carrier is committed before the call."""
        found = self._databases["shipping"].execute(
            "SELECT status FROM shipments WHERE order_id = ?", (order_id,)
        )
        if found.fetchone() in (None, (ShipmentStatus.INITIATED,)):
            self.fail("I4", "the carrier was called before the call was claimed", order_id)

    # At the end.

    def not_quiescent(self) -> list[str]:
        """Return what keeps the system from being quiescent: open orders, rows that wait for receipts."""
        waiting = [
            f"{service} waits for {count} receipts"
            for service in self._databases
            for (count,) in self._rows(service, "SELECT count(*) FROM outbox")
            if count
        ]
        open_orders = [
            f"order {order_id} is {status}"
            for order_id, status in self._statuses.items()
            if not status.terminal
        ]
        return waiting + open_orders

    def unparked(
        self, poison: Iterable[Outgoing], subjects_read: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Return which of these unprocessable messages a subscriber has not parked yet."""
        dead = {service: self._dead_bodies(service) for service in subjects_read}
        return [
            f"{service} has not parked a message on {message.subject}"
            for message in poison
            for service, subjects in subjects_read.items()
            if message.subject in subjects and message.body not in dead[service]
        ]

    def statuses(self) -> dict[str, int]:
        """Count the orders by status."""
        return dict(sorted(Counter(str(status) for status in self._statuses.values()).items()))

    def check_report(self, report: Report) -> None:
        """Check I1 to I5 as `todoku verify` does."""
        for finding in report.findings:
            orders = (finding.subject,) if finding.subject in self._statuses else ()
            self.fail(finding.invariant, f"{finding.subject}: {finding.problem}", *orders)

    def check_histories(self) -> None:
        """Check R5: every event has reached every subscriber, also where it changes nothing."""
        histories: dict[str, set[str]] = defaultdict(set)
        for order_id, name in self._rows("orders", _HISTORY):
            histories[order_id].add(name)
        for order_id, status in self._statuses.items():
            expected = {name_of(cause) for cause in ORDER.history(status)}
            if status.terminal and (missing := expected - histories[order_id]):
                self.fail("R5", f"orders never consumed {', '.join(sorted(missing))}", order_id)

    def check_bookings(self, answers: Mapping[str, tuple[str, Answer]]) -> None:
        """Check I4: a completed order has exactly one booking at the carrier, any other has none."""
        booked = Counter(
            order_id for order_id, answer in answers.values() if isinstance(answer, Accepted)
        )
        for order_id, status in self._statuses.items():
            expected = 1 if status is OrderStatus.COMPLETED else 0
            if booked[order_id] != expected:
                self.fail(
                    "I4", f"{order_id} is {status} with {booked[order_id]} bookings", order_id
                )

    def check_restocks(self, notes: Iterable[str]) -> None:
        """Check I2: every confirmed restock is in the ledger exactly once."""
        entered = Counter(note for _, _, _, note in self._rows("inventory", _LEDGER))
        for note in notes:
            if entered[note] != 1:
                self.fail("I2", f"{note} was confirmed and is in the ledger {entered[note]} times")

    def check_dead_letters(self, poison: Iterable[Outgoing]) -> None:
        """Check I3: nothing is parked that could have been processed."""
        bodies = {message.body for message in poison}
        for service in self._databases:
            for body in sorted(self._dead_bodies(service) - bodies):
                head = head_of(body)
                self.fail(
                    "I3",
                    f"{service} has parked {head.type if head else body[:60]!r}",
                    *([head.subject] if head else []),
                )

    def _dead_bodies(self, service: str) -> set[bytes]:
        return {body for (body,) in self._rows(service, _DEAD_BODIES)}

    def _rows(self, service: str, statement: str) -> Rows:
        return self._databases[service].execute(statement).fetchall()
