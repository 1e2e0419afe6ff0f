"""The tables of the inventory service."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from todoku.contracts import (
    NO_CONTEXT,
    Context,
    Envelope,
    PlacedHold,
    ProductChangedEvent,
    ProductEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockAdjustedEvent,
    StockAwaitedEvent,
    StockReservedEvent,
)
from todoku.database import Integer64, Many, Query, Timestamp, among, table, to_microseconds
from todoku.engine import ByType, EngineTables, RepublishEvents, StateCache
from todoku.inventory.amounts import Amounts, Floors, require_only_moved
from todoku.inventory.domain import (
    NOT_ARRIVED,
    RESERVATION,
    STOCK_REQUESTS,
    ArchiveProduct,
    CorrectStock,
    LedgerEntry,
    Line,
    Place,
    Product,
    Publication,
    Reservation,
    ReservationChange,
    ReservationState,
    Restock,
    SetLowStockThreshold,
    SetProduct,
    Stock,
    opening_id,
)
from todoku.inventory.publications import Publications
from todoku.inventory.queues import Queues, read_queue, walk_of, write_queue

LOCATION = "main"
"""The one place where stock lies; keys allow for more."""

CACHED_LINES_MAX = 20
"""States with more lines are not cached, which bounds the memory of the cache."""

metadata = MetaData()

products = table(
    "products",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("price", Integer64, nullable=False),
    Column("currency", Text, nullable=False),
    Column("stock_quantity", Integer64, nullable=False),
    Column("reserved_quantity", Integer64, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("version", Integer64, nullable=False, server_default="1"),
    Column("changed_at", Timestamp),
    Column("archived", Integer64, nullable=False, server_default="0"),
    Column("low_stock_threshold", Integer64),
    Column("threshold_version", Integer64, nullable=False, server_default="0"),
    Column("queue", Text),
    CheckConstraint("price BETWEEN 0 AND 9007199254740991", name="price_exact"),
    CheckConstraint("archived IN (0, 1)", name="archived_or_not"),
    CheckConstraint("stock_quantity BETWEEN 0 AND 9007199254740991", name="stock_exact"),
    CheckConstraint("reserved_quantity BETWEEN 0 AND stock_quantity", name="nothing_oversold"),
)

reservations = table(
    "reservations",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("product_id", Text, primary_key=True),
    Column("location", Text, primary_key=True),
    Column("quantity", Integer64, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("shipping_address", Text),
    Column("total_amount", Integer64),
    Column("currency", Text),
    Column("changes", Text),
    Column("cancelled", Integer64, nullable=False, server_default="0"),
    Column("queued_at", Timestamp),
    Column("context", Text),
    Column("holds", Text),
    CheckConstraint("quantity >= 1", name="quantity_positive"),
    CheckConstraint("cancelled BETWEEN 0 AND quantity", name="cancelled_of_quantity"),
    CheckConstraint(RESERVATION.check("state"), name="state_known"),
    Index(
        "reservations_waiting",
        "product_id",
        "queued_at",
        "order_id",
        sqlite_where=text("state = 'WAITING'"),
        postgresql_where=text("state = 'WAITING'"),
    ),
    clustered=True,
)

# What of an order was cancelled before it arrived: here two processes meet that have each found nothing, and
# add lines of different products.
early_changes = table(
    "early_changes",
    metadata,
    Column("order_id", Text, primary_key=True),
)

stock_ledger = table(
    "stock_ledger",
    metadata,
    Column("id", Integer64, primary_key=True),
    Column("product_id", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("order_id", Text),
    Column("reason", Text, nullable=False),
    Column("quantity", Integer64, nullable=False),
    Column("note", Text),
    Column("entered_at", Timestamp, nullable=False),
    Column("adjustment_id", Text),
    Column("code", Text),
    Column("adjusted_by", Text),
    CheckConstraint(  # For a list with IN, SQLite would fill a table for each row.
        "reason = 'OPENING' OR reason = 'RESTOCK' OR reason = 'CORRECTION' OR reason = 'SHIPMENT'",
        name="reason_known",
    ),
    CheckConstraint(
        "reason = 'CORRECTION' OR (reason = 'SHIPMENT') = (quantity < 0)",
        name="only_shipments_and_corrections_take",
    ),
    CheckConstraint("(reason = 'SHIPMENT') = (order_id IS NOT NULL)", name="shipments_have_orders"),
    Index(
        "one_deduction_an_order_and_product",
        "order_id",
        "product_id",
        "location",
        unique=True,
        sqlite_where=text("order_id IS NOT NULL"),
        postgresql_where=text("order_id IS NOT NULL"),
    ),
    # Not of all entries: each shipped line would pay for it.
    Index(
        "one_entry_an_adjustment",
        "adjustment_id",
        unique=True,
        sqlite_where=text("adjustment_id IS NOT NULL"),
        postgresql_where=text("adjustment_id IS NOT NULL"),
    ),
)

publications = Publications(metadata, products)
queues = Queues(metadata, products, reservations)
amounts = Amounts(products)

_some_products = select(products).where(among(products.c.id, "ids")).order_by(products.c.id)
_read_products = Query(_some_products)
_load_products = Query(_some_products.with_for_update())
_load_reservations = Query(
    select(reservations)
    .where(among(reservations.c.order_id, "ids"))
    .order_by(reservations.c.order_id, reservations.c.product_id)
    .with_for_update()
)
_load_adjusted = Query(
    select(stock_ledger.c.adjustment_id).where(among(stock_ledger.c.adjustment_id, "ids"))
)
_insert_products = Many(insert(products))


def _update(*columns: str, row: Sequence[str] = ()) -> Many:
    """Writes these columns of a product."""
    return Many(
        update(products)
        .where(products.c.id == bindparam("key"))
        .values({name: bindparam(name) for name in columns}),
        row,
    )


MOVING = ("stock_quantity", "reserved_quantity", "updated_at")
_update_stock = _update(*MOVING, row=("key", *MOVING))
_update_products = _update(
    "name", "price", "currency", "version", "changed_at", "archived", *MOVING
)
_update_queues = _update("queue")
_update_thresholds = _update("low_stock_threshold", "threshold_version", "updated_at")
_insert_reservations = Many(
    insert(reservations),
    (
        *("order_id", "product_id", "location", "quantity", "state", "created_at", "updated_at"),
        *("shipping_address", "total_amount", "currency", "changes", "cancelled", "queued_at"),
        *("context", "holds"),
    ),
)
_insert_early_changes = Many(insert(early_changes))
_end_reservations = Many(
    update(reservations)
    .where(reservations.c.order_id == bindparam("key"))
    .values(state=bindparam("state"), updated_at=bindparam("updated_at")),
    ("key", "state", "updated_at"),
)
_delete_reservations = Many(delete(reservations).where(reservations.c.order_id == bindparam("key")))
_insert_ledger = Many(
    insert(stock_ledger),
    (
        *("product_id", "location", "order_id", "reason", "quantity", "note", "entered_at"),
        *("adjustment_id", "code", "adjusted_by"),
    ),
)


_encode = msgspec.json.Encoder().encode
_decode_changes = msgspec.json.Decoder(tuple[ReservationChange, ...]).decode
_decode_holds = msgspec.json.Decoder(tuple[PlacedHold, ...]).decode

_decode_context = msgspec.json.Decoder(Context).decode

_NAMING_PRODUCTS: tuple[type[Any], ...] = (
    *STOCK_REQUESTS.values(),
    StockReservedEvent,
    StockAwaitedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
)
"""The events that name the products of an order."""

_NAME_PRODUCTS: frozenset[type[Any]] = frozenset(_NAMING_PRODUCTS)

_ADJUSTMENTS: frozenset[type[Any]] = frozenset({Restock, CorrectStock, StockAdjustedEvent})
"""What changes the stock of a product once, by the id of the adjustment."""


class InventoryUnitOfWork:
    """The products and reservations that a batch touches, the ledger entries that it adds, and how far
    the catalogue is published: `page` has the ids of the products that are next. With `floors`, the products
    are not locked."""

    def __init__(
        self,
        found: dict[str, Product],
        reserved: dict[str, Reservation],
        publication: Publication | None = None,
        page: Sequence[str] = (),
        adjusted: frozenset[str] = frozenset(),
        walked: Mapping[str, Sequence[Place]] | None = None,
        floors: Floors | None = None,
    ) -> None:
        self.floors = floors
        self.walked = walked or {}
        self.publication_before = publication
        self.publication = publication
        self.page = page
        self.products_before = found
        self.products = dict(found)
        self.reservations_before = reserved
        self.reservations = dict(reserved)
        self.entries: list[LedgerEntry] = []
        self.adjusted = adjusted

    def view(self, subject: Any) -> Stock:
        if publications.concern(subject):
            return Stock(
                products={key: self.products[key] for key in self.page},
                publication=self.publication,
            )
        if queues.concern(subject):
            return self._walk(subject.key)
        reservation = self.reservations.get(_order_id(subject) or "")
        ids = _product_ids(subject)
        if reservation is not None:
            reservation.state.require_known("the reservation of order", reservation.order_id)
            ids |= {line.product_id for line in reservation.lines}
        return Stock(
            products={key: self.products[key] for key in sorted(ids) if key in self.products},
            reservation=reservation,
            adjusted=self.adjusted,
        )

    def _walk(self, product_id: str) -> Stock:
        """Return what a walk of this product's queue decides on."""
        walk = walk_of(product_id, self.walked[product_id], self.reservations)
        ids = {line.product_id for held in walk.waiting for line in held.lines} | {product_id}
        return Stock(products={key: self.products[key] for key in sorted(ids)}, walk=walk)

    def put(self, subject: Any, state: Stock) -> None:
        self.products.update(state.products)
        if state.reservation is not None:
            self.reservations[state.reservation.order_id] = state.reservation
        for served in state.served:
            self.reservations[served.order_id] = served
        self.entries += state.entries
        self.publication = state.publication or self.publication
        if added := {entry.adjustment_id for entry in state.entries if entry.adjustment_id}:
            self.adjusted |= added

    def record(self, envelope: Envelope) -> None:
        """Keep the context of an order that waits, for what is decided later. The ledger and the reservations
        are this service's history."""
        if envelope.type == StockAwaitedEvent.__name__:
            held = self.reservations[envelope.subject]
            if held.state is ReservationState.WAITING and held.context != envelope.context:
                waiting = msgspec.structs.replace(held, context=envelope.context)
                self.reservations[held.order_id] = waiting

    def fill_cache(self, cache: StateCache) -> None:
        cache.put("products", self.products)
        cache.put(
            "reservations",
            {
                order_id: held
                for order_id, held in self.reservations.items()
                if len(held.lines) <= CACHED_LINES_MAX
            },
        )


