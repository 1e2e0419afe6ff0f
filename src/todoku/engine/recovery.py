"""Recovery of a database that is older than the stream, because it was restored from a backup.

The stream still holds what the database has lost. First the service replays its own events, so that
it never decides anew on what other services have acted upon; then it consumes everything else from the
start of the stream, and the inbox skips what was handled before the backup. Until then it starts no
effects. What the stream no longer holds stays lost: `todoku verify` lists the inconsistencies.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from todoku.broker.port import Broker, BrokerError, Delivery, Progress, Subscription
from todoku.database import Database
from todoku.engine.relay import Run
from todoku.engine.service import Service
from todoku.engine.tables import TIMELINE

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.2
"""How often an unavailable broker, or the progress of a consumer, is polled."""

Deliver = Callable[[Sequence[Delivery]], None]


class Recovery:
    """Detects that the database lacks acknowledged messages, and replays the stream."""

    def __init__(
        self,
        service: Service,
        broker: Broker,
        database: Database,
        *,
        run: Run,
    ) -> None:
        self._service = service
        self._broker = broker
        self._database = database
        self._positions = service.store.tables.positions
        self._run = run

    async def needed(self) -> bool:
        """Return whether this database may lack what was committed.

        A message is acknowledged after the commit that saves its sequence. So if one behind the last
        saved sequence is acknowledged, that commit was undone. A standby of PostgreSQL that was
        promoted may also lack commits that acknowledged nothing: another timeline tells.
        """
        if await self._run(self._other_timeline):
            return True
        progress = await self._broker.progress([self._service.name])
        reached = await self._run(self._reached, progress.stream_epoch)
        if reached > progress.last_sequence:
            # The broker's disk was rolled back: it is the stream that lacks messages, and the
            # outboxes resend them in the new epoch.
            await self._broker.begin_epoch()
            return False
        subjects = [event.subject for event in self._service.event_handlers]
        following = await self._broker.first_after(reached, subjects)
        consumed = progress.consumed.get(self._service.name, 0)
        return following is not None and following <= consumed

    async def subscribe_to_own_events(self, deliver: Deliver) -> Subscription | None:
        """Subscribe from the start of the stream to the service's own events and those that end them;
        return the subscription, or None if there is nothing to replay."""
        subjects = [event.subject for event in self._service.replay_handlers]
        if not subjects:
            return None
        await self._broker.forget(self.durable)
        return await self._broker.subscribe(self.durable, subjects, deliver)

    @property
    def durable(self) -> str:
        """Return the name of the durable that replays the service's own events."""
        return f"{self._service.name}-recall"

    async def caught_up(self, durable: str, stream: Progress) -> None:
        """Wait until a durable has consumed what the stream held then, or the stream is lost."""
        while True:
            try:
                progress = await self._broker.progress([durable])
                if progress.stream_epoch != stream.stream_epoch:
                    return
                if progress.consumed.get(durable, 0) >= stream.last_sequence:
                    return
            except BrokerError as error:
                log.debug("consumer_progress_unavailable", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)

    def _other_timeline(self) -> bool:
        if self._database.exclusive:
            return False
        with self._database.read() as connection:
            saved = self._positions.get(connection, TIMELINE)
        current = self._database.timeline()
        if saved == 0 or current is None or saved == current:
            return False
        log.warning("database_timeline_changed", before=saved, now=current)
        return True

    def _reached(self, stream_epoch: str) -> int:
        with self._database.read() as connection:
            return self._positions.get(connection, stream_epoch)
