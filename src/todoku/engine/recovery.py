"""What a service does when its database is older than the broker: restored from a backup.

The stream still holds what the database has forgotten. First the service is told again what it said
itself, so that it never decides anew on what others have long acted upon; then it reads everything
else from the stream's start, and the inbox passes over what was dealt with before the backup. Until
then it has no effects outside. What the stream no longer holds stays forgotten: `todoku verify` lists
what does not fit together.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from todoku.broker.port import Broker, BrokerError, Delivery, Progress, Subscription
from todoku.database import Database
from todoku.engine.relay import Run
from todoku.engine.service import Service
from todoku.engine.tables import StreamPositions

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.2
"""How long until an away broker is asked again, and how far a reader is by now."""

Deliver = Callable[[Sequence[Delivery]], None]


class Recovery:
    """Finds out whether the database lacks what was settled once, and has it told again."""

    def __init__(
        self,
        service: Service,
        broker: Broker,
        database: Database,
        positions: StreamPositions,
        *,
        run: Run,
    ) -> None:
        self._service = service
        self._broker = broker
        self._database = database
        self._positions = positions
        self._run = run

    async def needed(self) -> bool:
        """Whether something was acknowledged that this database knows nothing of.

        A message is acknowledged after the commit that notes its place in the stream. So if there is
        one behind the last place noted that is acknowledged all the same, the commit was undone.
        """
        progress = await self._broker.progress([self._service.name])
        reached = await self._run(self._reached, progress.stream_epoch)
        subjects = [event.subject for event in self._service.event_handlers]
        following = await self._broker.first_after(reached, subjects)
        consumed = progress.consumed.get(self._service.name, 0)
        return following is not None and following <= consumed

    async def recall(self, deliver: Deliver) -> Subscription | None:
        """Hear again what this service said itself, and what ended it, in the stream's order. The
        reader is handed back to be waited for."""
        subjects = [event.subject for event in self._service.replay_handlers]
        if not subjects:
            return None
        await self._broker.forget(self.durable)
        return await self._broker.subscribe(self.durable, subjects, deliver)

    @property
    def durable(self) -> str:
        """The name of the reader of what the service said itself."""
        return f"{self._service.name}-recall"

    async def caught_up(self, durable: str, stream: Progress) -> None:
        """Wait until a reader has settled what the stream held then, or the stream is lost."""
        while True:
            try:
                progress = await self._broker.progress([durable])
                if progress.stream_epoch != stream.stream_epoch:
                    return
                if progress.consumed.get(durable, 0) >= stream.last_sequence:
                    return
            except BrokerError as error:
                log.debug("could not look how far the reader is", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)

    def _reached(self, stream_epoch: str) -> int:
        with self._database.read() as connection:
            return self._positions.reached(connection, stream_epoch)
