"""Inject faults into the in-memory broker."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random


@dataclass
class Hostility:
    """Configure fault injection: a probability from 0 to 1 for each fault, and a count of those injected.

    A lost delivery is redelivered after the ack wait, as in JetStream. `lose_answer` stores all or a
    first part of what was published, and then does not answer. `delay_seconds_max` bounds each delay.
    """

    random: Random
    drop_delivery: float = 0.0
    duplicate_delivery: float = 0.0
    delay_delivery: float = 0.0
    reorder_deliveries: float = 0.0
    drop_ack: float = 0.0
    drop_notify: float = 0.0
    duplicate_notify: float = 0.0
    delay_notify: float = 0.0
    lose_answer: float = 0.0
    refuse_publish: float = 0.0
    delay_seconds_max: float = 1.0
    injected: Counter[str] = field(default_factory=Counter)

    def strikes(self, fault: str) -> bool:
        """Return whether this fault happens now, and count it."""
        probability: float = getattr(self, fault)
        if probability == 0.0 or self.random.random() >= probability:
            return False
        self.injected[fault] += 1
        return True

    def delay_seconds(self, fault: str) -> float:
        """Return a delay: 0 unless the fault strikes."""
        return self.random.uniform(0, self.delay_seconds_max) if self.strikes(fault) else 0.0


def call_after(seconds: float, callback: Callable[..., None], *args: object) -> None:
    """Call back later; calls due at once keep their order, unlike with call_later."""
    loop = asyncio.get_running_loop()
    if seconds == 0.0:
        loop.call_soon(callback, *args)
    else:
        loop.call_later(seconds, callback, *args)
