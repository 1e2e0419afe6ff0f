"""Simulated carrier whose answers can be lost or late."""

import asyncio

from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.invariants import InvariantChecker
from todoku.lab.simulation.trace import Trace
from todoku.shipping.carriers import SimulatedCarrier
from todoku.shipping.domain import Answer, Parcel, Unknown

CARRIER_SECONDS_MAX = 30.0


class UnreliableCarrier:
    """A carrier whose answers get lost, and which records what it has really accepted.

    `answers` maps each idempotency key to the order that it was used for and the carrier's answer.
    """

    def __init__(
        self, carrier: SimulatedCarrier, faults: Faults, checker: InvariantChecker, trace: Trace
    ) -> None:
        self.answers: dict[str, tuple[str, Answer]] = {}
        self._carrier = carrier
        self._faults = faults
        self._checker = checker
        self._trace = trace

    async def book(self, key: str, parcel: Parcel) -> Answer:
        """Book as the carrier does, with injected faults."""
        self._checker.booked(parcel.order_id)
        if self._faults.strike("carrier-unreachable"):
            raise ConnectionError("the carrier is unreachable")
        answer = await self._carrier.book(key, parcel)
        self.answers[key] = (parcel.order_id, answer)
        self._trace.note("carrier", "answer", f"{answer!r} for {parcel.order_id}")
        if self._faults.strike("carrier-answer-lost"):
            return Unknown("the carrier's answer was lost")
        if dice := self._faults.strike("carrier-late"):
            await asyncio.sleep(dice.uniform(0, CARRIER_SECONDS_MAX))
        return answer
