"""Read everything about a person, as rows by table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, LargeBinary, RowMapping, Table, or_, select

from todoku.database import among
from todoku.engine.persons.part import Persons

if TYPE_CHECKING:
    from todoku.engine.tables import EngineTables

ORDERS_AT_ONCE = 500


def rows_about(
    connection: Connection, table: Table, column: Column[str], ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the whole rows that have one of these ids in this column."""
    query = select(table).where(among(column, "ids")).order_by(*table.primary_key)
    found: list[dict[str, Any]] = []
    for first in range(0, len(ids), ORDERS_AT_ONCE):
        part = list(ids[first : first + ORDERS_AT_ONCE])
        rows = connection.execute(query, {"ids": part}).mappings()
        found += [_readable(table, row) for row in rows]
    return found


def exported(
    connection: Connection,
    persons: Persons,
    tables: "EngineTables",
    person: str,
    order_ids: Sequence[str],
) -> dict[str, Any]:
    """Return everything that this database has about a person with these orders."""
    letters = tables.dead_letters.table
    keys = tables.idempotency_keys.table
    log = tables.audit_log.table
    digests = list(tables.audit_names.digests(connection, [person]).values())
    logged = select(log).where(or_(log.c.actor.in_(digests), log.c.about.in_(digests)))
    owned = tables.api_keys.table
    # The digest of a secret tells nothing about a person.
    columns = [column for column in owned.columns if column.name != "digest"]
    of_owner = select(*columns).where(owned.c.owner == person).order_by(owned.c.id)
    used = select(keys).where(keys.c.id.contains(f"\t{person}\t", autoescape=True))
    return {
        **persons.export(connection, order_ids),
        "dead_letters": rows_about(connection, letters, letters.c.order_id, order_ids),
        "api_keys": _all(connection, owned, of_owner),
        "idempotency_keys": _all(connection, keys, used),
        "audit_log": _all(connection, log, logged.order_by(log.c.at)),
    }


def _all(connection: Connection, table: Table, query: Any) -> list[dict[str, Any]]:
    return [_readable(table, row) for row in connection.execute(query).mappings()]


def _readable(table: Table, row: RowMapping) -> dict[str, Any]:
    """Return a row as JSON can hold it: messages as text, hashes in hexadecimal."""
    return {
        name: _text(value) if isinstance(table.c[name].type, LargeBinary) else value
        for name, value in row.items()
    }


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()
