"""The tables of the orders service."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
    bindparam,
    insert,
    select,
    text,
    update,
)

from todoku.contracts import (
    TYPES_NOT_ABOUT_ORDERS,
    Envelope,
    OrderedItem,
    ParkingEvent,
    PausesEvent,
    ProductEvent,
)
from todoku.database import (
    Integer64,
    Many,
    Query,
    Timestamp,
    among,
    among_pairs,
    insert_ignoring_duplicates,
    pairs,
    table,
    to_microseconds,
)
from todoku.engine import ByType, EngineTables, StateCache
from todoku.orders.booking_failures import BookingFailure
from todoku.orders.catalogue import CatalogueEntry
from todoku.orders.catalogue_table import KIND as CATALOGUE
from todoku.orders.catalogue_table import Catalogue
from todoku.orders.changes import Change
from todoku.orders.domain import ORDER, Order, OrderStatus
from todoku.orders.feed import EventKey, Feed
from todoku.orders.holds import Hold, held_since, next_expiry
from todoku.orders.order_counts import count_committed
from todoku.orders.parked_messages import ParkedMessages
from todoku.orders.parking import ParkedMessage
from todoku.orders.pauses_elsewhere import PausesElsewhere, PausesElsewhereTable
from todoku.orders.placing import Placement, PlaceOrder

IN_FEED = 1
"""Tells that this program adds an event to the feed itself."""

CACHED_LINES_MAX = 20
"""States with more lines are not cached, which bounds the memory of the cache."""

metadata = MetaData()

orders = table(
    "orders",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("total_amount", Integer64, nullable=False),
    Column("currency", Text, nullable=False),
    Column("shipping_address", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("shipment_id", Text),
    Column("tracking_number", Text),
    Column("event_count", Integer64, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("saga_version", Integer64, nullable=False, server_default="1"),
    Column("changes", Text),
    Column("deadline", Timestamp),
    Column("due_at", Timestamp),
    Column("holds", Text),
    Column("held_since", Timestamp),
    Column("hold_expires_at", Timestamp),
    Column("status_since", Timestamp),
    Column("on_shortage", Text),
    Column("stock_awaited_at", Timestamp),
    Column("booking_failure", Text),
    CheckConstraint(ORDER.check("status"), name="status_known"),
    CheckConstraint("total_amount BETWEEN 0 AND 9007199254740991", name="total_amount_exact"),
    CheckConstraint(
        "status <> 'COMPLETED' OR tracking_number IS NOT NULL", name="completed_tracked"
    ),
    Index("orders_by_user", "user_id", "id"),
    Index("orders_by_status", "status", "id"),
    Index(
        "orders_due",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "orders_held",
        "id",
        sqlite_where=text("held_since IS NOT NULL"),
        postgresql_where=text("held_since IS NOT NULL"),
    ),
    Index(
        "orders_hold_expiries",
        "hold_expires_at",
        sqlite_where=text("hold_expires_at IS NOT NULL"),
        postgresql_where=text("hold_expires_at IS NOT NULL"),
    ),
    clustered=True,
)

order_items = table(
    "order_items",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("line", Integer64, primary_key=True),
    Column("product_id", Text, nullable=False),
    Column("quantity", Integer64, nullable=False),
    Column("price", Integer64, nullable=False),
    CheckConstraint("quantity >= 1", name="quantity_positive"),
    CheckConstraint("price >= 0", name="price_not_negative"),
    clustered=True,
)

order_events = table(
    "order_events",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("sequence", Integer64, nullable=False),
    Column("type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("actor", Text),
    Column("said_at", Timestamp, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    Column("status", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("cause", Text),
    # Set by programs that add the event to the feed themselves; for others, a trigger does.
    Column("in_feed", Integer64),
    CheckConstraint("sequence >= 1", name="sequence_positive"),
    # In SQLite, in the sequence in which it is written; a database from before 0.3.0 has it clustered.
)

parked_messages = ParkedMessages(metadata)
feed = Feed(metadata)
catalogue = Catalogue(metadata)
pauses_elsewhere = PausesElsewhereTable(metadata)

_load_orders = Query(
    select(orders).where(among(orders.c.id, "ids")).order_by(orders.c.id).with_for_update()
)
_load_items = Query(
    select(order_items)
    .where(among(order_items.c.order_id, "ids"))
    .order_by(order_items.c.order_id, order_items.c.line)
)
_find_order = Query(select(orders).where(orders.c.id == bindparam("order_id")))

PLACED = ("user_id", "total_amount", "currency", "shipping_address", "created_at", "saga_version")
CHANGING = ("reason", "shipment_id", "tracking_number", "event_count", "updated_at")
PROGRESS = ("status", "status_since", "due_at", *CHANGING)
"""The columns that change with the events of every order."""
SELDOM = (
    *("changes", "deadline", "holds", "held_since", "hold_expires_at"),
    *("on_shortage", "stock_awaited_at", "booking_failure"),
)
"""Those of few orders."""

_insert_orders = Many(insert(orders), ("id", *PROGRESS, *SELDOM, *PLACED))
_insert_items = Many(insert(order_items), ("order_id", "line", "product_id", "quantity", "price"))
_insert_events = Many(
    insert_ignoring_duplicates(order_events),
    (
        *("order_id", "event_id", "sequence", "type", "source", "actor", "said_at"),
        *("recorded_at", "status", "data", "cause", "in_feed"),
    ),
)


def _update(*columns: str) -> Many:
    """Writes these columns of an order."""
    return Many(
        update(orders)
        .where(orders.c.id == bindparam("key"))
        .values({name: bindparam(name) for name in columns}),
        ("key", *PROGRESS, *SELDOM),
    )


_update_orders = _update(*CHANGING)
# Apart, because an index on the status makes it cost twice as much.
_update_with_status = _update("status", "status_since", *CHANGING)
# So does the index on the due time, which is written twice: when the order is placed, and when it ends.
_update_with_due_time = _update("status", "status_since", "due_at", *CHANGING)
# Few orders have these.
WITH_CHANGES = (*PROGRESS, "deadline", "changes", "booking_failure", "stock_awaited_at")
_update_with_changes = _update(*WITH_CHANGES)
_update_with_holds = _update("holds", "held_since", "hold_expires_at", *WITH_CHANGES)

_encode = msgspec.json.Encoder().encode
decode_changes = msgspec.json.Decoder(tuple[Change, ...]).decode
decode_holds = msgspec.json.Decoder(tuple[Hold, ...]).decode
_decode_failure = msgspec.json.Decoder(BookingFailure).decode


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an order's history: what was published, by whom, when, and the order's status then."""

    sequence: int
    event_id: str
    type: str
    source: str
    actor: str | None
    said_at: datetime
    recorded_at: datetime
    status: str
    data: msgspec.Raw
    cause: str | None


