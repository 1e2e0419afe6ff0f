"""A store for services whose state is one row of one table for each key."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec
from sqlalchemy import Connection, MetaData, RowMapping, Table, bindparam, insert, select, update

from todoku.engine.cache import StateCache
from todoku.engine.tables import EngineTables
from todoku.events import Envelope

S = TypeVar("S", bound=msgspec.Struct)


class KeyedUnitOfWork(Generic[S]):
    """The states that a batch touches, by key; None where there is none yet."""

    def __init__(self, kind: str, key: str, found: Mapping[str, S]) -> None:
        self._kind = kind
        self._key = key
        self.before = found
        self.after = dict(found)

    def view(self, subject: Any) -> S | None:
        return self.after.get(key_of(subject, self._key))

    def put(self, subject: Any, state: S | None) -> None:
        if state is not None:  # A decision may find that there is nothing to keep.
            self.after[key_of(subject, self._key)] = state

    def record(self, envelope: Envelope) -> None:
        """Keep no history: the rows are all that such a service knows."""

    def fill_cache(self, cache: StateCache) -> None:
        cache.put(self._kind, self.after)


class KeyedStore(Generic[S]):
    """Load and save frozen msgspec structs, each a row of `table`, in at most three statements.

    `key` is the primary key of the table and a field of the struct. It is taken from the field of this
    name of an event or a command, else from its `key`. The other columns are the struct's other fields,
    and the `context_column()` that an agenda may need; enumerations are stored by their value. The
    engine's tables are in the table's metadata.
    """

    def __init__(self, kind: type[S], table: Table, *, key: str) -> None:
        self.metadata = table.metadata
        self.tables = _engine_tables(table.metadata)
        self._kind = kind
        self._table = table
        self._key = key
        self._enums = _enums(kind)
        self._load = (
            select(table)
            .where(table.c[key].in_(bindparam("keys", expanding=True)))
            .order_by(table.c[key])
            .with_for_update()
        )
        others = [name for name in kind.__struct_fields__ if name != key]
        self._update = (
            update(table)
            .where(table.c[key] == bindparam("the_key"))
            .values({name: bindparam(f"new_{name}") for name in others})
        )

    def load(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> KeyedUnitOfWork[S]:
        """Load the states of these subjects, from the cache or else from the table."""
        keys = {key_of(subject, self._key) for subject in subjects}
        found = cache.get(self._table.name, keys)
        if missing := sorted(keys - found.keys()):
            rows = connection.execute(self._load, {"keys": missing})
            found |= {row[self._key]: self.to_state(row) for row in rows.mappings()}
        return KeyedUnitOfWork(self._table.name, self._key, found)

    def save(self, connection: Connection, unit_of_work: KeyedUnitOfWork[S], now: datetime) -> None:
        """Insert the states that are new, and update those that have changed."""
        before, after = unit_of_work.before, unit_of_work.after
        new = [self._row(state) for key, state in after.items() if key not in before]
        changed = [
            self._row(state)
            for key, state in after.items()
            if key in before and state is not before[key]
        ]
        if new:
            connection.execute(insert(self._table), new)
        if changed:
            connection.execute(self._update, list(map(self._new_values, changed)))

    def find(self, connection: Connection, key: str) -> S | None:
        """Return the state of a key, or None; for reads over HTTP."""
        query = select(self._table).where(self._table.c[self._key] == key)
        row = connection.execute(query).mappings().first()
        return None if row is None else self.to_state(row)

    def to_state(self, row: RowMapping) -> S:
        """Return the struct of a row."""
        fields = self._kind.__struct_fields__
        values = {name: self._enums.get(name, _same)(row[name]) for name in fields}
        return self._kind(**values)

    def _row(self, state: S) -> dict[str, Any]:
        row = msgspec.structs.asdict(state)
        return row | {name: row[name].value for name in self._enums}

    def _new_values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        values = {f"new_{name}": value for name, value in row.items() if name != self._key}
        return values | {"the_key": row[self._key]}


def key_of(subject: Any, name: str) -> str:
    """Return the key of the row that an event, a command or a due row is about."""
    key: str = getattr(subject, name, None) or subject.key
    return key


def _engine_tables(metadata: MetaData) -> EngineTables:
    """Return the engine's tables, defined once however many stores are built on the metadata."""
    tables: EngineTables = metadata.info.get("engine_tables") or EngineTables(metadata)
    metadata.info["engine_tables"] = tables
    return tables


def _enums(kind: type[msgspec.Struct]) -> dict[str, Callable[[Any], Any]]:
    """Return the fields that are enumerations."""
    hints = get_type_hints(kind)
    return {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, Enum)
    }


def _same(value: Any) -> Any:
    return value
