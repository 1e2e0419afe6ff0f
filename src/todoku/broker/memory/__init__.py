"""Implement the broker port in memory, for tests and simulations, with optional fault injection.

`MemoryBroker` is the server, which outlives the processes; `session` makes a process's connection
to it. Time is the running event loop's, so a loop with a virtual clock drives it. All randomness comes
from the `random.Random` given to `Hostility`, so the same seed gives the same run.
"""

from todoku.broker.memory.consumer import MemoryConsumer
from todoku.broker.memory.durable import DurableImage
from todoku.broker.memory.faults import Hostility
from todoku.broker.memory.server import DiskImage, MemoryBroker
from todoku.broker.memory.session import MemoryListener, MemorySession

__all__ = [
    "DiskImage",
    "DurableImage",
    "Hostility",
    "MemoryBroker",
    "MemoryConsumer",
    "MemoryListener",
    "MemorySession",
]
