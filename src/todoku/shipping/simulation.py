"""Simulate a carrier whose answers get lost or late, and check that each parcel is booked once."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Final, cast

import msgspec

from todoku.contracts import (
    BookingAttemptFailedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
)
from todoku.settings import Span
from todoku.shipping.carriers import SimulatedCarrier, booking_effects
from todoku.shipping.domain import (
    PAST_PIVOT,
    PUBLISHED_EVERY,
    SHIPMENT,
    Accepted,
    Answer,
    Parcel,
    ShipmentStatus,
    Unknown,
    pause_after,
)
from todoku.shipping.store import decode_holds
from todoku.simulated import Effects, SimulatedService, World

INITIATED, BOOKING = ShipmentStatus.INITIATED, ShipmentStatus.BOOKING
EXPECTED = ShipmentStatus.EXPECTED

CARRIER_SECONDS_MAX: Final = 30.0

ENDINGS: Final = (ShipmentCompletedEvent.__name__, ShipmentFailedEvent.__name__)

GARBLED: Final[tuple[object, ...]] = (
    Unknown("the carrier's answer was lost"),
    Accepted(12345),  # type: ignore[arg-type]
    Accepted(""),
    Unknown([]),  # type: ignore[arg-type]
    None,
    "accepted",
)
"""What arrives instead of an answer that is lost."""

_SHIPMENTS = "SELECT id, order_id, status FROM shipments ORDER BY id"
_UNFINISHED = "SELECT status, holds FROM shipments"
_PUBLISHED_A_FAILURE = "SELECT order_id FROM shipments WHERE failure_published_at IS NOT NULL"
_FAILURES = f"""
SELECT data FROM order_events WHERE type = '{BookingAttemptFailedEvent.__name__}' ORDER BY order_id
"""
_ORDERS = "SELECT id FROM orders"
_HOLDS = "SELECT holds FROM shipments WHERE order_id = ?"
_STATUS = "SELECT status FROM shipments WHERE order_id = ?"


class SimulatedShipping(SimulatedService):
    """Runs an unreliable carrier; checks I4."""

    @property
    def restorable(self) -> bool:
        return True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._statuses: dict[str, ShipmentStatus] = {}
        self._carrier = UnreliableCarrier(world)
        self._replays = False

    def settings(self) -> Mapping[str, object]:
        seconds = self.world.random("settings").choice((0, 2, 100))
        return {"carrier_delay_seconds": Span(0, seconds)}

    def effects(self) -> Effects | None:
        return booking_effects(self._carrier)

    def restored(self, published: Collection[tuple[str, str]]) -> None:
        """The carrier must not be called for what it has answered: the stream has its answer."""
        self._replays = True
        self._statuses = {
            key: ShipmentStatus(status) for key, _, status in self.world.rows(_SHIPMENTS)
        }
        self._carrier.ended.update(key for key, event_type in published if event_type in ENDINGS)

    def check_commit(self) -> None:
        """Check I4: the status of a shipment only moves forward; a replay may leave out steps."""
        for key, order_id, status in self.world.rows(_SHIPMENTS):
            now = ShipmentStatus(status)
            before = self._statuses.get(key, now)
            # One that was expected may be open and due in the same transaction.
            leaves_out = self._replays or before is EXPECTED
            following = SHIPMENT.reachable if leaves_out else SHIPMENT.successors
            if now is not before and now not in following(before):
                self.world.fail("I4", f"shipment {key} was {before} and is {now} now", order_id)
            self._statuses[key] = now

    def open_work(self) -> Iterable[str]:
        """Return that shipments are on their way: also those of a forged event, which has no order. One that
        is held waits for its order, which has not ended then."""
        unfinished = sum(
            ShipmentStatus(status) in (INITIATED, BOOKING) and not _held(holds)
            for status, holds in self.world.rows(_UNFINISHED)
        )
        return [f"{unfinished} shipments have not ended"] if unfinished else []

    def check_end(self) -> None:
        """Check I4: a completed shipment has exactly one booking at the carrier, any other order none."""
        booked = self._carrier.bookings()
        completed = {
            order_id
            for _, order_id, status in self.world.rows(_SHIPMENTS)
            if ShipmentStatus(status) is ShipmentStatus.COMPLETED
        }
        for order_id in sorted(completed | booked.keys()):
            if booked[order_id] != (order_id in completed):
                ended = "completed" if order_id in completed else "not completed"
                problem = f"the shipment of {order_id} is {ended} with {booked[order_id]} bookings"
                self.world.fail("I4", problem, order_id)
        self._check_failed_attempts()

    def _check_failed_attempts(self) -> None:
        """Check R5: failed attempts reach the order, and of two that follow one another the later one was
        decided a minute after the other, by the clock of its process. Where clocks differ, an attempt may be
        decided twice, and only the first time is known."""
        found: dict[str, list[tuple[int, datetime]]] = {}
        for (data,) in self.world.rows_of("orders", _FAILURES):
            event = msgspec.json.decode(data, type=BookingAttemptFailedEvent)
            decided_at = event.next_attempt_at - pause_after(event.attempts)
            found.setdefault(event.order_id, []).append((event.attempts, decided_at))
        for order_id, failures in found.items():
            for (_, before), (attempts, after) in pairwise(sorted(failures)):
                if abs(after - before) < PUBLISHED_EVERY and not self.world.clocks_differ:
                    problem = f"failed attempt {attempts} was published within a minute of the last"
                    self.world.fail("R5", problem, order_id)
        accepted = {order_id for (order_id,) in self.world.rows_of("orders", _ORDERS)}
        for (order_id,) in self.world.rows(_PUBLISHED_A_FAILURE):
            if order_id in accepted - found.keys():
                problem = "orders never learned that the carrier had not answered"
                self.world.fail("R5", problem, order_id)


def _held(holds: str | None) -> bool:
    return holds is not None and any(hold.is_open for hold in decode_holds(holds))


class UnreliableCarrier:
    """A carrier whose answers get lost or late, and which records what it has really accepted."""

    def __init__(self, world: World) -> None:
        random = world.random("carrier")
        self._carrier = SimulatedCarrier(
            success_rate=random.choice((0.0, 0.5, 0.9, 1.0)), seed=random.randrange(2**32)
        )
        self._world = world
        self._answers: dict[str, tuple[str, Answer]] = {}
        self.ended: set[str] = set()
        """Orders whose parcels were answered before the database was restored."""

    def bookings(self) -> Counter[str]:
        """Count the accepted bookings by order; calls with the same key are one."""
        return Counter(
            order_id for order_id, answer in self._answers.values() if isinstance(answer, Accepted)
        )

    async def book(self, key: str, parcel: Parcel) -> Answer:
        """Book as the simulated carrier does, with injected faults."""
        self._check_claim(parcel.order_id)
        if parcel.order_id in self.ended:
            problem = (
                "the carrier was called for a parcel that it had answered, before it was restored"
            )
            self._world.fail("I4", problem, parcel.order_id)
        if self._world.inject("effect-unreachable"):
            raise ConnectionError("the carrier is unreachable")
        answer = await self._carrier.book(key, parcel)
        self._answers[key] = (parcel.order_id, answer)
        self._world.note("answer", f"{answer!r} for {parcel.order_id}")
        if random := self._world.inject("effect-reply-lost"):
            return cast(Answer, random.choice(GARBLED))
        if random := self._world.inject("effect-late"):
            await asyncio.sleep(random.uniform(0, CARRIER_SECONDS_MAX))
        return answer

    def _check_claim(self, order_id: str) -> None:
        """Check I4: the claim to call the carrier is committed before the call."""
        statuses = {ShipmentStatus(status) for (status,) in self._world.rows(_STATUS, order_id)}
        if any(_held(holds) for (holds,) in self._world.rows(_HOLDS, order_id)):
            self._world.fail("I4", "the carrier was called although the order is held", order_id)
        if not statuses & set(PAST_PIVOT):
            problem = "the carrier was called before the call was claimed"
            self._world.fail("I4", problem, order_id)
