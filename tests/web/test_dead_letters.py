"""Dead-letter operations of a real inventory with parked messages."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import httpx
import msgspec
import pytest
from sqlalchemy import func, select

from todoku.broker.memory import MemoryBroker
from todoku.broker.port import Outgoing
from todoku.contracts import (
    Event,
    OrderCreatedEvent,
    OrderedItem,
    ShipmentCompletedEvent,
    ShippedItem,
    encode,
    seal,
)
from todoku.engine import EngineConfig, Process, RetryPolicy, SteadyClock, Topology
from todoku.engine.testing import running
from todoku.inventory.domain import SetProduct
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web import Backend, application
from web.edge import client, empty_database, run_inline

inventory = inventory_service(Settings())
orders = orders_service(Settings())

pytestmark = pytest.mark.anyio

GARBAGE: Final = b"\xff not an event"
UNKNOWN: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
ADDRESS: Final = "1-1 Chiyoda, Tokyo"
HASTY: Final = EngineConfig(
    retry_policy=RetryPolicy(failing_attempts_max=1, unknown_attempts_max=1)
)


def order_id(n: int = 1) -> str:
    return f"0198c2f0-7b1a-7c3e-9d55-{n:012x}"


def created(n: int = 1, *, quantity: int = 1) -> OrderCreatedEvent:
    return OrderCreatedEvent(
        order_id=order_id(n),
        user_id="alice",
        items=(OrderedItem(product_id="prod001", quantity=quantity, price=1),),
        total_amount=1,
        shipping_address=ADDRESS,
    )


def completed(n: int = 1) -> ShipmentCompletedEvent:
    return ShipmentCompletedEvent(
        order_id=order_id(n),
        shipment_id="s",
        tracking_number="t",
        items=(ShippedItem(product_id="prod001", quantity=1),),
    )


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait at most 10 s for a condition."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - no signal over HTTP
            await asyncio.sleep(0.001)


class Services:
    """Connected orders and inventory that park failed messages at once, and their clients."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.clock = SteadyClock()
        topology = Topology((orders, inventory))
        self.databases = {s.name: empty_database(s.store.metadata) for s in (orders, inventory)}
        self.processes = {
            service.name: Process(
                service,
                self.databases[service.name],
                self.broker.session(service.name),
                topology,
                owner="test",
                clock=self.clock,
                run_write=run_inline,
                run_read=run_inline,
                config=HASTY,
            )
            for service in (orders, inventory)
        }
        self.orders = client(self._application("orders", orders_api))
        self.inventory = client(self._application("inventory", inventory_api))

    def _application(self, name: str, api: Any) -> Any:
        backend = Backend(
            process=self.processes[name], database=self.databases[name], run_read=run_inline
        )
        return application(api(backend), backend)

    async def publish_events(self, *events: Event) -> None:
        """Store events in the stream and wait until inventory has acknowledged them."""
        await self.publish(
            *((event.subject, encode(seal(event, self.clock.now()))) for event in events)
        )

    async def publish(self, *messages: tuple[str, bytes]) -> None:
        self.broker.store([Outgoing(subject, body) for subject, body in messages])

        async def acknowledged() -> bool:
            return self.broker.consumed("inventory") == self.broker.last_sequence

        await until(acknowledged)

    def count(self, table: str) -> int:
        """Return the number of rows of an inventory table."""
        with self.databases["inventory"].read() as connection:
            rows = select(func.count()).select_from(inventory.store.metadata.tables[table])
            return connection.scalar(rows) or 0

    async def parked(self) -> list[Any]:
        reply = await self.inventory.get("/dead-letters?state=PARKED")
        assert reply.status_code == 200
        items: list[Any] = reply.json()["items"]
        return items


@asynccontextmanager
async def running_services() -> AsyncIterator[Services]:
    services = Services()
    async with AsyncExitStack() as stack:
        for process in services.processes.values():
            await stack.enter_async_context(running(process))
        await services.processes["inventory"].execute(
            SetProduct(product_id="prod001", name="n", price=1, stock_quantity=5)
        )
        yield services


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    async with running_services() as services:
        yield services


async def test_lists_show_error_shapes_without_personal_data(
    services: Services,
) -> None:
    await services.publish_events(created(quantity=0))
    (letter,) = await services.parked()
    assert letter["orderId"] == order_id()
    assert (letter["eventType"], letter["state"], letter["attempts"]) == (
        "OrderCreatedEvent",
        "PARKED",
        1,
    )
    assert letter["error"].startswith("AssertionError: OrderCreatedEvent(order_id=…,")
    listed = (await services.inventory.get("/dead-letters")).text
    grouped = (await services.inventory.get("/dead-letters/groups")).text
    for text in (listed, grouped):
        assert "alice" not in text
        assert ADDRESS not in text