_ENTRY = tuple(order_events.c[name] for name in HistoryEntry.__struct_fields__)
_load_events = Query(
    select(order_events.c.order_id, *_ENTRY).where(
        among_pairs(order_events.c.order_id, order_events.c.event_id, "keys")
    )
)


class OrdersUnitOfWork:
    """The orders that a batch touches, and what is added to their histories."""

    def __init__(
        self,
        found: dict[str, Order],
        event_counts: dict[str, int],
        parked: Mapping[tuple[str, str], ParkedMessage] | None = None,
        products: Mapping[str, CatalogueEntry] | None = None,
        paused: Mapping[str, PausesElsewhere] | None = None,
    ) -> None:
        self.paused_before = paused or {}
        self.paused = dict(self.paused_before)
        self.products_before = products or {}
        self.products = dict(self.products_before)
        self.before = found
        self.after = dict(found)
        self.parked_before = parked or {}
        self.parked = dict(self.parked_before)
        self.event_counts = event_counts
        self.recorded: list[tuple[int, OrderStatus, Envelope]] = []

    def view(
        self, subject: Any
    ) -> Order | Placement | ParkedMessage | CatalogueEntry | PausesElsewhere | None:
        about = _ABOUT[type(subject)]
        if about is Order:
            order = self.after.get(_order_id(subject))
            if order is not None:
                order.status.require_known("order", order.id)
            return order
        if about is Placement:
            return Placement(self.after.get(subject.order_id), self.products)
        if about is CatalogueEntry:
            return self.products.get(subject.product_id)
        if about is PausesElsewhere:
            return self.paused.get(subject.publisher)
        return self.parked.get((subject.publisher, subject.letter_id))

    def put(
        self, subject: Any, state: Order | ParkedMessage | CatalogueEntry | PausesElsewhere | None
    ) -> None:
        match state:
            case Order():
                self.after[state.id] = state
            case ParkedMessage():
                self.parked[state.service, state.letter_id] = state
            case CatalogueEntry():
                self.products[state.product_id] = state
            case PausesElsewhere():
                self.paused[state.service] = state
            case None:
                pass  # Something about an order that is lost for good.

    def record(self, envelope: Envelope) -> None:
        order_id = envelope.subject
        order = self.after.get(order_id)
        if order is None or envelope.type in TYPES_NOT_ABOUT_ORDERS:
            return  # About a product, or a parked message about an order that never was.
        counts = self.event_counts
        sequence = counts[order_id] = counts.get(order_id, 0) + 1
        self.recorded.append((sequence, order.status, envelope))

    def fill_cache(self, cache: StateCache) -> None:
        count_committed(self.before, self.after, self.recorded)
        cache.put(CATALOGUE, self.products)
        cache.put(
            "orders",
            {
                order_id: (order, self.event_counts.get(order_id, 0))
                for order_id, order in self.after.items()
                if len(order.items) <= CACHED_LINES_MAX
            },
        )


