"""Dead letters over HTTP, at a real inventory that has parked real messages."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
from todoku.inventory.domain import SetProduct
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory
from todoku.orders.http import orders_api
from todoku.orders.service import orders
from todoku.web import Backend, application
from web.edge import at_once, client, empty_database

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
    """Wait until it holds, within bounds."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - nothing signals what is asked over HTTP
            await asyncio.sleep(0.001)


class Place:
    """Orders and inventory, which hear each other and park what fails at once, and their clients."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.clock = SteadyClock()
        topology = Topology((orders, inventory))
        self.databases = {s.name: empty_database(s.store.metadata) for s in (orders, inventory)}
        self.processes = {
            service.name: Process(
                service,
                self.databases[service.name],
                service.store.tables,
                self.broker.session(service.name),
                topology,
                owner="test",
                clock=self.clock,
                run_write=at_once,
                run_read=at_once,
                config=HASTY,
            )
            for service in (orders, inventory)
        }
        self.orders = client(self._application("orders", orders_api))
        self.inventory = client(self._application("inventory", inventory_api))

    def _application(self, name: str, api: Any) -> Any:
        backend = Backend(
            process=self.processes[name], database=self.databases[name], run_read=at_once
        )
        return application(api(backend), backend)

    async def say(self, *events: Event) -> None:
        """Put events into the stream, and wait until the inventory has settled them."""
        await self.publish(
            *((event.subject, encode(seal(event, self.clock.now()))) for event in events)
        )

    async def publish(self, *messages: tuple[str, bytes]) -> None:
        self.broker.store([Outgoing(subject, body) for subject, body in messages])

        async def settled() -> bool:
            return self.broker.consumed("inventory") == self.broker.last_sequence

        await until(settled)

    def count(self, table: str) -> int:
        """How many rows a table of the inventory has."""
        with self.databases["inventory"].read() as connection:
            rows = select(func.count()).select_from(inventory.store.metadata.tables[table])
            return connection.scalar(rows) or 0

    async def parked(self) -> list[Any]:
        reply = await self.inventory.get("/dead-letters?state=PARKED")
        assert reply.status_code == 200
        items: list[Any] = reply.json()["items"]
        return items


@asynccontextmanager
async def a_place() -> AsyncIterator[Place]:
    place = Place()
    for process in place.processes.values():
        await process.start()
    await place.processes["inventory"].ask(
        SetProduct(product_id="prod001", name="n", price=1, stock_quantity=5)
    )
    try:
        yield place
    finally:
        for process in place.processes.values():
            await process.stop()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with a_place() as place:
        yield place


async def test_lists_tell_of_which_kind_the_errors_are_and_nothing_about_people(
    place: Place,
) -> None:
    await place.say(created(quantity=0))
    (letter,) = await place.parked()
    assert letter["orderId"] == order_id()
    assert (letter["eventType"], letter["state"], letter["attempts"]) == (
        "OrderCreatedEvent",
        "PARKED",
        1,
    )
    assert letter["error"].startswith("AssertionError: OrderCreatedEvent(order_id=…,")
    listed = (await place.inventory.get("/dead-letters")).text
    grouped = (await place.inventory.get("/dead-letters/groups")).text
    for text in (listed, grouped):
        assert "alice" not in text
        assert ADDRESS not in text


async def test_the_letter_itself_tells_everything(place: Place) -> None:
    await place.say(created(quantity=0))
    (letter,) = await place.parked()
    details = (await place.inventory.get(f"/dead-letters/{letter['id']}")).json()
    assert details["body"]["data"]["shippingAddress"] == ADDRESS
    assert details["bodyBase64"] is None
    assert details["subject"] == "orders.created"
    assert "Traceback" in details["traceback"]
    assert details["error"].startswith("AssertionError")
    (attempt,) = details["history"]
    assert attempt == {"at": details["parkedAt"], "error": details["error"], "askedBy": None}


async def test_what_is_no_json_is_told_in_base64(place: Place) -> None:
    await place.publish(("orders.created", GARBAGE))
    (letter,) = await place.parked()
    details = (await place.inventory.get(f"/dead-letters/{letter['id']}")).json()
    assert details["body"] is None
    assert base64.b64decode(details["bodyBase64"]) == GARBAGE
    assert (details["eventType"], details["orderId"]) == (None, None)


async def test_letters_are_listed_page_by_page_and_filtered(place: Place) -> None:
    await place.say(*(completed(n) for n in range(5)))
    await place.publish(("orders.created", GARBAGE))
    seen, address = [], "/dead-letters?limit=2"
    while address:
        reply = await place.inventory.get(address)
        seen += [letter["id"] for letter in reply.json()["items"]]
        address = reply.links["next"]["url"] if "next" in reply.links else ""
    assert len(seen) == len(set(seen)) == 6
    one = (await place.inventory.get(f"/dead-letters?orderId={order_id(3).upper()}")).json()[
        "items"
    ]
    assert [letter["orderId"] for letter in one] == [order_id(3)]
    groups = (await place.inventory.get("/dead-letters/groups")).json()["items"]
    assert [(group["letters"], group["orders"]) for group in groups] == [(5, 5), (1, 0)]
    alike = await place.inventory.get("/dead-letters", params={"group": groups[1]["group"]})
    assert [letter["eventType"] for letter in alike.json()["items"]] == [None]
    assert (await place.inventory.get("/dead-letters?state=DISCARDED")).json()["items"] == []


@pytest.mark.parametrize(
    "cursor", ["MQ", "YWJj", "eCAwMTk4YzJmMC03YjFhLTdjM2UtOWQ1NS0zZjZhMWMyYjRkNWU"]
)
async def test_a_made_up_cursor_is_refused(place: Place, cursor: str) -> None:
    assert (await place.inventory.get(f"/dead-letters?cursor={cursor}")).status_code == 400


async def test_a_retry_after_the_cause_is_gone_deals_with_it(place: Place) -> None:
    await place.say(completed())
    (letter,) = await place.parked()
    await place.say(created())
    reply = await place.inventory.post(f"/dead-letters/{letter['id']}/retry", json={"by": "bob"})
    assert reply.status_code == 200
    after = reply.json()
    assert (after["state"], after["closedBy"], after["attempts"]) == ("RETRIED", "bob", 2)
    assert [attempt["askedBy"] for attempt in after["history"]] == [None, "bob"]
    assert place.count("stock_ledger") == 2  # the opening and one deduction
    again = await place.inventory.post(f"/dead-letters/{letter['id']}/retry", json={})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/letter-closed")


async def test_a_retry_that_fails_says_why_and_the_letter_stays(place: Place) -> None:
    await place.say(completed())
    (letter,) = await place.parked()
    reply = await place.inventory.post(f"/dead-letters/{letter['id']}/retry", json={})
    assert (reply.status_code, reply.json()["type"]) == (409, "/problems/letter-stays-parked")
    assert reply.json()["detail"].startswith("UnknownReservation")
    (after,) = await place.parked()
    assert (after["id"], after["attempts"]) == (letter["id"], 2)


async def test_a_correction_becomes_a_message_of_its_own(place: Place) -> None:
    await place.say(created(quantity=0))
    (letter,) = await place.parked()
    reply = await place.inventory.post(
        f"/dead-letters/{letter['id']}/edit",
        json={"data": msgspec.to_builtins(created()), "by": "bob"},
    )
    assert reply.status_code == 201
    successor = reply.json()
    assert reply.headers["location"] == f"/dead-letters/{successor['id']}"
    assert (successor["state"], successor["replaces"]) == ("RETRIED", letter["id"])
    before = (await place.inventory.get(f"/dead-letters/{letter['id']}")).json()
    assert (before["state"], before["replacedBy"]) == ("EDITED", successor["id"])
    assert place.count("reservations") == 1


@pytest.mark.parametrize(
    "data", [{}, {"orderId": UNKNOWN}, {**msgspec.to_builtins(created()), "more": 1}]
)
async def test_a_correction_that_is_no_such_event_is_refused(place: Place, data: Any) -> None:
    await place.say(created(quantity=0))
    (letter,) = await place.parked()
    reply = await place.inventory.post(f"/dead-letters/{letter['id']}/edit", json={"data": data})
    assert (reply.status_code, reply.json()["type"]) == (422, "/problems/invalid-edit")
    assert await place.parked() == [letter]


async def test_a_discarded_letter_is_kept_with_who_and_why(place: Place) -> None:
    await place.publish(("orders.created", GARBAGE))
    (letter,) = await place.parked()
    path = f"/dead-letters/{letter['id']}/discard"
    assert (await place.inventory.post(path, json={"reason": "noise"})).status_code == 422
    reply = await place.inventory.post(path, json={"reason": "noise", "by": "bob"})
    after = reply.json()
    assert (reply.status_code, after["state"]) == (200, "DISCARDED")
    assert (after["reason"], after["closedBy"]) == ("noise", "bob")
    assert await place.parked() == []


async def test_many_are_retried_in_the_background(place: Place) -> None:
    await place.say(*(completed(n) for n in range(3)))
    await place.say(*(created(n) for n in range(3)))
    reply = await place.inventory.post(
        "/dead-letters/retry", json={"all": True, "ratePerSecond": 1000}
    )
    assert (reply.status_code, reply.json()["scheduled"]) == (202, 3)

    async def done() -> bool:
        return not await place.parked()

    await until(done)
    assert place.count("stock_ledger") == 4


@pytest.mark.parametrize("body", [{}, {"all": True, "group": "0123456789ab"}])
async def test_which_are_to_be_retried_must_be_said_once(place: Place, body: Any) -> None:
    assert (await place.inventory.post("/dead-letters/retry", json=body)).status_code == 422


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
async def test_an_unknown_letter_is_not_found(
    place: Place, letter_id: str, method: str, rest: str, body: Any
) -> None:
    reply = await place.inventory.request(method, f"/dead-letters/{letter_id}{rest}", json=body)
    assert (reply.status_code, reply.json()["type"]) == (404, "/problems/unknown-letter")


async def test_an_order_says_which_of_its_messages_wait_and_where(place: Place) -> None:
    placed: httpx.Response = await place.orders.post(
        "/orders",
        json={"userId": "alice", "items": [{"productId": "none", "quantity": 1, "price": 1}]},
    )
    order = placed.json()
    assert order["parked"] == []
    address = f"/orders/{order['id']}"
    event = msgspec.structs.replace(completed(), order_id=order["id"])

    async def ended() -> bool:
        return bool((await place.orders.get(address)).json()["status"] == "CANCELLED_NO_STOCK")

    async def parked() -> list[Any]:
        found: list[Any] = (await place.orders.get(address)).json()["parked"]
        return sorted(found, key=lambda one: one["service"] != "orders")

    async def both_parked() -> bool:
        return len(await parked()) == 2

    async def none_parked() -> bool:
        return not await parked()

    await until(ended)
    await place.say(event)
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
    listed = (await place.orders.get("/orders")).json()["items"][0]
    assert len(listed["parked"]) == 2
    gone = {"reason": "noise", "by": "bob"}
    await place.inventory.post(f"/dead-letters/{letter_id}/discard", json=gone)
    await place.orders.post(f"/dead-letters/{here['letterId']}/discard", json=gone)
    await until(none_parked)