async def test_dead_letter_details_include_message_and_attempts(services: Services) -> None:
    await services.publish_events(created(quantity=0))
    (letter,) = await services.parked()
    details = (await services.inventory.get(f"/dead-letters/{letter['id']}")).json()
    assert details["body"]["data"]["shippingAddress"] == ADDRESS
    assert details["bodyBase64"] is None
    assert details["subject"] == "orders.created"
    assert "Traceback" in details["traceback"]
    assert details["error"].startswith("AssertionError")
    (attempt,) = details["history"]
    assert attempt == {"at": details["parkedAt"], "error": details["error"], "askedBy": None}


async def test_message_that_is_not_json_is_shown_in_base64(services: Services) -> None:
    await services.publish(("orders.created", GARBAGE))
    (letter,) = await services.parked()
    details = (await services.inventory.get(f"/dead-letters/{letter['id']}")).json()
    assert details["body"] is None
    assert base64.b64decode(details["bodyBase64"]) == GARBAGE
    assert (details["eventType"], details["orderId"]) == (None, None)


async def test_dead_letters_are_paginated_and_filtered(services: Services) -> None:
    await services.publish_events(*(completed(n) for n in range(5)))
    await services.publish(("orders.created", GARBAGE))
    seen, address = [], "/dead-letters?limit=2"
    while address:
        reply = await services.inventory.get(address)
        seen += [letter["id"] for letter in reply.json()["items"]]
        address = reply.links["next"]["url"] if "next" in reply.links else ""
    assert len(seen) == len(set(seen)) == 6
    one = (await services.inventory.get(f"/dead-letters?orderId={order_id(3).upper()}")).json()[
        "items"
    ]
    assert [letter["orderId"] for letter in one] == [order_id(3)]
    groups = (await services.inventory.get("/dead-letters/groups")).json()["items"]
    assert [(group["letters"], group["orders"]) for group in groups] == [(5, 5), (1, 0)]
    alike = await services.inventory.get("/dead-letters", params={"group": groups[1]["group"]})
    assert [letter["eventType"] for letter in alike.json()["items"]] == [None]
    assert (await services.inventory.get("/dead-letters?state=DISCARDED")).json()["items"] == []


@pytest.mark.parametrize(
    "cursor", ["MQ", "YWJj", "eCAwMTk4YzJmMC03YjFhLTdjM2UtOWQ1NS0zZjZhMWMyYjRkNWU"]
)
async def test_invalid_cursor_is_refused(services: Services, cursor: str) -> None:
    assert (await services.inventory.get(f"/dead-letters?cursor={cursor}")).status_code == 400


async def test_retry_succeeds_after_cause_is_fixed(services: Services) -> None:
    await services.publish_events(completed())
    (letter,) = await services.parked()
    await services.publish_events(created())
    reply = await services.inventory.post(f"/dead-letters/{letter['id']}/retry", json={"by": "bob"})
    assert reply.status_code == 200
    after = reply.json()
    assert (after["state"], after["closedBy"], after["attempts"]) == ("RETRIED", "bob", 2)
    assert [attempt["askedBy"] for attempt in after["history"]] == [None, "bob"]
    assert services.count("stock_ledger") == 2  # the opening and one deduction
    again = await services.inventory.post(f"/dead-letters/{letter['id']}/retry", json={})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/letter-closed")


async def test_failed_retry_returns_error_and_keeps_dead_letter_parked(services: Services) -> None:
    await services.publish_events(completed())
    (letter,) = await services.parked()
    reply = await services.inventory.post(f"/dead-letters/{letter['id']}/retry", json={})
    assert (reply.status_code, reply.json()["type"]) == (409, "/problems/letter-stays-parked")
    assert reply.json()["detail"].startswith("UnknownReservation")
    (after,) = await services.parked()
    assert (after["id"], after["attempts"]) == (letter["id"], 2)


async def test_edit_creates_new_message(services: Services) -> None:
    await services.publish_events(created(quantity=0))
    (letter,) = await services.parked()
    reply = await services.inventory.post(
        f"/dead-letters/{letter['id']}/edit",
        json={"data": msgspec.to_builtins(created()), "by": "bob"},
    )
    assert reply.status_code == 201
    successor = reply.json()
    assert reply.headers["location"] == f"/dead-letters/{successor['id']}"
    assert (successor["state"], successor["replaces"]) == ("RETRIED", letter["id"])
    before = (await services.inventory.get(f"/dead-letters/{letter['id']}")).json()
    assert (before["state"], before["replacedBy"]) == ("EDITED", successor["id"])
    assert services.count("reservations") == 1


@pytest.mark.parametrize(
    "data", [{}, {"orderId": UNKNOWN}, {**msgspec.to_builtins(created()), "more": 1}]
)
async def test_edit_with_invalid_event_is_refused(services: Services, data: Any) -> None:
    await services.publish_events(created(quantity=0))
    (letter,) = await services.parked()
    reply = await services.inventory.post(f"/dead-letters/{letter['id']}/edit", json={"data": data})
    assert (reply.status_code, reply.json()["type"]) == (422, "/problems/invalid-edit")
    assert await services.parked() == [letter]


