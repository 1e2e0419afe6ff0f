"""A store of one row for each key: what is loaded, inserted, updated and read."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec
import pytest
from sqlalchemy import Column, MetaData, Text

from todoku.database import Database, Integer64, table
from todoku.engine import KeyedStore, StateCache

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)


class Level(StrEnum):
    LOW = "low"
    HIGH = "high"


class Tank(msgspec.Struct, frozen=True, kw_only=True):
    tank_id: str
    litres: int
    level: Level


class Filled(msgspec.Struct, frozen=True):
    tank_id: str


class Due(msgspec.Struct, frozen=True):
    """A due row has a key, and no field of the table's."""

    key: str


tanks = table(
    "tanks",
    MetaData(),
    Column("tank_id", Text, primary_key=True),
    Column("litres", Integer64, nullable=False),
    Column("level", Text, nullable=False),
)
EMPTY: Final = Tank(tank_id="a", litres=0, level=Level.LOW)


@pytest.fixture
def database() -> Iterator[Database]:
    with Database.in_memory() as database:
        with database.schema_change() as connection:
            tanks.metadata.create_all(connection)
        yield database


@pytest.fixture
def store() -> KeyedStore[Tank]:
    """Built for each test: the engine's tables are defined once all the same."""
    return KeyedStore(Tank, tanks, key="tank_id")


def save(database: Database, store: KeyedStore[Tank], *states: Tank) -> None:
    with database.transaction() as connection:
        unit = store.load(connection, [Filled(each.tank_id) for each in states], StateCache(10))
        for each in states:
            unit.put(Filled(each.tank_id), each)
        store.save(connection, unit, NOW)


def test_new_state_is_inserted_and_changed_one_updated(
    database: Database, store: KeyedStore[Tank]
) -> None:
    full = Tank(tank_id="a", litres=9, level=Level.HIGH)
    other = Tank(tank_id="b", litres=1, level=Level.LOW)

    save(database, store, EMPTY)
    save(database, store, full, other)

    with database.read() as connection:
        assert [store.find(connection, key) for key in "abc"] == [full, other, None]
        found = store.find(connection, "a")
    assert found is not None
    assert found.level is Level.HIGH


def test_state_is_found_by_field_and_by_key(database: Database, store: KeyedStore[Tank]) -> None:
    save(database, store, EMPTY)

    with database.transaction() as connection:
        unit = store.load(connection, [Filled("a"), Due("a"), Due("none")], StateCache(10))

    assert unit.view(Filled("a")) == unit.view(Due("a")) == EMPTY
    assert unit.view(Due("none")) is None


def test_cached_state_is_not_loaded_again(database: Database, store: KeyedStore[Tank]) -> None:
    cache, cached = StateCache(10), msgspec.structs.replace(EMPTY, litres=5)
    cache.validate(1)
    cache.put("tanks", {"a": cached})

    with database.transaction() as connection:
        unit = store.load(connection, [Filled("a")], cache)

    assert unit.view(Filled("a")) is cached
