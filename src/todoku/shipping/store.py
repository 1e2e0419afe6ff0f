"""The tables of the shipping service."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    insert,
    select,
    text,
    update,
)

from todoku.contracts import Context, Envelope, ShippedItem
from todoku.database import Integer64, Many, Query, Timestamp, among, table, to_microseconds
from todoku.engine import CONTEXT_COLUMN, EngineTables, StateCache, context_column
from todoku.shipping.domain import SHIPMENT, Shipment, ShipmentChange, ShipmentStatus
from todoku.shipping.holds import ShipmentHold

CACHED_LINES_MAX = 20
"""States with more lines are not cached, which bounds the memory of the cache."""

metadata = MetaData()

shipments = table(
    "shipments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("number", Integer64, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer64, nullable=False),
    Column("due_at", Timestamp),
    Column("tracking_number", Text),
    Column("reason", Text),
    Column("shipping_address", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    context_column(),
    Column("changes", Text),
    Column("holds", Text),
    Column("failure_published_at", Timestamp),
    UniqueConstraint("order_id", "number"),
    CheckConstraint(SHIPMENT.check("status"), name="status_known"),
    CheckConstraint(
        "(status IN ('INITIATED', 'BOOKING')) = (due_at IS NOT NULL) "
        "OR (status = 'INITIATED' AND holds IS NOT NULL)",
        name="unfinished_falls_due",
    ),
    CheckConstraint(
        "(status = 'COMPLETED') = (tracking_number IS NOT NULL)", name="completed_tracked"
    ),
    Index(
        "shipments_due",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    clustered=True,
)

shipment_items = table(
    "shipment_items",
    metadata,
    Column("shipment_id", Text, primary_key=True),
    Column("product_id", Text, primary_key=True),
    Column("quantity", Integer64, nullable=False),
    CheckConstraint("quantity >= 1", name="quantity_positive"),
    clustered=True,
)

_load_shipments = Query(
    select(shipments)
    .where(among(shipments.c.order_id, "ids"))
    .order_by(shipments.c.order_id)
    .with_for_update()
)
_load_items = Query(
    select(shipment_items)
    .where(among(shipment_items.c.shipment_id, "ids"))
    .order_by(shipment_items.c.shipment_id, shipment_items.c.product_id)
)

CHANGING = ("status", "attempts", "due_at", "tracking_number", "reason", "updated_at")
SELDOM_CHANGING = ("changes", "holds", "shipping_address", "created_at", "failure_published_at")

_insert_shipments = Many(
    insert(shipments), ("id", *CHANGING, *SELDOM_CHANGING, "order_id", "number", CONTEXT_COLUMN)
)
_insert_items = Many(insert(shipment_items), ("shipment_id", "product_id", "quantity"))
_delete_items = Many(delete(shipment_items).where(shipment_items.c.shipment_id == bindparam("key")))


def _update(*columns: str) -> Many:
    """Writes these columns of a shipment."""
    return Many(
        update(shipments)
        .where(shipments.c.id == bindparam("key"))
        .values({name: bindparam(name) for name in columns}),
        ("key", *CHANGING, *SELDOM_CHANGING),
    )


_update_shipments = _update(*CHANGING)
_update_failing_shipments = _update("failure_published_at", *CHANGING)
_update_changed_shipments = _update(*SELDOM_CHANGING, *CHANGING)

_encode = msgspec.json.Encoder().encode
_decode_changes = msgspec.json.Decoder(tuple[ShipmentChange, ...]).decode
decode_holds = msgspec.json.Decoder(tuple[ShipmentHold, ...]).decode


class ShippingUnitOfWork:
    """The shipments that a batch touches, by order."""

    def __init__(self, found: dict[str, Shipment]) -> None:
        self.before = found
        self.after = dict(found)
        self.contexts: dict[str, Context] = {}

    def view(self, subject: Any) -> Shipment | None:
        shipment = self.after.get(_order_id(subject))
        if shipment is not None:
            shipment.status.require_known("the shipment of order", shipment.order_id)
        return shipment

    def put(self, subject: Any, state: Shipment | None) -> None:
        assert state is not None, "every decision returns a shipment"
        self.after[state.order_id] = state

    def insert_context(self, key: str, context: Context) -> bool:
        if key in self.before:
            return False
        self.contexts[key] = context
        return True

    def record(self, envelope: Envelope) -> None:
        """The shipments are this service's history."""

    def fill_cache(self, cache: StateCache) -> None:
        cache.put(
            "shipments",
            {
                order_id: shipment
                for order_id, shipment in self.after.items()
                if len(shipment.items) <= CACHED_LINES_MAX
            },
        )


