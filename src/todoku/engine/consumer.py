"""Consumes a service's messages from the stream: into the mailbox, and acknowledgements back."""

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

import msgspec
import structlog

from todoku.broker.partitions import Partition, durables_of, most_consumed
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

    With several `partitions` it has a durable for each, and reads those that it `own`s: then events of one
    entity are handled by one process, and none waits for rows that another has locked. That is the only
    purpose: what two processes handle at the same time is handled correctly, too.

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
        partitions: Sequence[Partition],
        begin_partition: Callable[[str, str, int], Awaitable[None]],
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._partitions = partitions
        self._begin_partition = begin_partition
        self._owned: frozenset[int] = frozenset()
        self._reading = asyncio.Lock()
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
        self._subscriptions: dict[str, Subscription] = {}
        """By durable."""
        self._last_subscription: Subscription | None = None
        """The latest, whether it is stopped or not."""
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
                self.caught_up = self.replayed = True
                break
            except (BrokerError, DatabaseUnavailable) as error:
                log.debug("subscribing_delayed", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
        self._mailbox.wake()

    async def own(self, numbers: frozenset[int]) -> None:
        """Read these partitions from now on, and no others."""
        if numbers != self._owned:
            log.info("partitions_owned", partitions=sorted(numbers))
        self._owned = numbers
        if self.caught_up and len(self._partitions) > 1:
            await self._subscribe()

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
        for subscription in list(self._subscriptions.values()):
            await subscription.stop()

    def acknowledge(self, actions: PostCommitActions) -> None:
        """Acknowledge, nack or terminate messages after their commit."""
        subscription = self._acknowledging()
        if subscription is None or not (actions.acks or actions.naks or actions.terms):
            return
        self._failpoint("before-ack")
        subscription.ack(actions.acks)
        for delivery, delay_seconds in actions.naks:
            subscription.nak(delivery, delay_seconds)
        for delivery in actions.terms:
            subscription.term(delivery)
        self._failpoint("after-ack")

    def _acknowledging(self) -> Subscription | None:
        """Return a subscription that acknowledges: any of them can, since a delivery names its durable; one
        that is stopped can until the connection is lost."""
        return next(iter(self._subscriptions.values()), self._last_subscription)

    def refill(self, used: Iterable[Delivery]) -> None:
        """Request as many messages as have left the mailbox, of each durable that is still read."""
        if self._stopped:
            return
        for durable, count in Counter([delivery.durable for delivery in used]).items():
            if durable in self._subscriptions:
                self._subscriptions[durable].want(count)

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
        subjects = Partition(self._service.name).filters(event.subject for event in events)
        subscription = await self._broker.subscribe(
            durable, subjects, deliver, start_after=start_after
        )
        self._subscriptions[durable] = self._last_subscription = subscription
        try:
            subscription.want(self._credit)
            whole = await self._recovery.caught_up(durable, stream)
        finally:
            del self._subscriptions[durable]
            await subscription.stop()
        await self._broker.forget(durable)
        return whole

    async def _subscribe(self) -> None:
        """Read what this process owns, and stop to read what it no longer does."""
        if not self._service.event_handlers:
            return
        if len(self._partitions) == 1:
            await self._read_partition(self._partitions[0], self._start_after, self._credit)
            return
        async with self._reading:
            for partition in self._partitions:
                if partition.number not in self._owned:
                    if subscription := self._subscriptions.pop(partition.durable, None):
                        await subscription.stop()
                elif partition.durable not in self._subscriptions and not self._stopped:
                    start_after = await self._start_of(partition)
                    credit = max(1, self._credit // len(self._owned))
                    await self._read_partition(partition, start_after, credit)

    async def _read_partition(
        self, partition: Partition, start_after: StartAfter | None, credit: int
    ) -> None:
        subjects = [event.subject for event in self._service.event_handlers]
        subscription = await self._broker.subscribe(
            partition.durable, partition.filters(subjects), self._deliver, start_after=start_after
        )
        self._subscriptions[partition.durable] = self._last_subscription = subscription
        subscription.want(credit)

    async def _start_of(self, partition: Partition) -> StartAfter | None:
        """Return the place behind which a new partition begins: where the service has acknowledged everything
        that it read in another number of partitions, or undivided. That place is saved before the durable
        exists: nothing before it is lacking."""
        progress = await self._broker.progress(durables_of(self._service.name))
        floor = most_consumed(progress.consumed, self._service.name)
        if partition.durable in progress.consumed or not floor:
            return self._start_after
        await self._begin_partition(progress.stream_epoch, partition.durable, floor)
        return StartAfter(progress.stream_epoch, floor)

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
        if done and (subscription := self._acknowledging()):
            subscription.ack(done)
            # They never reach the mailbox, from which the others are requested again.
            self.refill(done)
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
