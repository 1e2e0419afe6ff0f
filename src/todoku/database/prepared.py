"""Compile statements once and pass them to the driver directly.

The statements of every batch go this way: executing through SQLAlchemy costs more than the work of the
database (docs/performance.md).
"""

import re
import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Delete,
    Dialect,
    Insert,
    Select,
    TextClause,
    Update,
)
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from todoku.database.arrays import ArrayStatement, array_statement
from todoku.database.translation import raise_translated

ROWS_A_STATEMENT = 10
"""How many rows a statement inserts or deletes on SQLite: more save little."""

_DELETE = re.compile(r"DELETE FROM \S+ WHERE (\S+ = \?(?: AND \S+ = \?)*)")

Rows = Sequence[Sequence[Any]]


def execute_on_driver(
    connection: Connection, sql: str, parameters: Any, *, many: bool = False
) -> Rows:
    """Execute a statement in the driver's dialect within the transaction; return its rows.

    `many` executes it for each of many `parameters`, and returns no rows; on PostgreSQL that happens
    with the next statement that returns rows, or with the COMMIT.
    """
    if not connection.in_transaction():
        connection.begin()
    driver = connection.connection.driver_connection
    if connection.dialect.name == "postgresql":
        deferred = [defer(connection, sql, each) for each in (parameters if many else [parameters])]
        return () if many else deferred[0]()
    if not isinstance(driver, sqlite3.Connection):  # The one of a simulation.
        result = connection.exec_driver_sql(sql, parameters)
        return result.all() if result.returns_rows else ()
    try:
        if many:
            driver.executemany(sql, parameters)
            return ()
        return driver.execute(sql, parameters).fetchall()
    except Exception as error:
        raise_translated(connection.dialect, error)


def defer(connection: Connection, sql: str, parameters: Any) -> Callable[[], Rows]:
    """Let a statement be sent with others, in the order of these calls; return what returns its rows.

    PostgreSQL only. What waits is sent when rows are asked for, or with the COMMIT: so an error may be raised
    there.
    """
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.driver_connection
    deferred = driver.defer(sql, parameters)

    def rows() -> Rows:
        try:
            found: Rows = deferred.rows()
        except Exception as error:
            if driver.is_lost_after(error):
                connection.invalidate(error)
            raise_translated(connection.dialect, error)
        return found

    return rows


