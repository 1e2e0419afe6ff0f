"""Statements whose syntax SQLAlchemy offers only for each database by itself.

The two databases share the syntax, and SQLAlchemy's PostgreSQL construct compiles for SQLite as
well. Row locks need nothing from here: `select(...).with_for_update()` adds FOR UPDATE on
PostgreSQL and nothing on SQLite, where a transaction has the whole database to itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Delete, Table, Update
from sqlalchemy import Insert as AnyInsert
from sqlalchemy.dialects.postgresql import Insert, insert


def insert_ignoring_duplicates(table: Table) -> Insert:
    """INSERT that skips the rows whose key, or other unique value, is already there."""
    return insert(table).on_conflict_do_nothing()


def upsert(table: Table, key_columns: Iterable[str], update_columns: Iterable[str]) -> Insert:
    """INSERT that overwrites `update_columns` of the row that has the same `key_columns`.

    There must be a primary key or a unique constraint on exactly `key_columns`.
    """
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(key_columns),
        set_={name: statement.excluded[name] for name in update_columns},
    )


class Many:
    """A statement that is run for many rows at once, compiled once for each database.

    SQLAlchemy's own way treats every value of every row anew, which costs more than the database's
    work (docs/performance.md). Hence the rows, which all have the same keys, hold values as the
    driver takes them: an instant through `to_microseconds`, an enumeration by its value.
    """

    def __init__(self, statement: AnyInsert | Update | Delete) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, Callable[[Any], Any]]] = {}

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for all rows; for none, do nothing."""
        if not rows:
            return
        compiled = self._compiled.get(connection.dialect.name)
        if compiled is None:
            compiled = self._compile(connection, rows[0])
        sql, arrange = compiled
        connection.exec_driver_sql(sql, [arrange(row) for row in rows])

    def _compile(
        self, connection: Connection, row: Mapping[str, Any]
    ) -> tuple[str, Callable[[Any], Any]]:
        keys = list(row) if isinstance(self._statement, AnyInsert) else None
        compiled = self._statement.compile(dialect=connection.dialect, column_keys=keys)
        names = tuple(compiled.positiontup or compiled.bind_names.values())
        if not compiled.positional:
            arrange: Callable[[Any], Any] = partial(_only, names)
        elif len(names) == 1:  # `itemgetter` would give the value itself.
            arrange = partial(_values, names)
        else:
            arrange = itemgetter(*names)
        self._compiled[connection.dialect.name] = str(compiled), arrange
        return self._compiled[connection.dialect.name]


def _values(names: Sequence[str], row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _only(names: Sequence[str], row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in names}
