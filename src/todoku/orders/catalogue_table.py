"""Define the table with the copy of inventory's catalogue, and read it."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import CheckConstraint, Column, Connection, MetaData, Text, select

from todoku.database import (
    Integer64,
    Many,
    Query,
    Timestamp,
    among,
    table,
    to_microseconds,
    upsert,
)
from todoku.engine import StateCache
from todoku.orders.catalogue import CatalogueEntry, ReplacedPrice

KIND: Final = "catalogue"
"""The kind of these states in the cache."""

_encode_replaced = msgspec.json.Encoder().encode
_decode_replaced = msgspec.json.Decoder(tuple[ReplacedPrice, ...]).decode


class Catalogue:
    """What the catalogue says about each product.

    An order reads it without a lock: what is committed then is what the shop has told. Where one process
    has the database, the cache has it; where several share one, each batch reads what it needs.
    """

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "catalogue",
            metadata,
            Column("product_id", Text, primary_key=True),
            Column("version", Integer64, nullable=False),
            Column("name", Text, nullable=False),
            Column("price", Integer64, nullable=False),
            Column("currency", Text, nullable=False),
            Column("archived", Integer64, nullable=False),
            Column("changed_at", Timestamp, nullable=False),
            Column("replaced", Text),
            CheckConstraint("price BETWEEN 0 AND 9007199254740991", name="price_exact"),
            CheckConstraint("archived IN (0, 1)", name="archived_or_not"),
        )
        columns = self.table.c
        these = select(self.table).where(among(columns.product_id, "ids"))
        self._read = Query(these)
        self._load = Query(these.order_by(columns.product_id).with_for_update())
        others = [column.name for column in columns if not column.primary_key]
        # Another process may have inserted a later version in the meantime.
        self._save = Many(upsert(self.table, ["product_id"], others, growing="version"))

    def send(
        self,
        connection: Connection,
        cache: StateCache,
        *,
        wanted: Collection[str],
        changing: Collection[str],
    ) -> Callable[[], dict[str, CatalogueEntry]]:
        """Ask for the products that are `wanted`, and lock those that are `changing`; return what returns
        what is known about them."""
        ids = {*wanted, *changing}
        found: dict[str, CatalogueEntry] = cache.get(KIND, ids) if ids else {}
        locked = set(changing) - found.keys()
        missing = ids - found.keys() - locked
        sent = [
            query.send_ahead(connection, ids=sorted(keys))
            for query, keys in ((self._load, locked), (self._read, missing))
            if keys
        ]
        return lambda: found | {row.product_id: _entry(row) for rows in sent for row in rows()}

    def save(self, connection: Connection, entries: Iterable[CatalogueEntry]) -> None:
        """Write what was told about these products."""
        self._save(connection, [_row(entry) for entry in entries])

    def find(self, connection: Connection, product_id: str) -> CatalogueEntry | None:
        """Return what is known about a product, or None."""
        query = select(self.table).where(self.table.c.product_id == product_id)
        row = connection.execute(query).first()
        return None if row is None else _entry(row)

    def page(self, connection: Connection, *, after: str, limit: int) -> list[CatalogueEntry]:
        """Return what is known about up to `limit` products by id, beginning behind `after`."""
        product_id = self.table.c.product_id
        query = select(self.table).where(product_id > after).order_by(product_id).limit(limit)
        return [_entry(row) for row in connection.execute(query)]


def _entry(row: Any) -> CatalogueEntry:
    return CatalogueEntry(
        product_id=row.product_id,
        version=row.version,
        name=row.name,
        price=row.price,
        currency=row.currency,
        archived=bool(row.archived),
        changed_at=row.changed_at,
        replaced=() if row.replaced is None else _decode_replaced(row.replaced),
    )


def _row(entry: CatalogueEntry) -> dict[str, Any]:
    return {
        "product_id": entry.product_id,
        "version": entry.version,
        "name": entry.name,
        "price": entry.price,
        "currency": entry.currency,
        "archived": int(entry.archived),
        "changed_at": to_microseconds(entry.changed_at),
        "replaced": _encode_replaced(entry.replaced).decode() if entry.replaced else None,
    }