class OrdersStore:
    """Loads and saves orders with their items and their history."""

    metadata = metadata
    tables = EngineTables(metadata)
    feed = feed

    def load(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> OrdersUnitOfWork:
        by_state: dict[type, list[Any]] = {state: [] for state in _ABOUT.values()}
        for subject in subjects:
            by_state[_ABOUT[type(subject)]].append(subject)
        placements, parked = by_state[Placement], by_state[ParkedMessage]
        ids = {_order_id(subject) for subject in (*by_state[Order], *placements, *parked)}
        found = cache.get("orders", ids)
        read_products = catalogue.send(
            connection,
            cache,
            wanted={item.product_id for order in placements for item in order.items},
            changing={event.product_id for event in by_state[CatalogueEntry]},
        )
        found |= _read_orders(connection, ids - found.keys())
        return OrdersUnitOfWork(
            {order_id: order for order_id, (order, _) in found.items()},
            {order_id: event_count for order_id, (_, event_count) in found.items()},
            parked_messages.load(connection, {event.order_id for event in parked}),
            read_products(),
            pauses_elsewhere.load(
                connection, {event.publisher for event in by_state[PausesElsewhere]}
            ),
        )

    def save(self, connection: Connection, unit_of_work: OrdersUnitOfWork, now: datetime) -> None:
        parked_messages.save(
            connection,
            [
                message
                for key, message in unit_of_work.parked.items()
                if message is not unit_of_work.parked_before.get(key)
            ],
        )
        catalogue.save(
            connection,
            [
                entry
                for key, entry in sorted(unit_of_work.products.items())
                if entry is not unit_of_work.products_before.get(key)
            ],
        )
        pauses_elsewhere.save(
            connection,
            [
                state
                for key, state in sorted(unit_of_work.paused.items())
                if state is not unit_of_work.paused_before.get(key)
            ],
        )
        recorded = {envelope.subject for _, _, envelope in unit_of_work.recorded}
        new: list[Order] = []
        by_update: dict[Many, list[tuple[Any, ...]]] = {}
        for order_id, order in sorted(unit_of_work.after.items()):
            event_count = unit_of_work.event_counts.get(order_id, 0)
            before = unit_of_work.before.get(order_id)
            if before is None:
                new.append(order)
            elif order is not before or order_id in recorded:
                update_rows, row_of = _update_for(before, order)
                by_update.setdefault(update_rows, []).append(row_of(order, event_count))
        counts = unit_of_work.event_counts
        _insert_orders(connection, [_order_row(each, counts.get(each.id, 0)) for each in new])
        _insert_items(connection, [row for each in new for row in _item_rows(each)])
        for update_rows, rows in by_update.items():
            update_rows(connection, rows)
        recorded_at = to_microseconds(now)
        _insert_events(
            connection,
            [
                _event_row(sequence, status.value, envelope, recorded_at)
                for sequence, status, envelope in unit_of_work.recorded
            ],
        )
        feed.add(connection, [(e.subject, e.id) for _, _, e in unit_of_work.recorded], now)


def find_order(connection: Connection, order_id: str) -> Order | None:
    """The order with this id, if there is one."""
    rows = _find_order(connection, order_id=order_id)
    return next(iter(with_items(connection, rows)), None)


def has_ended(connection: Connection, order_id: str) -> bool:
    """Return whether the order has ended."""
    status = connection.scalar(select(orders.c.status).where(orders.c.id == order_id))
    return status is not None and OrderStatus.stored(status).terminal


def find_parked(
    connection: Connection, order_ids: Collection[str]
) -> Mapping[str, list[ParkedMessage]]:
    """The messages about each of these orders that wait for a person, here or elsewhere."""
    return parked_messages.open(connection, order_ids, OrdersStore.tables.dead_letters)


def history(connection: Connection, order_id: str) -> list[HistoryEntry]:
    """Return the events about an order, in the sequence in which this service consumed or published them."""
    found = connection.execute(
        select(*_ENTRY).where(order_events.c.order_id == order_id).order_by(order_events.c.sequence)
    ).mappings()
    return [_history_entry(dict(row)) for row in found]


def history_entries(
    connection: Connection, keys: Sequence[EventKey]
) -> dict[EventKey, HistoryEntry]:
    """Return these events of histories, by their keys."""
    rows = (row._asdict() for row in _load_events(connection, keys=pairs(keys)))
    return {(row.pop("order_id"), row["event_id"]): _history_entry(row) for row in rows}


def _history_entry(row: Mapping[str, Any]) -> HistoryEntry:
    return HistoryEntry(**{**row, "data": msgspec.Raw(row["data"].encode())})


def _read_orders(connection: Connection, ids: set[str]) -> dict[str, tuple[Order, int]]:
    """These orders, each with the number of events in its history."""
    if not ids:
        return {}
    read_orders = _load_orders.send(connection, ids=sorted(ids))
    read_items = _load_items.send_ahead(connection, ids=sorted(ids))
    rows = read_orders()
    return {
        order.id: (order, row.event_count)
        for order, row in zip(_with_items(rows, read_items), rows, strict=True)
    }


def with_items(connection: Connection, rows: Sequence[Any]) -> list[Order]:
    """Return the orders of these rows of `orders`, with their items."""
    return _with_items(rows, lambda: _load_items(connection, ids=[row.id for row in rows]))


def _with_items(rows: Sequence[Any], read_items: Callable[[], Sequence[Any]]) -> list[Order]:
    if not rows:
        return []
    items: dict[str, list[OrderedItem]] = {row.id: [] for row in rows}
    for row in read_items():
        items[row.order_id].append(
            OrderedItem(product_id=row.product_id, quantity=row.quantity, price=row.price)
        )
    return [
        Order(
            id=row.id,
            user_id=row.user_id,
            items=tuple(items[row.id]),
            total_amount=row.total_amount,
            currency=row.currency,
            shipping_address=row.shipping_address,
            status=OrderStatus.stored(row.status),
            created_at=row.created_at,
            updated_at=row.updated_at,
            reason=row.reason,
            shipment_id=row.shipment_id,
            tracking_number=row.tracking_number,
            saga_version=row.saga_version,
            changes=() if row.changes is None else decode_changes(row.changes),
            deadline=row.deadline,
            due_at=row.due_at,
            holds=() if row.holds is None else decode_holds(row.holds),
            status_since=row.status_since,
            on_shortage=row.on_shortage,
            stock_awaited_at=row.stock_awaited_at,
            booking_failure=(
                None if row.booking_failure is None else _decode_failure(row.booking_failure)
            ),
        )
        for row in rows
    ]


_ABOUT: ByType[type] = ByType(
    {
        PlaceOrder: Placement,
        ProductEvent: CatalogueEntry,
        ParkingEvent: ParkedMessage,
        PausesEvent: PausesElsewhere,
        object: Order,
    }
)
"""The state that a decision about a subject reads, by the type of the subject."""


def _order_id(subject: Any) -> str:
    """Return the order that a subject is about: a due row, and a command to republish, has it as its key."""
    order_id: str = getattr(subject, "order_id", None) or subject.key
    return order_id


def _order_row(order: Order, event_count: int) -> tuple[Any, ...]:
    """Return an order's `id`, `PROGRESS`, `SELDOM` and `PLACED`."""
    return (
        *_changed_row(order, event_count),
        order.user_id,
        order.total_amount,
        order.currency,
        order.shipping_address,
        to_microseconds(order.created_at),
        order.saga_version,
    )


def _changed_row(order: Order, event_count: int) -> tuple[Any, ...]:
    """Return an order's `id`, `PROGRESS` and `SELDOM`."""
    holds = order.holds
    return (
        *_progress_row(order, event_count),
        _encode(order.changes).decode() if order.changes else None,
        to_microseconds(order.deadline),
        _encode(holds).decode() if holds else None,
        to_microseconds(held_since(holds)) if holds else None,
        to_microseconds(next_expiry(holds)) if holds else None,
        order.on_shortage,
        to_microseconds(order.stock_awaited_at),
        order.booking_failure and _encode(order.booking_failure).decode(),
    )


def _progress_row(order: Order, event_count: int) -> tuple[Any, ...]:
    """Return an order's `id` and `PROGRESS`."""
    return (
        order.id,
        order.status.value,
        to_microseconds(order.status_since),
        to_microseconds(order.due_at),
        order.reason,
        order.shipment_id,
        order.tracking_number,
        event_count,
        to_microseconds(order.updated_at),
    )


def _update_for(
    before: Order, after: Order
) -> tuple[Many, Callable[[Order, int], tuple[Any, ...]]]:
    """Return the statement that writes what differs, and what makes its rows."""
    if after.holds is not before.holds:
        return _update_with_holds, _changed_row
    if (
        after.changes is not before.changes
        or after.booking_failure is not before.booking_failure
        or after.deadline is not before.deadline
        or after.stock_awaited_at is not before.stock_awaited_at
    ):
        return _update_with_changes, _changed_row
    if after.due_at != before.due_at:
        return _update_with_due_time, _progress_row
    if after.status is not before.status:
        return _update_with_status, _progress_row
    return _update_orders, _progress_row


def _item_rows(order: Order) -> Iterable[tuple[Any, ...]]:
    for line, item in enumerate(order.items, start=1):
        yield order.id, line, item.product_id, item.quantity, item.price


def _event_row(
    sequence: int, status: str, envelope: Envelope, recorded_at: int | None
) -> tuple[Any, ...]:
    return (
        envelope.subject,
        envelope.id,
        sequence,
        envelope.type,
        envelope.source,
        envelope.actor,
        to_microseconds(envelope.time),
        recorded_at,
        status,
        str(envelope.data, "utf-8"),
        envelope.causationid,
        IN_FEED,
    )
