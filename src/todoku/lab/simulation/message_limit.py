"""Lets the broker take only small messages for a while, and acts as the operator who retries what was parked.

An operator lowers `max_payload` of a NATS server, or moves to one with a lower one: events that were
committed before are not taken any more.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from random import Random

from todoku.broker.memory import MemoryBroker
from todoku.engine.dead_letter_handler import UNPUBLISHABLE
from todoku.engine.dead_letters import DeadLetterError, RetryDeadLetter
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.invariants import InvariantChecker
from todoku.lab.simulation.part import ServiceWorld
from todoku.simulated import Action

FAULT = "small-messages"
SECONDS_MAX = 20.0
OPERATOR_SECONDS = 5.0

_PARKED = (
    "SELECT id FROM dead_letters WHERE state = 'PARKED'"
    f" AND error LIKE '{UNPUBLISHABLE}:%' ORDER BY parked_at, id"
)


class MessageLimit:
    """The largest message that the broker takes in one run."""

    def __init__(
        self,
        broker: MemoryBroker,
        worlds: Mapping[str, ServiceWorld],
        faults: Faults,
        checker: InvariantChecker,
    ) -> None:
        self._broker = broker
        self._worlds = worlds
        self._checker = checker
        self._drawn = faults.draws(FAULT)

    def actions(self) -> Mapping[str, Action]:
        """Return what injects the fault."""
        return {FAULT: self._limit}

    def heal(self) -> None:
        """Take messages of every size again."""
        self._broker.max_message_bytes = None

    def unfinished(self) -> list[str]:
        """Return which services have an event that still has to be published."""
        return [f"{name} has an event parked" for name in self._worlds if self._parked(name)]

    async def operate(self) -> None:
        """Retry what was parked, again and again, also too early."""
        while self._drawn:
            await asyncio.sleep(OPERATOR_SECONDS)
            for name, world in self._worlds.items():
                for letter_id in self._parked(name):
                    with suppress(DeadLetterError):
                        await world.execute(RetryDeadLetter(letter_id=letter_id, by="operator"))

    async def _limit(self, dice: Random) -> None:
        """Refuse messages as large as one that was published before."""
        sizes = sorted({len(message.body) for message in self._broker.messages.values()})
        if sizes:
            self._broker.max_message_bytes = dice.choice(sizes) - 1
            await asyncio.sleep(dice.uniform(0, SECONDS_MAX))
            self._broker.max_message_bytes = None

    def _parked(self, name: str) -> list[str]:
        return [letter_id for (letter_id,) in self._checker.rows(name, _PARKED)]
