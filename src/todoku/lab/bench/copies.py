"""Copies finished orders in the SQLite files of a stopped system, in bulk: with other ids, at other times.

All ids of an order begin with the 13 characters of its time: its own, and those of what is about it
(`todoku.events.fact_ids`). So a copy that is so much later has another beginning in all of them. What has
no order is not copied. A copy of a million rows takes about ten seconds.
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Column, MetaData, Table, Text

from todoku.database import Timestamp

BEGINNING_CHARACTERS: Final = 13
"""How many characters of an id are its time, the hyphen included."""

KEYS: Final = {"orders": "id", "shipment_items": "shipment_id", "inbox": "event_id"}
"""The column that names the order of a row, where it is not `order_id`."""

NOT_COPIED: Final = ("dead_letters", "parked_messages")
"""Tables of orders that need manual action."""

INBOX: Final = "inbox"

# A row of the feed is a letter and the ids of the events of one batch, of an order or several.
_FEED: Final = """
INSERT INTO feed (position, events)
SELECT position + :copies * :length, CAST(replace(CAST(events AS TEXT), :old, :new) AS BLOB)
FROM feed WHERE position <= :length AND substr(CAST(events AS TEXT), 2, 13) = :old
"""


def beginning_of(order_id: str) -> str:
    """Return how the ids of an order begin."""
    return order_id[:BEGINNING_CHARACTERS]


def copy_orders(
    file: Path,
    metadata: MetaData,
    beginnings: Collection[str],
    shifts: Mapping[timedelta, bool],
) -> Iterator[None]:
    """Copy the orders with these beginnings for each of `shifts`, that much later; yield after each copy. A
    shift tells whether the inbox still knows what is so old.

    Nothing else may have the file open. It is not synced before the end.
    """
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        length = _length_of_feed(connection, metadata)
        for copies, (shift, with_inbox) in enumerate(shifts.items(), start=1):
            connection.execute("BEGIN")
            for statement in _statements(metadata, with_inbox=with_inbox):
                for old in beginnings:
                    values = {"shift": _milliseconds(shift) * 1_000, "old": old}
                    values |= {"new": _later(old, shift), "copies": copies, "length": length}
                    connection.execute(statement, values)
            connection.execute("COMMIT")
            yield


def add_up_stock(file: Path) -> None:
    """Set the stock of each product to the sum of its ledger, of which entries were copied."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE products SET stock_quantity = "
            "(SELECT sum(quantity) FROM stock_ledger WHERE product_id = products.id)"
        )


def _statements(metadata: MetaData, *, with_inbox: bool) -> Iterator[str]:
    """Yield the statements that copy the rows of each table that are about orders."""
    for table in metadata.sorted_tables:
        key = KEYS.get(table.name, "order_id")
        if table.name == "feed":
            yield _FEED
        elif table.name in NOT_COPIED or (table.name == INBOX and not with_inbox):
            continue
        elif key in table.columns:
            yield _statement(table, key)


def _statement(table: Table, key: str) -> str:
    columns = [column for column in table.columns if not _is_number_of_row(column)]
    names = ", ".join(column.name for column in columns)
    values = ", ".join(map(_copied, columns))
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {table.name} "
        f"WHERE {key} >= :old || '-' AND {key} < :old || '.'"  # What begins so: '.' is behind '-'.
    )


def _is_number_of_row(column: Column[object]) -> bool:
    return list(column.table.primary_key) == [column] and not isinstance(column.type, Text)


def _copied(column: Column[object]) -> str:
    if isinstance(column.type, Timestamp):
        return f"{column.name} + :shift"
    if isinstance(column.type, Text):
        return f"replace({column.name}, :old, :new)"
    return column.name


def _length_of_feed(connection: sqlite3.Connection, metadata: MetaData) -> int:
    if "feed" not in metadata.tables:
        return 0
    [(length,)] = connection.execute("SELECT coalesce(max(position), 0) FROM feed")
    return int(length)


def _later(beginning: str, shift: timedelta) -> str:
    """Return how the ids of an order begin that is so much later."""
    digits = f"{int(beginning.replace('-', ''), 16) + _milliseconds(shift):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def _milliseconds(shift: timedelta) -> int:
    return shift // timedelta(milliseconds=1)
