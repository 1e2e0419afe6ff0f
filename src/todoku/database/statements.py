"""Statements whose syntax SQLAlchemy offers only for each database by itself.

The two databases share the syntax, and SQLAlchemy's PostgreSQL construct compiles for SQLite as
well. Row locks need nothing from here: `select(...).with_for_update()` adds FOR UPDATE on
PostgreSQL and nothing on SQLite, where a transaction has the whole database to itself.
"""

from collections.abc import Iterable

from sqlalchemy import Table
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
