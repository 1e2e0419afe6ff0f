"""The table of queues whose walk is due, and the agenda that walks them.

How a queue stands is a column of its product. Here is a row while its walk is due, apart from the product: a
walk locks its row before the reservations and the products, and who makes a walk due only inserts a row, so
that neither waits for the other the wrong way round.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    or_,
    select,
)
from sqlalchemy import text as sql

from todoku.database import Many, Query, Timestamp, table, to_microseconds, upsert
from todoku.engine import Agenda, Due
from todoku.inventory.domain import (
    Place,
    Product,
    Queue,
    Reservation,
    Stock,
    Walk,
    serve_queue,
)

PART: Final = 50
"""How many orders of a queue one batch looks at."""

QUEUES_AT_ONCE: Final = 4
"""How many queues one batch walks."""

LOOK_SECONDS: Final = 30.0
"""How often it is looked for queues that another process has left."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Queue).decode


class Queues:
    """At most one row a product: the walk of its queue is due."""

    def __init__(self, metadata: MetaData, products: Table, reservations: Table) -> None:
        self.table = table(
            "due_queues",
            metadata,
            Column("product_id", Text, primary_key=True),
            Column("due_at", Timestamp, nullable=False),
        )
        self._insert = Many(upsert(self.table, ["product_id"], ["due_at"]))
        self._delete = Many(delete(self.table).where(self.table.c.product_id == bindparam("key")))
        self._queue = Query(
            select(products.c.queue).where(products.c.id == bindparam("product_id"))
        )
        columns = reservations.c
        part = (
            select(columns.queued_at, columns.order_id)
            .where(columns.product_id == bindparam("product_id"), sql("state = 'WAITING'"))
            .order_by(columns.queued_at, columns.order_id)
            .limit(PART)
        )
        since = bindparam("since", type_=Timestamp)
        self._first = Query(part)
        self._next = Query(
            part.where(
                or_(
                    columns.queued_at > since,
                    and_(columns.queued_at == since, columns.order_id > bindparam("after")),
                )
            )
        )

    def concern(self, subject: Any) -> bool:
        """Return whether a subject is a queue whose walk is due."""
        return type(subject) is Due and subject.agenda.name == str(self.table.c.due_at)

    def load(self, connection: Connection, subjects: Sequence[Any]) -> dict[str, list[Place]]:
        """Return the next places of the queues that are walked, by product; at most `PART` of each."""
        return {
            subject.key: self._places(connection, subject.key)
            for subject in subjects
            if self.concern(subject)
        }

    def _places(self, connection: Connection, product_id: str) -> list[Place]:
        queue = None
        for row in self._queue(connection, product_id=product_id):
            queue = read_queue(row.queue)
        if queue is None or queue.walked_to is None:
            rows = self._first(connection, product_id=product_id)
        else:
            since, after = queue.walked_to
            rows = self._next(connection, product_id=product_id, since=since, after=after)
        return [(row.queued_at, row.order_id) for row in rows]

    def save(
        self, connection: Connection, before: Mapping[str, Product], after: Iterable[Product]
    ) -> None:
        """Write which walks have become due, and which have ended."""
        due: list[dict[str, Any]] = []
        ended: list[dict[str, Any]] = []
        for product in after:
            was = _due_at(before.get(product.id))
            now = _due_at(product)
            if now is not None and was is None:
                due.append({"product_id": product.id, "due_at": to_microseconds(now)})
            elif now is None and was is not None:
                ended.append({"key": product.id})
        self._insert(connection, due)
        self._delete(connection, ended)

    def agenda(self) -> Agenda[Stock]:
        """Return the agenda that walks the queues."""
        return Agenda(
            due_at=self.table.c.due_at,
            key=self.table.c.product_id,
            decide=serve_queue,
            due_at_of=due_at_of,
            key_of=lambda _: "",
            look_seconds=LOOK_SECONDS,
            rows_max=QUEUES_AT_ONCE,
        )


def walk_of(
    product_id: str, places: Sequence[Place], reservations: Mapping[str, Reservation]
) -> Walk:
    """Return the part of a queue with these places, as far as they are still taken."""
    found = (reservations.get(order_id) for _, order_id in places)
    return Walk(
        product_id=product_id,
        waiting=tuple(held for held in found if held is not None and held.state == "WAITING"),
        end=places[-1] if len(places) == PART else None,
    )


def read_queue(kept: str | None) -> Queue | None:
    """Return the queue of a product from its column."""
    return None if kept is None else _decode(kept)


def write_queue(queue: Queue | None) -> str | None:
    """Return a queue for its column."""
    return None if queue is None else _encode(queue).decode()


def due_at_of(state: Stock) -> datetime | None:
    """Return when a walk is due among the products of a state."""
    first: datetime | None = None
    for product in state.products.values():
        if product.queue is not None and (due_at := product.queue.due_at) is not None:
            first = due_at if first is None else min(first, due_at)
    return first


def _due_at(product: Product | None) -> datetime | None:
    return None if product is None or product.queue is None else product.queue.due_at