class Query:
    """Execute a SELECT that is compiled once for each database. Its rows are named tuples."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        row = namedtuple("row", statement.selected_columns.keys(), rename=True)  # type: ignore[misc]
        self._make = row._make
        self._compiled: dict[type[Dialect], _CompiledQuery] = {}

    def __call__(self, connection: Connection, **parameters: Any) -> list[Any]:
        """Return all rows for these parameters."""
        sql, bound, convert = self._prepare(connection, parameters)
        return list(map(self._make, convert(execute_on_driver(connection, sql, bound))))

    def send(self, connection: Connection, **parameters: Any) -> Callable[[], list[Any]]:
        """Execute it; return what returns all rows. On PostgreSQL, queries that are sent before the rows of
        one of them are asked for share a round trip."""
        if connection.dialect.name == "sqlite":
            found = self(connection, **parameters)
            return lambda: found
        sql, bound, convert = self._prepare(connection, parameters)
        rows = defer(connection, sql, bound)
        return lambda: list(map(self._make, convert(rows())))

    def send_ahead(self, connection: Connection, **parameters: Any) -> Callable[[], list[Any]]:
        """Do as `send`; on SQLite, where a round trip costs nothing, execute it when its rows are asked for,
        which may not happen."""
        if connection.dialect.name == "sqlite":
            return partial(self, connection, **parameters)
        return self.send(connection, **parameters)

    def _prepare(
        self, connection: Connection, parameters: Mapping[str, Any]
    ) -> tuple[str, Any, Callable[[Rows], Iterable[Sequence[Any]]]]:
        dialect = connection.dialect
        compiled = self._compiled.get(type(dialect))
        if compiled is None:
            compiled = self._compiled[type(dialect)] = _CompiledQuery(self._statement, dialect)
        try:
            return compiled.sql, compiled.bind(parameters), compiled.convert
        except ValueError as error:
            raise_translated(dialect, error)

    def scalar(self, connection: Connection, **parameters: Any) -> Any:
        """Return the first value of the first row, None if there is none."""
        rows = self(connection, **parameters)
        return rows[0][0] if rows else None


class _CompiledQuery:
    """Hold a query in a driver's dialect, with the conversions of its parameters and results."""

    def __init__(self, statement: Select[Any], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        self._positional = compiled.positional
        self._fixed = compiled.params
        binds = {name: bind for bind, name in compiled.bind_names.items()}
        names = compiled.positiontup or list(binds)
        self._binds = [(name, _bind_processor(binds[name], dialect)) for name in names]
        self._results = [
            (n, processor)
            for n, column in enumerate(statement.selected_columns)
            if (processor := _impl(column, dialect).result_processor(dialect, None)) is not None
        ]

    def bind(self, parameters: Mapping[str, Any]) -> Any:
        given = {**self._fixed, **parameters}
        if self._positional:
            return tuple([process(given[name]) for name, process in self._binds])
        return {name: process(given[name]) for name, process in self._binds}

    def convert(self, rows: Sequence[Sequence[Any]]) -> Iterable[Sequence[Any]]:
        return map(self._converted, rows) if self._results else rows

    def _converted(self, row: Sequence[Any]) -> Sequence[Any]:
        values = list(row)
        for n, process in self._results:
            values[n] = process(values[n])
        return values


def _bind_processor(bind: BindParameter[Any], dialect: Dialect) -> Callable[[Any], Any]:
    return _impl(bind, dialect).bind_processor(dialect) or _unchanged


def _impl(element: ColumnElement[Any], dialect: Dialect) -> TypeEngine[Any]:
    return element.type.dialect_impl(dialect)


def _unchanged(value: Any) -> Any:
    return value


class Many:
    """Execute a statement for many rows at once, compiled once for each database.

    The rows, which all have the same keys, hold values as the driver accepts them: an instant through
    `to_microseconds`, an enumeration by its value. A row is a mapping; or, for statements with named
    `columns`, a tuple of their values in this order, which takes less than half the time: so are the rows
    that every order writes. On SQLite an INSERT leaves out the columns that are NULL in all rows: its driver
    takes longer to bind a NULL than a text. It inserts and deletes `ROWS_A_STATEMENT` rows at once, since to
    begin and end a statement takes a quarter of its time.
    """

    def __init__(
        self, statement: Insert | Update | Delete | TextClause, columns: Sequence[str] = ()
    ) -> None:
        self._statement = statement
        self._places: Mapping[str, int] = {name: place for place, name in enumerate(columns)}
        self._compiled: dict[tuple[type[Dialect], tuple[Any, ...]], _CompiledMany] = {}
        self._nullable: Sequence[str] = ()
        if isinstance(statement, Insert):
            nullable = (c for c in statement.table.columns if c.nullable and not c.server_default)
            self._nullable = [c.name for c in nullable]
        self._nullable_places = [self._places[n] for n in self._nullable if n in self._places]

    def __call__(self, connection: Connection, rows: Sequence[Any]) -> None:
        """Execute it for all rows; for none, do nothing."""
        if not rows:
            return
        dialect = connection.dialect
        absent = self._absent(rows) if self._nullable and dialect.name == "sqlite" else ()
        compiled = self._compiled.get((type(dialect), absent))
        if compiled is None:
            compiled = self._compile(connection, rows[0], absent)
        sql, arrange, arrays, several = compiled
        if arrays is None or not arrays.takes(rows):
            values = rows if arrange is None else list(map(arrange, rows))
            if several is not None and len(values) >= ROWS_A_STATEMENT:
                values = _execute_several(connection, several, values)
            if values:
                execute_on_driver(connection, sql, values, many=True)
            return
        try:
            given = arrays.parameters(rows)
        except ValueError as error:
            raise_translated(connection.dialect, error)
        execute_on_driver(connection, arrays.sql, [given], many=True)

    def _absent(self, rows: Sequence[Any]) -> tuple[Any, ...]:
        """Return the keys of the columns that are NULL in all rows."""
        first = rows[0]
        nullable: Sequence[Any] = self._nullable_places
        if not self._places:
            nullable = [name for name in self._nullable if name in first]
        absent = tuple([key for key in nullable if first[key] is None])
        if not absent or len(rows) == 1:
            return absent
        values = _getter(absent)
        if list(map(values, rows)).count(values(first)) == len(rows):  # As nearly always.
            return absent
        return tuple(key for key in absent if all(row[key] is None for row in rows))

    def _compile(
        self, connection: Connection, row: Any, absent: tuple[Any, ...]
    ) -> "_CompiledMany":
        key_of = self._places or {name: name for name in row}
        given = None
        if isinstance(self._statement, Insert):
            given = [name for name, key in key_of.items() if key not in absent]
        compiled = self._statement.compile(dialect=connection.dialect, column_keys=given)
        assert isinstance(compiled, SQLCompiler)
        names = tuple(compiled.positiontup or compiled.bind_names.values())
        keys = {name: key_of[name] for name in names}
        arrange: Callable[[Any], Any] | None
        if not compiled.positional:
            arrange = partial(_only, keys)
        elif names == tuple(self._places):
            arrange = None
        elif len(names) == 1:  # `itemgetter` would give the value itself.
            arrange = partial(_values, (*keys.values(),))
        else:
            arrange = itemgetter(*(keys[name] for name in names))
        arrays = None
        if connection.dialect.name == "postgresql" and not isinstance(self._statement, TextClause):
            arrays = array_statement(compiled, connection.dialect, key_of)
        several = None
        driver = connection.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            if isinstance(self._statement, Insert):
                several = _insert_of_several(str(compiled), len(names))
            elif isinstance(self._statement, Delete):
                several = _delete_of_several(str(compiled))
        key = type(connection.dialect), absent
        found = self._compiled[key] = str(compiled), arrange, arrays, several
        return found


_CompiledMany = tuple[str, Callable[[Any], Any] | None, ArrayStatement | None, str | None]
"""A statement for one row, what makes its parameters of a row (None if the row is them), its form that takes
rows as arrays, and its form for `ROWS_A_STATEMENT` rows."""


def _insert_of_several(sql: str, columns: int) -> str | None:
    """Return an INSERT of one row as one of several; None if not all of its values are parameters."""
    row = f"({', '.join('?' * columns)})"
    before, values, after = sql.partition(f"VALUES {row}")
    if not values or "?" in before + after:
        return None
    return f"{before}VALUES {', '.join([row] * ROWS_A_STATEMENT)}{after}"


def _delete_of_several(sql: str) -> str | None:
    """Return a DELETE of one row as one of several, each of which SQLite finds by an index; None if its
    condition is not that columns are equal to parameters."""
    found = _DELETE.fullmatch(sql)
    if found is None:
        return None
    return sql[: found.start(1)] + " OR ".join([f"({found[1]})"] * ROWS_A_STATEMENT)


def _execute_several(
    connection: Connection, sql: str, values: Sequence[tuple[Any, ...]]
) -> Sequence[tuple[Any, ...]]:
    """Execute it for `ROWS_A_STATEMENT` rows at a time; return those that are left over."""
    done = len(values) - len(values) % ROWS_A_STATEMENT
    parameters = [
        tuple(chain.from_iterable(values[n : n + ROWS_A_STATEMENT]))
        for n in range(0, done, ROWS_A_STATEMENT)
    ]
    execute_on_driver(connection, sql, parameters, many=True)
    return values[done:]


@lru_cache(maxsize=256)
def _getter(keys: tuple[Any, ...]) -> Callable[[Any], Any]:
    return itemgetter(*keys)


def _values(keys: Sequence[Any], row: Any) -> tuple[Any, ...]:
    return tuple(row[key] for key in keys)


def _only(keys: Mapping[str, Any], row: Any) -> dict[str, Any]:
    return {name: row[key] for name, key in keys.items()}
