"""Bugs: a restored database is not recovered, or not before something is decided on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from simulation import planting
from simulation.planting import (
    Wrapped,
    WrappedBroker,
    mutant,
    mutant_of_crowds,
    mutant_of_replicas,
)
from todoku.broker.port import Progress
from todoku.contracts import CancellationRequestedEvent, OrderCreatedEvent
from todoku.lab.simulation.wiring import Wire


@mutant
def one_lost_message_overlooked() -> Wire:
    """A restored database that lacks a single message is taken for whole."""

    class Broker(WrappedBroker):
        async def first_after(self, sequence: int, subjects: Sequence[str]) -> int | None:
            found: int | None = await self.inner.first_after(sequence + 1, subjects)
            return found

    return planting.broker(Broker)


@mutant
def interrupted_recovery_forgotten() -> Wire:
    """A recovery notes its place in the stream, and a crash during it makes the next start believe that the
    database is whole."""

    class Positions(Wrapped):
        def begin_recovery(self, connection: Any, *arguments: Any) -> None:
            connection.execute(
                self.inner.table.delete().where(self.inner.table.c.incarnation == "recovery")
            )

    return planting.tables("positions", Positions)


@mutant
def restored_copy_believed() -> Wire:
    """A copy of a database is taken for the database."""

    class Positions(Wrapped):
        def recovery(self, connection: Any) -> int | None:
            return self.inner.recovery(connection) or None

    return planting.tables("positions", Positions)


@mutant
def earlier_epochs_forgotten() -> Wire:
    """A service that starts after the broker was rolled back takes its own database for a restored one, and
    waits for an operator if the stream has lost its first messages."""

    class Positions(Wrapped):
        def reached(self, connection: Any, stream: Progress) -> Any:
            return self.inner.get(connection, stream.stream_epoch)

    return planting.tables("positions", Positions)


@mutant
def recovery_not_awaited() -> Wire:
    """Effects start, and events are decided on, before a restored database is whole."""

    class Broker(WrappedBroker):
        async def progress(self, readers: Sequence[str]) -> Progress:
            progress: Progress = await self.inner.progress(readers)
            ended = {name: progress.last_sequence for name in readers if name.endswith("-recall")}
            return msgspec.structs.replace(progress, consumed={**progress.consumed, **ended})

    return planting.broker(Broker)


@mutant_of_crowds
def request_that_overtakes_its_order_dropped() -> Wire:
    """The request of a cancellation that is replayed before its order is taken for one of a lost order."""

    def decide(original: Any, order: Any, event: Any, time: Any) -> Any:
        return (None, []) if order is None else original(order, event, time)

    return planting.together(
        planting.replays("orders", CancellationRequestedEvent, decide),
        planting.late("orders", OrderCreatedEvent, seconds=2),
    )


@mutant
def place_noted_too_far() -> Wire:
    """A service saves as its place in the stream the one behind the last message that it has handled."""

    class Positions(Wrapped):
        def advance_all(
            self, connection: Any, places: Mapping[str, int], owner: str | None
        ) -> None:
            further = {place: sequence + 1 for place, sequence in places.items()}
            self.inner.advance_all(connection, further, owner)

    return planting.tables("positions", Positions)


@mutant_of_replicas
def pieces_cancelled_before_the_replay() -> Wire:
    """A restored orders takes the cancellation of a piece before it has replayed what it lost: perhaps the
    cancellation of the whole order."""
    return planting.service("orders", waits_for_replay=lambda _: False)
