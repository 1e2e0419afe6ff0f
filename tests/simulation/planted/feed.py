"""Bugs: the feed of all orders' events misses one, repeats one, or puts an effect before its cause."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from simulation import planting
from simulation.planting import Wrapped, mutant, mutant_of_pairs
from todoku.lab.simulation.wiring import Parts, Wire
from todoku.orders.feed import decode
from todoku.orders.store import feed


def sequencing(arrived: Callable[[Connection], Any]) -> Wire:
    """Replace which batches are put into the feed, and in which order."""

    def sequence(connection: Connection) -> int:
        if not connection.execute(select(feed.sequencer).with_for_update(skip_locked=True)).all():
            return 0
        rows = arrived(connection)
        position = feed.head(connection)
        for row in rows:
            position += len(decode(row.events))
            connection.execute(insert(feed.table).values(position=position, events=row.events))
            connection.execute(delete(feed.arrivals).where(feed.arrivals.c.id == row.id))
        return len(rows)

    def wire(parts: Parts) -> Parts:
        if parts.service.name != "orders":
            return parts
        return msgspec.structs.replace(parts, service=replace(parts.service, upkeep=(sequence,)))

    return wire


@mutant_of_pairs
def feed_goes_on_above_open_transactions() -> Wire:
    """The feed goes on above the highest number that it has seen: a batch whose transaction was open then,
    with a lower number, is overlooked."""
    last = 0

    def arrived(connection: Connection) -> Any:
        nonlocal last
        ids = feed.arrivals.c.id
        query = select(feed.arrivals).where(ids > last).order_by(ids).with_for_update()
        rows = connection.execute(query).all()
        last = max([last, *(row.id for row in rows)])
        return rows

    return sequencing(arrived)


@mutant_of_pairs
def feed_has_effects_before_causes() -> Wire:
    """Batches that have arrived are put into the feed in another order."""

    def arrived(connection: Connection) -> Any:
        ids = feed.arrivals.c.id
        return connection.execute(
            select(feed.arrivals).order_by(ids.desc()).with_for_update()
        ).all()

    return sequencing(arrived)


@mutant
def cursor_skips_the_rest_of_a_batch() -> Wire:
    """A page that ends in the middle of a batch is followed by the next batch."""

    class Feed(Wrapped):
        def read(self, connection: Connection, after: int, limit: int) -> Any:
            ends = select(func.min(feed.table.c.position)).where(feed.table.c.position >= after)
            return self.inner.read(connection, connection.scalar(ends) or after, limit)

    class Store(Wrapped):
        def __init__(self, inner: Any, parts: Parts) -> None:
            super().__init__(inner, parts)
            self.feed = Feed(inner.feed, parts)

    return planting.store(Store, "orders")


@mutant
def epoch_goes_on_after_a_restore() -> Wire:
    """A restored database keeps its epoch, so copies with what it has lost go on."""

    class Positions(Wrapped):
        def begin_recovery(self, connection: Connection, epoch: int) -> None:
            self.inner.begin_recovery(connection, self.inner.epoch(connection))

    return planting.tables("positions", Positions)
