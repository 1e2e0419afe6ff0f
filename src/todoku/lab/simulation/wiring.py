"""What a simulated machine hands to a process: the place where tests plant bugs.

Everything that a process depends on is handed to it: its service with handlers, store, agendas and
effects, the engine's tables in the store, the database, the connection to the broker, the limits, and
the failpoints.
So a bug is planted by handing over something else, and no private name of the engine is touched.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from todoku.broker.port import Broker
from todoku.database import Database
from todoku.engine import EngineConfig, IdempotencyKey, Process, Service
from todoku.engine.failpoints import Failpoint

Execute = Callable[[Process, Any, IdempotencyKey | None], Awaitable[Any]]
"""How a client sends a command to a process, with a key or without, and gets its result."""


async def execute(process: Process, command: Any, key: IdempotencyKey | None) -> Any:
    """Send a command to a process; return its result."""
    return await process.execute(command, key=key)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What one process gets."""

    service: Service
    database: Database
    broker: Broker
    config: EngineConfig
    failpoint: Failpoint
    execute: Execute = execute


Wire = Callable[[Parts], Parts]
"""Replaces parts before a process is made of them; called at each start of a process."""


def as_it_is(parts: Parts) -> Parts:
    """Replace nothing."""
    return parts
