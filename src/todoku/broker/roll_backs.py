"""Begin new epochs of the stream for services that may not update it."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from todoku.broker.nats_wire import Message
from todoku.broker.port import BrokerError

BYTES_MAX = 200
PAUSE_SECONDS = 30.0
"""How often at most: a new epoch has every service publish again what waits for receipts."""

log = structlog.get_logger()


class RollBacks:
    """Call `mark` with the epoch that a service found rolled back; not more often than twice a minute, as any
    service may say so at any time."""

    def __init__(self, mark: Callable[[str], Awaitable[None]]) -> None:
        self._mark = mark
        self._marked_at = -PAUSE_SECONDS
        self._marking: asyncio.Task[None] | None = None

    def on_message(self, message: Message) -> None:
        """Begin a new epoch instead of the one that the message names, if it goes on."""
        if len(message.body) > BYTES_MAX or monotonic() - self._marked_at < PAUSE_SECONDS:
            return
        self._marked_at = monotonic()
        ended = message.body.decode(errors="replace")
        self._marking = asyncio.create_task(self._begin_epoch(ended))

    async def _begin_epoch(self, ended: str) -> None:
        log.warning("stream_rolled_back_elsewhere", stream_epoch=ended)
        try:
            await self._mark(ended)
        except BrokerError as error:
            log.warning("stream_epoch_not_begun", error=str(error))
