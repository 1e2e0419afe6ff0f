"""The table of API keys, and events about keys that no service can have published."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import msgspec
import pytest
from sqlalchemy import MetaData

from todoku.contracts import OrdersApiKeyChangedEvent
from todoku.engine import ApiKeys
from todoku.engine.api_keys import InvalidApiKey, event_of_key, key_of_event, require_valid_key
from todoku.identity.keys import ApiKey
from web.edge import empty_database

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CREATED = ApiKey(
    id="9f86d081884c7d65", digest="0f" * 32, owner="alice", scopes=("repair",), created_at=NOW
)
REVOKED = msgspec.structs.replace(CREATED, revoked_at=NOW + timedelta(days=1))


def event(key: ApiKey, **changes: Any) -> OrdersApiKeyChangedEvent:
    told = event_of_key(OrdersApiKeyChangedEvent, key)
    assert isinstance(told, OrdersApiKeyChangedEvent)
    return msgspec.structs.replace(told, **changes)


def test_last_version_of_a_key_stays_in_whatever_order_its_events_come() -> None:
    for order in permutations([CREATED, REVOKED, CREATED]):
        metadata = MetaData()
        table = ApiKeys(metadata)
        with empty_database(metadata) as database, database.transaction() as connection:
            for key in order:
                table.keep(connection, [key])
            (kept,) = table.read(connection).values()
        assert kept == REVOKED


@pytest.mark.parametrize("key", [CREATED, REVOKED])
def test_event_tells_the_whole_key(key: ApiKey) -> None:
    require_valid_key(event(key))
    assert key_of_event(event(key)) == key


@pytest.mark.parametrize(
    "broken",
    [
        event(CREATED, key_id="' OR 1"),
        event(CREATED, key_id=CREATED.id.upper()),
        event(CREATED, digest=""),
        event(CREATED, digest="0f" * 31),
        event(CREATED, version=0),
        event(REVOKED, version=3),
        event(REVOKED, version=1),
        event(CREATED, version=2),
    ],
)
def test_event_that_no_service_can_have_published_is_refused(
    broken: OrdersApiKeyChangedEvent,
) -> None:
    with pytest.raises(InvalidApiKey, match="discard the message"):
        require_valid_key(broken)
