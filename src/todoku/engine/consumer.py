"""Consumes a service's messages from the stream: into the mailbox, and acknowledgements back."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec
import structlog

from todoku.broker.port import (
    Broker,
    BrokerError,
    Delivery,
    Progress,
    StartAfter,
    Subscription,
)
from todoku.database import DatabaseUnavailable
from todoku.engine.dead_letters import describe
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.mailbox import Mailbox
from todoku.engine.messages import IncomingEvent, UndecodableMessage
from todoku.engine.post_commit import PostCommitActions
from todoku.engine.recovery import PAUSE_SECONDS, Recovery
from todoku.engine.service import Service
from todoku.events import (
    Envelope,
    Event,
    EventRegistry,
    FalseOrigin,
    UndecodableEvent,
    UnknownEventType,
    read_envelope,
)

log = structlog.get_logger(__name__)


class Consumer:
    """A service's durable consumer, with at most `credit` messages requested at a time.

    Until it has `caught_up` the database may lack what was acknowledged before; until it has `replayed`,
    also what the service itself has published.
    """

    def __init__(
        self,
        service: Service,
        broker: Broker,
        recovery: Recovery,
        mailbox: Mailbox,
        registry: EventRegistry,
        *,
        credit: int,
        begin: Callable[[Progress], Awaitable[int]],
        note_pauses: Callable[[int], None],
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self.caught_up = False
        self.replayed = False
        self._begin = begin
        self._note_pauses = note_pauses
        self._pauses_event = service.pauses_event.event if service.pauses_event else None
        self._service = service
        self._subjects = frozenset(event.subject for event in service.event_handlers)
        self._broker = broker
        self._recovery = recovery
        self._mailbox = mailbox
        self._registry = registry
        self._credit = credit
        self._failpoint = failpoint
        self._start_after: StartAfter | None = None
        self._subscription: Subscription | None = None
        self._stopped = False

    async def start(self) -> None:
        """Subscribe, once the broker answers; first replay the stream if the database lacks what was
        acknowledged before."""
        while True:
            try:
                await self._choose_start()
                if await self._recovery.needed():
                    await self._recovery.recover(
                        self._replay_own, self._read_rest, self._start_after
                    )
                await self._subscribe()
                break
            except (BrokerError, DatabaseUnavailable) as error:
                log.debug("subscribing_delayed", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
        self.caught_up = self.replayed = True
        self._mailbox.wake()

    async def _choose_start(self) -> None:
        """Find the place behind which a service that starts from now begins. It is saved before the
        durable exists, and what was published before it is never replayed either."""
        if self._service.starts_from == "beginning":
            return
        progress = await self._broker.progress([])
        sequence = await self._begin(progress)
        self._start_after = StartAfter(progress.stream_epoch, sequence)

    async def stop(self) -> None:
        """Stop receiving; what is in the mailbox can still be acknowledged."""
        self._stopped = True
        if self._subscription is not None:
            await self._subscription.stop()

    def acknowledge(self, actions: PostCommitActions) -> None:
        """Acknowledge, nack or terminate messages after their commit."""
        subscription = self._subscription
        if subscription is None or not (actions.acks or actions.naks or actions.terms):
            return
        self._failpoint("before-ack")
        subscription.ack(actions.acks)
        for delivery, delay_seconds in actions.naks:
            subscription.nak(delivery, delay_seconds)
        for delivery in actions.terms:
            subscription.term(delivery)
        self._failpoint("after-ack")

    def refill(self, used: int) -> None:
        """Request as many messages as have left the mailbox."""
        if self._subscription is not None and used and not self._stopped:
            self._subscription.want(used)

    async def _replay_own(self, stream: Progress) -> bool:
        """Replay the service's own events, and those that end what they began."""
        events = [*self._service.replay_handlers]
        if self._pauses_event is not None:
            events.append(self._pauses_event)
        whole = await self._read_again("recall", events, self._replay, stream, None)
        self.replayed = True
        return whole

    async def _read_rest(self, stream: Progress) -> bool:
        """Consume again what the service subscribes to."""
        return await self._read_again(
            "reread", self._service.event_handlers, self._deliver, stream, self._start_after
        )

    async def _read_again(
        self,
        purpose: str,
        events: Collection[type[Event]],
        deliver: Callable[[Sequence[Delivery]], None],
        stream: Progress,
        start_after: StartAfter | None,
    ) -> bool:
        """Read the stream through another durable up to where it was; return False if it was lost."""
        if not events:
            return True
        durable = f"{self._service.name}-{purpose}"
        await self._broker.forget(durable)
        subjects = [event.subject for event in events]
        self._subscription = await self._broker.subscribe(
            durable, subjects, deliver, start_after=start_after
        )
        try:
            self._subscription.want(self._credit)
            whole = await self._recovery.caught_up(durable, stream)
        finally:
            await self._subscription.stop()
        await self._broker.forget(durable)
        return whole

    async def _subscribe(self) -> None:
        if subjects := [event.subject for event in self._service.event_handlers]:
            self._subscription = await self._broker.subscribe(
                self._service.name, subjects, self._deliver, start_after=self._start_after
            )
            self._subscription.want(self._credit)

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        self._mailbox.put_messages([self._read(delivery) for delivery in deliveries])

    def _replay(self, deliveries: Sequence[Delivery]) -> None:
        replayed: list[IncomingEvent] = []
        done: list[Delivery] = []
        for message in map(self._read, deliveries):
            # An own event that we cannot decode was published by a newer version: skip it.
            if isinstance(message, UndecodableMessage):
                done.append(message.delivery)
            elif type(message.event) is self._pauses_event:
                self._note_pauses(message.event.version)  # type: ignore[attr-defined]
                done.append(message.delivery)
            else:
                replayed.append(msgspec.structs.replace(message, replayed=True))
        self._mailbox.put_messages(replayed)
        if self._subscription is not None and done:
            self._subscription.ack(done)
            # They never reach the mailbox, from which the others are requested again.
            self.refill(len(done))
            self._mailbox.wake()

    def _read(self, delivery: Delivery) -> IncomingEvent | UndecodableMessage:
        try:
            envelope, event = self._registry.decode(delivery.body, arrived_on=delivery.subject)
        except UndecodableEvent as error:
            newer = isinstance(error, UnknownEventType)
            return UndecodableMessage(
                delivery,
                describe(error),
                traceback.format_exc(),
                again=newer,
                envelope=None if isinstance(error, FalseOrigin) else _envelope(delivery.body),
                for_newer=newer and delivery.subject not in self._subjects,
            )
        return IncomingEvent(delivery, envelope, event)


def _envelope(body: bytes) -> Envelope | None:
    try:
        return read_envelope(body)
    except UndecodableEvent:
        return None
