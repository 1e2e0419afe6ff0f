"""List what changed the stock of a product, and its reservations: with bounded work for a page.

No index leads from a product to its rows: each shipped line would pay for it, with about as much as for the
entry itself. Rows are read backwards from the newest, up to `ROWS_MAX` of all products for a page. Of a
product that is seldom sold a page is not full, and the next one goes on behind the last row that was read.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, select

from todoku.contracts import Personal
from todoku.inventory.domain import ReservationState
from todoku.inventory.store import reservations, stock_ledger

ROWS_MAX: Final = 20_000
"""How many rows of all products are read for a page."""


class LedgerEntryView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change of the stock on hand by `quantity` pieces. `kind` is `OPENING`, `RESTOCK`, `CORRECTION` or
    `SHIPMENT`; later versions may add others. What is entered once has an `adjustmentId`: the opening
    stock, and adjustments, which also have the `code` of their reason, the reason in words, and who made
    them. A shipment has its order."""

    quantity: int
    kind: str
    at: datetime
    order_id: str | None
    adjustment_id: str | None
    code: str | None
    reason: str | None
    by: Annotated[str | None, Personal]


class ReservationView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The pieces that are reserved for an order, and since when."""

    order_id: str
    quantity: int
    state: str
    since: datetime


class Part(msgspec.Struct, frozen=True):
    """Which part of a list is wanted: up to `limit` items behind the key `after`."""

    limit: int
    after: Any = None


class Found(msgspec.Struct, frozen=True):
    """The items of a page, and the key behind which the next page begins; None if there is none."""

    items: Sequence[Any]
    next_key: str | None


def list_ledger(connection: Connection, product_id: str, part: Part) -> Found:
    """Return the entries of a product, the newest first."""
    columns = stock_ledger.c
    rows, next_key = _backwards(
        connection, stock_ledger, columns.id, columns.product_id == product_id, part
    )
    return Found(
        [
            LedgerEntryView(
                quantity=row.quantity,
                kind=row.reason,
                at=row.entered_at,
                order_id=row.order_id,
                adjustment_id=row.adjustment_id,
                code=row.code,
                reason=row.note,
                by=row.adjusted_by,
            )
            for row in rows
        ],
        next_key,
    )


def list_reservations(connection: Connection, product_id: str, part: Part) -> Found:
    """Return what is reserved of a product, the newest order first."""
    columns = reservations.c
    wanted = (columns.product_id == product_id) & (columns.state == ReservationState.RESERVED.value)
    rows, next_key = _backwards(connection, reservations, columns.order_id, wanted, part)
    return Found(
        [
            ReservationView(
                order_id=row.order_id,
                quantity=row.quantity - row.cancelled,
                state=row.state,
                since=row.updated_at,
            )
            for row in rows
            if row.quantity > row.cancelled
        ],
        next_key,
    )


def _backwards(
    connection: Connection,
    table: Table,
    key: ColumnElement[Any],
    wanted: ColumnElement[bool],
    part: Part,
) -> tuple[Sequence[Any], str | None]:
    """Return the wanted rows by descending key, and the key behind which the next page begins."""
    below = select(key)
    found = select(table).where(wanted)
    if part.after is not None:
        below, found = below.where(key < part.after), found.where(key < part.after)
    # The last row that is read for this page; none if there are fewer.
    last = connection.scalar(below.order_by(key.desc()).offset(ROWS_MAX - 1).limit(1))
    if last is not None:
        found = found.where(key >= last)
    rows = connection.execute(found.order_by(key.desc()).limit(part.limit + 1)).all()
    if len(rows) > part.limit:
        rows = rows[: part.limit]
        return rows, str(rows[-1]._mapping[key])
    return rows, None if last is None else str(last)
