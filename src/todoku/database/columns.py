"""Define column types and tables that mean the same in SQLite and PostgreSQL.

SQLite's tables are STRICT, and those know few types: for text use `sqlalchemy.Text`, for bytes
`sqlalchemy.LargeBinary`, for the rest `Integer64` and `Timestamp`. A flag is an `Integer64` with a
CHECK, an enumeration is a `Text` with a CHECK.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from sqlalchemy import BigInteger, Dialect, Integer, MetaData, Table
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

Integer64 = BigInteger().with_variant(Integer(), "sqlite")
"""A signed 64-bit integer, also as an autoincrementing primary key."""


class Timestamp(TypeDecorator[datetime]):
    """Store an instant as integer microseconds since 1970-01-01T00:00Z: exact and sortable.

    Takes an aware datetime of any zone and returns it in UTC. Rejects a naive one.
    """

    impl = Integer64
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> int | None:
        return to_microseconds(value)

    def process_result_value(self, value: int | None, _: Dialect) -> datetime | None:
        return None if value is None else EPOCH + timedelta(microseconds=value)


@lru_cache(maxsize=4096)
def to_microseconds(instant: datetime | None) -> int | None:
    """Return an instant as a `Timestamp` column stores it, for rows of `Many`."""
    if instant is None:
        return None
    if instant.utcoffset() is None:
        raise ValueError(f"{instant!r} has no time zone: use datetime.now(UTC)")
    return (instant - EPOCH) // MICROSECOND


def table(name: str, metadata: MetaData, *items: SchemaItem, clustered: bool = False) -> Table:
    """Define a table that rejects values of the wrong type on either database.

    `clustered` keeps the rows in the order of the primary key where SQLite can (WITHOUT ROWID):
    for narrow rows that are read by ranges of a key that is not an integer.
    """
    return Table(name, metadata, *items, sqlite_strict=True, sqlite_with_rowid=not clustered)
