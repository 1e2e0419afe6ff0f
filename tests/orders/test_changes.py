"""`GET /changes`: every event of every order, once, in one order, for whoever keeps a copy."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import Connection, insert

from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders import following
from todoku.orders.feed_cursor import FeedCursor, parse_cursor, start_of
from todoku.orders.feed_pages import read_page, read_since
from todoku.orders.following import FeedFollower
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.orders.store import feed, order_events
from todoku.settings import Settings
from todoku.web import Backend
from web.edge import RecordingProcess, client, empty_database, run_inline, running_together

pytestmark = pytest.mark.anyio

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
ORDER: Final = {"userId": "u", "items": [{"productId": "ghost", "quantity": 1, "price": 1}]}
"""An order of a product that inventory does not know: it ends as soon as inventory runs."""


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    services = [
        (orders_service(Settings()), orders_api),
        (inventory_service(Settings()), inventory_api),
    ]
    async with running_together(services) as apps, client(apps[0]) as http:
        yield http


async def place(http: httpx.AsyncClient, count: int) -> list[str]:
    """Place orders, wait until they have ended, and return their ids."""
    replies = await asyncio.gather(
        *(http.post("/orders", json=ORDER, headers={"Prefer": "wait=30"}) for _ in range(count))
    )
    assert {reply.json()["status"] for reply in replies} == {"CANCELLED_NO_STOCK"}
    return [reply.json()["id"] for reply in replies]


async def changes(http: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    reply = await http.get("/changes", params=query)
    assert reply.status_code == 200, reply.text
    page: dict[str, Any] = reply.json()
    return page


async def every_change(http: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while (page := await changes(http, **query))["items"]:
        items += page["items"]
        query["after"] = page["next"]
    return items


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_pages_have_every_event_of_every_history_once(
    http: httpx.AsyncClient, limit: int
) -> None:
    ids = await place(http, 5)
    items = await every_change(http, limit=limit)
    assert [item["position"] for item in items] == list(range(1, len(items) + 1))
    for order_id in ids:
        history = (await http.get(f"/orders/{order_id}/events")).json()["items"]
        of_order = [item for item in items if item["orderId"] == order_id]
        assert [
            {k: v for k, v in item.items() if k not in {"position", "orderId"}} for item in of_order
        ] == history
    assert {item["orderId"] for item in items} == set(ids)


async def test_an_event_comes_after_the_one_that_led_to_it(http: httpx.AsyncClient) -> None:
    await place(http, 5)
    seen = set()
    for item in await every_change(http):
        assert item["cause"] is None or item["cause"] in seen, item["type"]
        seen.add(item["id"])


async def test_the_order_of_events_stays_when_more_are_recorded(http: httpx.AsyncClient) -> None:
    await place(http, 3)
    before = await every_change(http)
    await place(http, 3)
    after = await every_change(http)
    assert after[: len(before)] == before
    assert len(after) > len(before)


async def test_an_empty_page_leads_on_to_what_is_recorded_later(http: httpx.AsyncClient) -> None:
    page = await changes(http)
    assert page["items"] == []
    assert (await changes(http, after=page["next"])) == page
    [order_id] = await place(http, 1)
    later = await changes(http, after=page["next"])
    assert later["items"][0]["type"] == "OrderCreatedEvent"
    assert later["items"][0]["orderId"] == order_id


async def test_waiting_request_is_answered_when_something_happens(http: httpx.AsyncClient) -> None:
    after = (await changes(http))["next"]
    waiting = asyncio.create_task(
        http.get("/changes", params={"after": after}, headers={"Prefer": "wait=30"})
    )
    await place(http, 1)
    reply = await asyncio.wait_for(waiting, 20)
    assert reply.headers["preference-applied"] == "wait=30"
    assert reply.json()["items"][0]["type"] == "OrderCreatedEvent"


async def test_waiting_request_is_answered_after_its_time(http: httpx.AsyncClient) -> None:
    reply = await http.get("/changes", headers={"Prefer": "wait=1"})
    assert reply.status_code == 200
    assert reply.json()["items"] == []


@pytest.mark.parametrize(
    "after", ["x", "0.0.0.0", "0.1.00000000.00000000", "a.b.c.d", "", "%00", "1" * 300]
)
async def test_what_is_no_cursor_is_refused(http: httpx.AsyncClient, after: str) -> None:
    await place(http, 1)
    reply = await http.get("/changes", params={"after": after})
    assert reply.status_code == 400
    assert reply.json()["type"] == "/problems/invalid-parameter"
    assert reply.json()["errors"][0]["parameter"] == "after"


@pytest.mark.parametrize("change", ["epoch", "event", "position", "end"])
async def test_cursor_of_another_history_is_gone(http: httpx.AsyncClient, change: str) -> None:
    """Such as one from before the database was restored, whether that was noticed or not."""
    await place(http, 2)
    cursor = parse_cursor((await changes(http, limit=2))["next"])
    assert cursor is not None
    other = {
        "epoch": FeedCursor(cursor.epoch + 1, cursor.position, cursor.event),
        "event": FeedCursor(cursor.epoch, cursor.position, "00000000"),
        "position": FeedCursor(cursor.epoch, cursor.position + 1, cursor.event),
        "end": FeedCursor(cursor.epoch, 10_000, cursor.event),
    }[change]
    reply = await http.get("/changes", params={"after": str(other)})
    assert reply.status_code == 410
    assert reply.json()["type"] == "/problems/feed-restarted"


async def test_each_recovery_begins_an_epoch() -> None:
    store = orders_service(Settings()).store
    positions = store.tables.positions
    with empty_database(store.metadata) as database, database.transaction() as connection:
        assert positions.epoch(connection) == 0
        positions.begin_recovery(connection, 7)
        positions.begin_recovery(connection, 5)
        assert positions.epoch(connection) == 5
        assert positions.is_new(connection)


def record(connection: Connection, event: str = "event", now: datetime = NOW) -> None:
    """Record an event as a batch does."""
    row = {"order_id": "order", "event_id": event, "sequence": 1, "data": "{}"}
    row |= {"type": "t", "source": "s", "said_at": now, "recorded_at": now, "status": "PENDING"}
    connection.execute(insert(order_events).values(row))
    feed.add(connection, [("order", event)], now)


async def test_events_of_other_processes_are_found_without_a_commit_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    store = orders_service(Settings()).store
    process = RecordingProcess(lambda _: None)
    with empty_database(store.metadata) as database:
        database.exclusive = False
        backend = Backend(process=process, database=database, run_read=run_inline)
        follower = FeedFollower(backend)
        after = start_of(0)
        waiting = asyncio.create_task(follower.wait_for(after, 10, 30, asyncio.Event()))
        await asyncio.sleep(0)
        with database.transaction() as connection:
            record(connection)
        page = await asyncio.wait_for(waiting, 20)
    assert [entry.event_id for entry, _ in page.events] == ["event"]
    assert follower.waiting == 0


async def test_feed_can_be_read_from_its_present_end(http: httpx.AsyncClient) -> None:
    await place(http, 1)
    page = await changes(http, start="end")
    assert page["items"] == []
    assert len((await changes(http))["items"]) == 3
    [order_id] = await place(http, 1)
    later = await changes(http, after=page["next"])
    assert {item["orderId"] for item in later["items"]} == {order_id}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
async def test_feed_can_be_read_from_a_time_on(count: int) -> None:
    """With a margin, for clocks that were set back."""
    store = orders_service(Settings()).store
    with empty_database(store.metadata) as database, database.transaction() as connection:
        for n in range(count):
            record(connection, str(n), NOW + timedelta(hours=n))
        for hours in range(count + 2):
            cursor = read_since(connection, NOW + timedelta(hours=hours, minutes=5))
            assert cursor.position == min(hours, count)
            page = read_page(connection, cursor, 1)
            assert len(page.events) == (hours < count)


@pytest.mark.parametrize(
    ("since", "count"),
    [
        ("0001-01-01T00:00:00Z", 3),
        ("0001-01-01T00:00:00+23:59", 3),
        ("9999-12-31T23:59:59-23:59", 0),
    ],
)
async def test_feed_can_be_read_from_the_first_and_the_last_time(
    http: httpx.AsyncClient, since: str, count: int
) -> None:
    await place(http, 1)
    assert len((await changes(http, since=since))["items"]) == count