class InventoryStore:
    """Loads and saves products, reservations and the ledger."""

    metadata = metadata
    tables = EngineTables(metadata)

    def load(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> InventoryUnitOfWork:
        order_ids = {key for subject in subjects if (key := _order_id(subject)) is not None}
        walked = queues.load(connection, subjects)
        for places in walked.values():
            order_ids.update(order_id for _, order_id in places)
        reserved = cache.get("reservations", order_ids)
        missing = _send_reservations(connection, order_ids - reserved.keys())
        product_ids = {key for subject in subjects for key in _product_ids(subject)}
        found: dict[str, Product] = {}
        if all(type(subject) in _NAME_PRODUCTS for subject in subjects):
            # Else all are locked together, in their order: two batches must not wait for each other.
            found = cache.get("products", product_ids)
            named = _send_products(connection, product_ids - found.keys())
            reserved |= missing()
            found |= named()
        else:
            reserved |= missing()
        product_ids |= {line.product_id for held in reserved.values() for line in held.lines}
        product_ids |= walked.keys()
        publication: Publication | None = None
        page: Sequence[str] = ()
        if any(publications.concern(subject) for subject in subjects):
            publication, page = publications.load(connection)
            product_ids.update(page)
        found |= cache.get("products", product_ids - found.keys())
        found |= _send_products(connection, product_ids - found.keys())()
        adjusted = _read_adjusted(connection, subjects)
        return InventoryUnitOfWork(found, reserved, publication, page, adjusted, walked)

    def save(
        self, connection: Connection, unit_of_work: InventoryUnitOfWork, now: datetime
    ) -> None:
        if unit_of_work.floors is None:
            _save_products(connection, unit_of_work)
        else:
            require_only_moved(unit_of_work.products_before, unit_of_work.products)
        _save_reservations(connection, unit_of_work)
        _insert_ledger(connection, [_ledger_row(entry) for entry in unit_of_work.entries])
        publication = unit_of_work.publication
        if publication is not None and publication is not unit_of_work.publication_before:
            publications.save(connection, publication)

    def load_unlocked(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> InventoryUnitOfWork:
        """Do as `load`, without locks on products whose exact amounts do not matter."""
        if not amounts.only_move(subjects):
            return self.load(connection, subjects, cache)
        order_ids = {key for subject in subjects if (key := _order_id(subject)) is not None}
        product_ids = {key for subject in subjects for key in _product_ids(subject)}
        # A product that is read after a reservation has at least the pieces of that reservation.
        reserve = _send_reservations(connection, order_ids)
        named = _send_products(connection, product_ids, _read_products)
        reserved, found = reserve(), named()
        lines = (line for held in reserved.values() for line in held.lines)
        others = {line.product_id for line in lines} - product_ids
        found |= _send_products(connection, others, _read_products)()
        floors = amounts.floors(subjects, found)
        if floors is None:
            found = _send_products(connection, product_ids | others)()
        return InventoryUnitOfWork(found, reserved, floors=floors)

    def save_last(self, connection: Connection, unit_of_work: InventoryUnitOfWork) -> None:
        """Write the amounts of products that are not locked."""
        if unit_of_work.floors is not None:
            before, after = unit_of_work.products_before, unit_of_work.products
            amounts.save(connection, unit_of_work.floors, before, after)


def find_product(connection: Connection, product_id: str) -> Product | None:
    """The product with this id, if there is one."""
    row = connection.execute(select(products).where(products.c.id == product_id)).first()
    return None if row is None else _product(row)


def list_products(connection: Connection, after: str, limit: int) -> list[Product]:
    """Up to `limit` products by id, beginning behind `after`."""
    found = connection.execute(
        select(products).where(products.c.id > after).order_by(products.c.id).limit(limit)
    )
    return [_product(row) for row in found]


def count_products(connection: Connection) -> int:
    """Return how many products there are."""
    return connection.scalar(select(func.count()).select_from(products)) or 0


def _order_id(subject: Any) -> str | None:
    """Return the order that a subject is about; commands about a product are about none."""
    if type(subject) is RepublishEvents:
        return subject.key
    order_id: str | None = getattr(subject, "order_id", None)
    return order_id


def _product_ids(subject: Any) -> set[str]:
    """Return the products that a subject names itself; others are found through the order's reservation."""
    return _PRODUCT_IDS[type(subject)](subject)


def _ids_of_items(subject: Any) -> set[str]:
    return {item.product_id for item in subject.items}


def _own_id(subject: Any) -> set[str]:
    return {subject.product_id}


def _no_ids(_: Any) -> set[str]:
    return set()


_ABOUT_PRODUCT = (
    *(SetProduct, ArchiveProduct, SetLowStockThreshold, Restock, CorrectStock),
    ProductChangedEvent,
    ProductEvent,
)
_PRODUCT_IDS: ByType[Callable[[Any], set[str]]] = ByType()
_PRODUCT_IDS[object] = _no_ids
_PRODUCT_IDS.update(dict.fromkeys(_NAMING_PRODUCTS, _ids_of_items))
_PRODUCT_IDS.update(dict.fromkeys(_ABOUT_PRODUCT, _own_id))


def _send_reservations(
    connection: Connection, order_ids: set[str]
) -> Callable[[], dict[str, Reservation]]:
    """Ask for the reservations of these orders; return what returns them."""
    if not order_ids:
        return dict
    rows = _load_reservations.send(connection, ids=sorted(order_ids))
    return lambda: _reservations(rows())


def _reservations(found: Iterable[Any]) -> dict[str, Reservation]:
    rows: dict[str, list[Any]] = {}
    for row in found:
        rows.setdefault(row.order_id, []).append(row)
    return {
        order_id: Reservation(
            order_id=order_id,
            lines=tuple(Line(row.product_id, row.quantity, row.cancelled) for row in lines),
            state=ReservationState.stored(lines[0].state),
            created_at=lines[0].created_at,
            updated_at=lines[0].updated_at,
            shipping_address=lines[0].shipping_address,
            total_amount=lines[0].total_amount,
            currency=lines[0].currency,
            changes=() if lines[0].changes is None else _decode_changes(lines[0].changes),
            holds=() if lines[0].holds is None else _decode_holds(lines[0].holds),
            queued_at=lines[0].queued_at,
            context=NO_CONTEXT if lines[0].context is None else _decode_context(lines[0].context),
        )
        for order_id, lines in rows.items()
    }


def _read_adjusted(connection: Connection, subjects: Sequence[Any]) -> frozenset[str]:
    """Return which of the adjustments that these subjects are about the ledger has."""
    ids = {each.adjustment_id for each in subjects if type(each) in _ADJUSTMENTS}
    ids.update(
        opening_id(each.product_id) for each in subjects if type(each) is ProductChangedEvent
    )
    if not ids:
        return frozenset()
    return frozenset(row.adjustment_id for row in _load_adjusted(connection, ids=sorted(ids)))


def _send_products(
    connection: Connection, ids: set[str], query: Query = _load_products
) -> Callable[[], dict[str, Product]]:
    """Ask for these products; return what returns them."""
    if not ids:
        return dict
    rows = query.send(connection, ids=sorted(ids))
    return lambda: {row.id: _product(row) for row in rows()}


def _save_products(connection: Connection, unit_of_work: InventoryUnitOfWork) -> None:
    new: list[dict[str, Any]] = []
    moved: list[tuple[Any, ...]] = []
    changed: list[dict[str, Any]] = []
    thresholds: list[dict[str, Any]] = []
    queued: list[dict[str, Any]] = []
    for key, product in sorted(unit_of_work.products.items()):
        before = unit_of_work.products_before.get(key)
        if before is None:
            new.append(_product_row(product))
        elif product is not before:
            if product.version == before.version:
                moved.append(_moved_row(product))
            else:
                changed.append({"key": key, **_product_row(product)})
            if product.queue is not before.queue:
                queued.append({"key": key, "queue": write_queue(product.queue)})
            if product.threshold_version != before.threshold_version:
                thresholds.append({"key": key, **_product_row(product)})
    _insert_products(connection, new)
    _update_stock(connection, moved)
    _update_products(connection, changed)
    _update_thresholds(connection, thresholds)
    _update_queues(connection, queued)
    if queued:
        queues.save(connection, unit_of_work.products_before, _changed_products(unit_of_work))


def _changed_products(unit_of_work: InventoryUnitOfWork) -> Iterable[Product]:
    before = unit_of_work.products_before
    return (each for key, each in unit_of_work.products.items() if each is not before.get(key))


def _save_reservations(connection: Connection, unit_of_work: InventoryUnitOfWork) -> None:
    new: list[Reservation] = []
    ended: list[Reservation] = []
    rewritten: list[Reservation] = []
    for order_id, held in unit_of_work.reservations.items():
        before = unit_of_work.reservations_before.get(order_id)
        if before is None:
            new.append(held)
        elif held is not before:
            (rewritten if held.changes or held.lines is not before.lines else ended).append(held)
    early = [held.order_id for held in new if held.state in NOT_ARRIVED]
    _insert_early_changes(connection, [{"order_id": order_id} for order_id in early])
    _delete_reservations(connection, [{"key": held.order_id} for held in rewritten])
    _insert_reservations(
        connection, [row for held in (*new, *rewritten) for row in _reservation_rows(held)]
    )
    _end_reservations(connection, [_ending_row(held) for held in ended])


def _product(row: Any) -> Product:
    return Product(
        id=row.id,
        name=row.name,
        price=row.price,
        currency=row.currency,
        on_hand=row.stock_quantity,
        reserved=row.reserved_quantity,
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
        changed_at=row.changed_at,
        archived=bool(row.archived),
        low_stock_threshold=row.low_stock_threshold,
        threshold_version=row.threshold_version,
        queue=read_queue(row.queue),
    )


def _moved_row(product: Product) -> tuple[Any, ...]:
    updated_at = to_microseconds(product.updated_at)
    return product.id, product.on_hand, product.reserved, updated_at


def _product_row(product: Product) -> dict[str, Any]:
    return {
        "id": product.id,
        "name": product.name,
        "price": product.price,
        "currency": product.currency,
        "stock_quantity": product.on_hand,
        "reserved_quantity": product.reserved,
        "created_at": to_microseconds(product.created_at),
        "updated_at": to_microseconds(product.updated_at),
        "version": product.version,
        "changed_at": to_microseconds(product.changed_at),
        "archived": int(product.archived),
        "low_stock_threshold": product.low_stock_threshold,
        "threshold_version": product.threshold_version,
        "queue": write_queue(product.queue),
    }


def _ending_row(reservation: Reservation) -> tuple[Any, ...]:
    return reservation.order_id, reservation.state.value, to_microseconds(reservation.updated_at)


def _changes(reservation: Reservation) -> str | None:
    return _encode(reservation.changes).decode() if reservation.changes else None


def _reservation_rows(reservation: Reservation) -> Iterable[tuple[Any, ...]]:
    context = None
    if reservation.context is not NO_CONTEXT:
        context = _encode(reservation.context).decode()
    for line in reservation.lines:
        yield (
            reservation.order_id,
            line.product_id,
            LOCATION,
            line.quantity,
            reservation.state.value,
            to_microseconds(reservation.created_at),
            to_microseconds(reservation.updated_at),
            reservation.shipping_address,
            reservation.total_amount,
            reservation.currency,
            _changes(reservation),
            line.cancelled,
            to_microseconds(reservation.queued_at),
            context,
            _encode(reservation.holds).decode() if reservation.holds else None,
        )


def _ledger_row(entry: LedgerEntry) -> tuple[Any, ...]:
    return (
        entry.product_id,
        LOCATION,
        entry.order_id,
        entry.reason.value,
        entry.quantity,
        entry.note,
        to_microseconds(entry.at),
        entry.adjustment_id,
        entry.code,
        entry.by,
    )