class ShippingStore:
    """Loads and saves shipments with their items. What falls due is named by its order."""

    metadata = metadata
    tables = EngineTables(metadata)

    def load(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> ShippingUnitOfWork:
        ids = {_order_id(subject) for subject in subjects}
        found = cache.get("shipments", ids)
        return ShippingUnitOfWork(found | _read_shipments(connection, ids - found.keys()))

    def save(self, connection: Connection, unit_of_work: ShippingUnitOfWork, now: datetime) -> None:
        touched = [
            shipment
            for order_id, shipment in unit_of_work.after.items()
            if shipment is not unit_of_work.before.get(order_id)
        ]
        new = [shipment for shipment in touched if shipment.order_id not in unit_of_work.before]
        old = [shipment for shipment in touched if shipment.order_id in unit_of_work.before]
        contexts = {key: _encode(each).decode() for key, each in unit_of_work.contexts.items()}
        _insert_shipments(
            connection, [_shipment_row(each, contexts.get(each.order_id)) for each in new]
        )
        changed: list[Shipment] = []
        failing: list[Shipment] = []
        plain: list[Shipment] = []
        for shipment in old:
            before = unit_of_work.before[shipment.order_id]
            # Of one that was expected, the parcel and the address were unknown.
            was_expected = before.status is ShipmentStatus.EXPECTED
            if shipment.changes or shipment.holds or was_expected:
                changed.append(shipment)
            else:
                (failing if shipment.failure_published_at else plain).append(shipment)
        repacked = [s for s in changed if s.items != unit_of_work.before[s.order_id].items]
        _delete_items(connection, [{"key": shipment.id} for shipment in repacked])
        _insert_items(connection, [row for s in (*new, *repacked) for row in _item_rows(s)])
        _update_shipments(connection, [_progress_row(shipment) for shipment in plain])
        _update_failing_shipments(connection, [_update_row(shipment) for shipment in failing])
        _update_changed_shipments(connection, [_update_row(shipment) for shipment in changed])


def find_shipment(connection: Connection, shipment_id: str) -> Shipment | None:
    """The shipment with this id, if there is one."""
    rows = connection.execute(select(shipments).where(shipments.c.id == shipment_id)).all()
    return next(iter(with_items(connection, rows)), None)


def list_shipments(
    connection: Connection, order_id: str | None, before: str | None, limit: int
) -> list[Shipment]:
    """Up to `limit` shipments, the latest order first, of one order or of all, older than `before`."""
    query = select(shipments).order_by(shipments.c.id.desc()).limit(limit)
    if order_id is not None:
        query = query.where(shipments.c.order_id == order_id)
    if before is not None:
        query = query.where(shipments.c.id < before)
    return with_items(connection, connection.execute(query).all())


def _read_shipments(connection: Connection, order_ids: set[str]) -> dict[str, Shipment]:
    if not order_ids:
        return {}
    rows = _load_shipments(connection, ids=sorted(order_ids))
    return {shipment.order_id: shipment for shipment in with_items(connection, rows)}


def with_items(connection: Connection, rows: Sequence[Any]) -> list[Shipment]:
    """The shipments of these rows of `shipments`, in the same order."""
    if not rows:
        return []
    items: dict[str, list[ShippedItem]] = {row.id: [] for row in rows}
    for row in _load_items(connection, ids=list(items)):
        items[row.shipment_id].append(ShippedItem(product_id=row.product_id, quantity=row.quantity))
    return [
        Shipment(
            id=row.id,
            order_id=row.order_id,
            items=tuple(items[row.id]),
            shipping_address=row.shipping_address,
            status=ShipmentStatus.stored(row.status),
            attempts=row.attempts,
            due_at=row.due_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
            tracking_number=row.tracking_number,
            reason=row.reason,
            changes=() if row.changes is None else _decode_changes(row.changes),
            holds=() if row.holds is None else decode_holds(row.holds),
            failure_published_at=row.failure_published_at,
        )
        for row in rows
    ]


def _order_id(subject: Any) -> str:
    """Return the order that a subject is about: a due row, and a command to republish, has it as its key."""
    order_id: str = getattr(subject, "order_id", None) or subject.key
    return order_id


def _shipment_row(shipment: Shipment, context: str | None) -> tuple[Any, ...]:
    """Return all columns of a shipment; it is the first one of its order."""
    return (*_update_row(shipment), shipment.order_id, 1, context)


def _update_row(shipment: Shipment) -> tuple[Any, ...]:
    """Return a shipment's `id`, and the columns that are `CHANGING` or `SELDOM_CHANGING`."""
    return (
        *_progress_row(shipment),
        _encode(shipment.changes).decode() if shipment.changes else None,
        _encode(shipment.holds).decode() if shipment.holds else None,
        shipment.shipping_address,
        to_microseconds(shipment.created_at),
        to_microseconds(shipment.failure_published_at),
    )


def _progress_row(shipment: Shipment) -> tuple[Any, ...]:
    """Return a shipment's `id`, and the columns that are `CHANGING`."""
    return (
        shipment.id,
        shipment.status.value,
        shipment.attempts,
        to_microseconds(shipment.due_at),
        shipment.tracking_number,
        shipment.reason,
        to_microseconds(shipment.updated_at),
    )


def _item_rows(shipment: Shipment) -> Iterable[tuple[Any, ...]]:
    for item in shipment.items:
        yield shipment.id, item.product_id, item.quantity
