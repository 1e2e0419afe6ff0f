"""Bugs: an event does not reach every subscriber."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import delete

from simulation import planting
from simulation.planting import Receipts, Wrapped, WrappedBroker, mutant
from todoku.broker.port import BrokerUnavailable, Outgoing, Progress, Stored
from todoku.lab.simulation.wiring import Parts, Wire


@mutant
def outbox_deleted_at_publish() -> Wire:
    """An outbox row is deleted as soon as the broker has the event."""

    class Broker(WrappedBroker):
        async def publish(self, messages: Sequence[Outgoing]) -> Stored:
            stored: Stored = await self.inner.publish(messages)
            table = self.parts.service.store.tables.outbox.table
            with self.parts.database.transaction() as connection:
                connection.execute(
                    delete(table).where(table.c.body.in_([m.body for m in messages]))
                )
            return stored

    return planting.broker(Broker)


@mutant
def stream_forgotten_at_the_next_commit() -> Wire:
    """An event that no service subscribes to is forgotten before the broker has stored it."""

    class Outbox(Wrapped):
        def add(self, connection: Any, owner: str, position: int, events: Any, now: Any) -> Any:
            self.inner.mark_stored(connection, owner, [(0, position)])
            return self.inner.add(connection, owner, position, events, now)

    return planting.tables("outbox", Outbox)


class Resends(WrappedBroker):
    """Tells what is published for the first time from what is published again."""

    def __init__(self, inner: Any, parts: Parts) -> None:
        super().__init__(inner, parts)
        self.published: set[bytes] = set()
        self.last = Stored("", 0)

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        if all(message.body in self.published for message in messages):
            return await self.publish_again(messages)
        self.last = await self.inner.publish(messages)
        self.published.update(message.body for message in messages)
        return self.last

    async def publish_again(self, messages: Sequence[Outgoing]) -> Stored:
        raise NotImplementedError


@mutant
def suspects_dropped() -> Wire:
    """A resend that fails is not retried."""

    class Broker(Resends):
        def __init__(self, inner: Any, parts: Parts) -> None:
            super().__init__(inner, parts)
            self.forgotten: set[bytes] = set()

        async def publish_again(self, messages: Sequence[Outgoing]) -> Stored:
            try:
                return await self.inner.publish(messages)  # type: ignore[no-any-return]
            except BrokerUnavailable:
                self.forgotten.update(message.body for message in messages)
                raise

    class Outbox(Wrapped):
        def between(self, *arguments: Any) -> Any:
            rows = self.inner.between(*arguments)
            return [row for row in rows if row.body not in self.parts.broker.forgotten]

    wire = planting.broker(Broker)
    return lambda parts: planting.tables("outbox", Outbox)(wire(parts))


@mutant
def never_sent_again() -> Wire:
    """An event that a subscriber has passed without a receipt is not resent."""

    class Broker(Resends):
        async def publish_again(self, messages: Sequence[Outgoing]) -> Stored:
            return self.last

    return planting.broker(Broker)


@mutant
def stream_epoch_ignored() -> Wire:
    """A new stream epoch is not noticed."""

    class Broker(WrappedBroker):
        async def publish(self, messages: Sequence[Outgoing]) -> Stored:
            return msgspec.structs.replace(await self.inner.publish(messages), stream_epoch="one")

        async def progress(self, readers: Sequence[str]) -> Progress:
            return msgspec.structs.replace(await self.inner.progress(readers), stream_epoch="one")

    return planting.broker(Broker)


@mutant
def adoption_skipped() -> Wire:
    """The pending deliveries of a dead process are not adopted."""

    class Outbox(Wrapped):
        def adopt(self, connection: Any, new_owner: str, position: int, alive: Any) -> int:
            return position

    return planting.tables("outbox", Outbox)


@mutant
def lost_commit_answer_believed() -> Wire:
    """A commit whose result is unknown is taken for one that failed."""

    class Outbox(Wrapped):
        def last_position(self, connection: Any, owner: str) -> int:
            self.inner.last_position(connection, owner)
            return 0

    return planting.tables("outbox", Outbox)


@mutant
def stale_cache_used() -> Wire:
    """After a commit whose result is unknown, the cached state is used."""

    class Store(Wrapped):
        kept: dict[tuple[str, Any], Any]

        def load(self, connection: Any, subjects: Any, cache: Any) -> Any:
            # The cache that is handed in is valid again: what it has forgotten is put back.
            for (kind, key), state in self.kept.items():
                cache.put(kind, {key: state})
            return UnitOfWork(self.inner.load(connection, subjects, cache), self.parts)

        def save(self, connection: Any, unit_of_work: Any, now: Any) -> None:
            self.inner.save(connection, unit_of_work.inner, now)

    class UnitOfWork(Wrapped):
        def fill_cache(self, cache: Any) -> None:
            self.inner.fill_cache(Recorder(cache, self.parts))

    class Recorder(Wrapped):
        def put(self, kind: str, states: Any) -> None:
            Store.kept.update({(kind, key): state for key, state in states.items()})
            self.inner.put(kind, states)

    def wire(parts: Parts) -> Parts:
        if parts.service.name != "inventory":
            return parts
        Store.kept = {}  # A new process remembers nothing.
        return planting.store(Store)(parts)

    return wire


@mutant
def repeat_not_receipted() -> Wire:
    """A duplicate gets no receipt."""
    sent: set[tuple[str, str]] = set()

    class Broker(Receipts):
        def keep(self, event_id: str) -> bool:
            known = (self.parts.service.name, event_id) in sent
            sent.add((self.parts.service.name, event_id))
            return not known

    return planting.broker(Broker)


@mutant
def credit_not_renewed() -> Wire:
    """Handled messages do not renew the credit."""

    class Subscription(Wrapped):
        wanted = False

        def want(self, count: int) -> None:
            if not self.wanted:
                self.inner.want(count)
            self.wanted = True

    class Broker(WrappedBroker):
        async def subscribe(self, *arguments: Any, **start: Any) -> Any:
            return Subscription(await super().subscribe(*arguments, **start), self.parts)

    return planting.broker(Broker)
