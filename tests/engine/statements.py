"""Counts what is asked of databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from todoku.database import prepared


@contextmanager
def listening() -> Iterator[list[str]]:
    """The statements that any database is given meanwhile; one for many rows is one."""
    statements: list[str] = []

    def hear(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    def hear_sqlite(connection: Any, sql: str, *rest: Any, **options: Any) -> Any:
        if connection.dialect.name == "sqlite":  # Elsewhere SQLAlchemy passes it on.
            statements.append(sql)
        return execute_on_driver(connection, sql, *rest, **options)

    event.listen(Engine, "before_cursor_execute", hear)
    execute_on_driver = prepared.execute_on_driver
    prepared.execute_on_driver = hear_sqlite  # type: ignore[assignment]
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", hear)
        prepared.execute_on_driver = execute_on_driver
