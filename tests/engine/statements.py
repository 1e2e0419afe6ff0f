"""Counts what is asked of databases."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from todoku.database import prepared

_several_rows = re.compile(r"(\([?, ]+\))(, \1)+")


@contextmanager
def listening() -> Iterator[list[str]]:
    """The statements that any database is given meanwhile; one for many rows is one, and so is an INSERT of
    several rows at a time with that of the rows that are left over."""
    statements: list[str] = []
    of_one_row = ""

    def hear(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    def hear_sqlite(connection: Any, sql: str, *rest: Any, **options: Any) -> Any:
        nonlocal of_one_row
        if connection.dialect.name == "sqlite":  # Elsewhere it is deferred.
            if sql != of_one_row:
                statements.append(sql)
            shorter = _several_rows.sub(r"\1", sql)
            of_one_row = shorter if shorter != sql else ""
        return execute_on_driver(connection, sql, *rest, **options)

    def hear_postgresql(connection: Any, sql: str, parameters: Any) -> Any:
        statements.append(sql)
        return defer(connection, sql, parameters)

    event.listen(Engine, "before_cursor_execute", hear)
    execute_on_driver, defer = prepared.execute_on_driver, prepared.defer
    prepared.defer = hear_postgresql
    prepared.execute_on_driver = hear_sqlite  # type: ignore[assignment]
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", hear)
        prepared.execute_on_driver, prepared.defer = execute_on_driver, defer