async def test_discarded_dead_letter_keeps_reason_and_author(services: Services) -> None:
    await services.publish(("orders.created", GARBAGE))
    (letter,) = await services.parked()
    path = f"/dead-letters/{letter['id']}/discard"
    assert (await services.inventory.post(path, json={"reason": "noise"})).status_code == 422
    reply = await services.inventory.post(path, json={"reason": "noise", "by": "bob"})
    after = reply.json()
    assert (reply.status_code, after["state"]) == (200, "DISCARDED")
    assert (after["reason"], after["closedBy"]) == ("noise", "bob")
    assert await services.parked() == []


async def test_bulk_retry_runs_in_background(services: Services) -> None:
    await services.publish_events(*(completed(n) for n in range(3)))
    await services.publish_events(*(created(n) for n in range(3)))
    reply = await services.inventory.post(
        "/dead-letters/retry", json={"all": True, "ratePerSecond": 1000}
    )
    assert (reply.status_code, reply.json()["scheduled"]) == (202, 3)

    async def done() -> bool:
        return not await services.parked()

    await until(done)
    assert services.count("stock_ledger") == 4


@pytest.mark.parametrize("body", [{}, {"all": True, "group": "0123456789ab"}])
async def test_bulk_retry_requires_either_group_or_all(services: Services, body: Any) -> None:
    assert (await services.inventory.post("/dead-letters/retry", json=body)).status_code == 422


@pytest.mark.parametrize("letter_id", [UNKNOWN, "no-uuid"])
@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("GET", "", None),
        ("POST", "/retry", {}),
        ("POST", "/edit", {"data": {}}),
        ("POST", "/discard", {"reason": "r", "by": "b"}),
    ],
)
async def test_unknown_dead_letter_returns_404(
    services: Services, letter_id: str, method: str, rest: str, body: Any
) -> None:
    reply = await services.inventory.request(method, f"/dead-letters/{letter_id}{rest}", json=body)
    assert (reply.status_code, reply.json()["type"]) == (404, "/problems/unknown-letter")


async def test_order_lists_its_parked_messages_and_their_services(services: Services) -> None:
    placed: httpx.Response = await services.orders.post(
        "/orders",
        json={"userId": "alice", "items": [{"productId": "none", "quantity": 1, "price": 1}]},
    )
    order = placed.json()
    assert order["parked"] == []
    address = f"/orders/{order['id']}"
    event = msgspec.structs.replace(completed(), order_id=order["id"])

    async def ended() -> bool:
        return bool((await services.orders.get(address)).json()["status"] == "CANCELLED_NO_STOCK")

    async def parked() -> list[Any]:
        found: list[Any] = (await services.orders.get(address)).json()["parked"]
        return sorted(found, key=lambda one: one["service"] != "orders")

    async def both_parked() -> bool:
        return len(await parked()) == 2

    async def none_parked() -> bool:
        return not await parked()

    await until(ended)
    await services.publish_events(event)
    await until(both_parked)
    here, there = await parked()
    letter_id = there["letterId"]
    assert (here["service"], there["service"]) == ("orders", "inventory")
    assert there | {"since": ""} == {
        "service": "inventory",
        "letterId": letter_id,
        "eventType": "ShipmentCompletedEvent",
        "error": "ContradictoryEvent",
        "since": "",
    }
    listed = (await services.orders.get("/orders")).json()["items"][0]
    assert len(listed["parked"]) == 2
    gone = {"reason": "noise", "by": "bob"}
    await services.inventory.post(f"/dead-letters/{letter_id}/discard", json=gone)
    await services.orders.post(f"/dead-letters/{here['letterId']}/discard", json=gone)
    await until(none_parked)


async def test_requests_about_dead_letters_are_executed_once_for_their_key(
    services: Services,
) -> None:
    """Also a retry that fails, and an edit, whose successor has an id of its own."""

    async def twice(path: str, body: Any) -> httpx.Response:
        headers = {"Idempotency-Key": path}
        first, again = [
            await services.inventory.post(f"/dead-letters/{path}", json=body, headers=headers)
            for _ in range(2)
        ]
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers.get("location") == first.headers.get("location")
        return first

    await services.publish_events(created(quantity=0), completed(2), completed(3))
    letters = {letter["orderId"]: letter["id"] for letter in await services.parked()}
    failed = await twice(f"{letters[order_id(2)]}/retry", {})
    assert failed.json()["type"] == "/problems/letter-stays-parked"
    (second,) = [each for each in await services.parked() if each["orderId"] == order_id(2)]
    assert second["attempts"] == 2
    edited = await twice(f"{letters[order_id(1)]}/edit", {"data": msgspec.to_builtins(created())})
    assert (edited.status_code, edited.json()["state"]) == (201, "RETRIED")
    discarded = await twice(f"{letters[order_id(3)]}/discard", {"reason": "noise", "by": "bob"})
    assert discarded.json()["state"] == "DISCARDED"
    assert (await twice("retry", {"all": True})).json()["scheduled"] == 1
