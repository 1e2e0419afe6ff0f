"""The feed of all orders' events: complete, in one order that never changes."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection

from todoku.database import Database
from todoku.orders.feed import Entry, decode, encode
from todoku.orders.store import feed, metadata
from web.edge import empty_database

NOW = datetime(2030, 1, 1, tzinfo=UTC)
UUIDS = [
    ("0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e", "0198c2f0-7b1a-8c3e-9d55-000000000001"),
    ("ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-8000-8000-000000000000"),
]
OTHERS = [("é" * 36, "0198C2F0-7B1A-7C3E-9D55-3F6A1C2B4D5E"), ("order", 'an "event"')]


@pytest.fixture
def database() -> Iterator[Database]:
    with empty_database(metadata) as database:
        yield database


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.transaction() as connection:
        yield connection


@pytest.mark.parametrize("keys", [UUIDS, OTHERS, UUIDS + OTHERS, UUIDS[:1]])
def test_ids_are_decoded_as_they_were_encoded(keys: list[tuple[str, str]]) -> None:
    assert decode(encode(keys)) == keys


def test_an_event_takes_72_bytes() -> None:
    assert len(encode(UUIDS * 50)) == 1 + 72 * 100


def test_rows_that_a_trigger_or_a_migration_wrote_are_decoded() -> None:
    assert decode(json.dumps(UUIDS).encode()) == UUIDS


def test_events_are_numbered_without_a_gap(connection: Connection) -> None:
    for size in (1, 2, 3, 1):
        feed.add(connection, [(f"order {size}", str(n)) for n in range(size)], NOW)
    feed.add(connection, [], NOW)
    assert [entry.position for entry in feed.read(connection, 0, 100)] == [1, 2, 3, 4, 5, 6, 7]
    assert feed.head(connection) == 7


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_pages_of_any_size_have_every_entry_once(connection: Connection, limit: int) -> None:
    sizes = [1, 2, 3, 1, 60, 1, *[2] * 60]
    for batch, size in enumerate(sizes):
        feed.add(connection, [(f"order {batch}", str(n)) for n in range(size)], NOW)
    found: list[Entry] = []
    while page := feed.read(connection, len(found), limit):
        assert len(page) <= limit
        found += page
    assert [entry.position for entry in found] == list(range(1, sum(sizes) + 1))
    assert [(entry.order_id, entry.event_id) for entry in found] == [
        (f"order {batch}", str(n)) for batch, size in enumerate(sizes) for n in range(size)
    ]
