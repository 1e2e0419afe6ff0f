"""HTTP operations of the orders service."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import text

from todoku.contracts import MAX_SAFE_INTEGER, OrderedItem
from todoku.database import Database
from todoku.engine import MailboxFull
from todoku.orders import listing as orders_listing
from todoku.orders import store
from todoku.orders.cancellation import CancelOrder, TooLateToCancel
from todoku.orders.domain import Order, OrderStatus
from todoku.orders.http import orders_api
from todoku.orders.placing import PlaceOrder, place_order
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web import Backend, Context, application
from web.edge import JSON, RecordingProcess, client, empty_database, run_inline, running

orders = orders_service(Settings())

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ITEM = {"productId": "prod001", "quantity": 2, "price": 5000}
LINE = {"productId": "prod001", "ordered": 2, "reserved": 0, "shipped": 0, "cancelled": 0}
WAITING = {
    "service": None,
    "letterId": None,
    "attempts": None,
    "lastError": None,
    "nextAttemptAt": None,
    "reportedAt": None,
    "pauses": [],
}
ORDER = {"userId": "user123", "items": [ITEM], "shippingAddress": "Tokyo"}


def accept(command: PlaceOrder) -> Order:
    """Return the domain's decision, as the engine does."""
    return place_order(None, command, NOW)[0]


@pytest.fixture
def process() -> RecordingProcess:
    return RecordingProcess(accept)


@pytest.fixture
async def http(process: RecordingProcess) -> AsyncIterator[httpx.AsyncClient]:
    with empty_database(store.metadata) as database:
        backend = Backend(process=process, database=database, run_read=run_inline)
        async with client(application(orders_api(backend), backend)) as http:
            yield http


@pytest.fixture
async def real() -> AsyncIterator[httpx.AsyncClient]:
    """A client of orders with a real engine and database."""
    async with running(orders, orders_api) as app, client(app) as http:
        yield http


def assert_problem(reply: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert problem["type"] == f"/problems/{slug}"
    assert problem["status"] == status
    return problem


async def test_accepted_order_returns_201_with_location_and_order(
    http: httpx.AsyncClient, process: RecordingProcess
) -> None:
    reply = await http.post("/orders", json=ORDER)
    assert reply.status_code == 201
    order = reply.json()
    assert uuid.UUID(order["id"]).version == 7
    assert reply.headers["location"] == f"/orders/{order['id']}"
    assert order == {
        "id": order["id"],
        "userId": "user123",
        "items": [ITEM],
        "totalAmount": 10000,
        "currency": "JPY",
        "shippingAddress": "Tokyo",
        "status": "PENDING",
        "reason": None,
        "shipmentId": None,
        "trackingNumber": None,
        "createdAt": "2026-01-02T03:04:05Z",
        "updatedAt": "2026-01-02T03:04:05Z",
        "parked": [],
        "cancellation": None,
        "deadline": None,
        "lines": [LINE],
        "changes": [],
        "waitingFor": {**WAITING, "what": "stock", "since": "2026-01-02T03:04:05Z"},
        "holds": [],
        "onShortage": "cancel",
    }
    assert process.commands == [
        PlaceOrder(
            order_id=order["id"],
            user_id="user123",
            items=(OrderedItem(product_id="prod001", quantity=2, price=5000),),
            shipping_address="Tokyo",
        )
    ]
    assert process.contexts == [Context()]


async def test_each_order_gets_a_new_ascending_id(
    http: httpx.AsyncClient, process: RecordingProcess
) -> None:
    for _ in range(2):
        assert (await http.post("/orders", json=ORDER)).status_code == 201
    first, second = (command.order_id for command in process.commands)
    assert first < second


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",) * 2,
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
        ("anything", None),
    ],
)
async def test_only_valid_traceparent_is_forwarded(
    http: httpx.AsyncClient, process: RecordingProcess, sent: str, passed_on: str | None
) -> None:
    await http.post("/orders", json=ORDER, headers={"traceparent": sent})
    assert [context.traceparent for context in process.contexts] == [passed_on]


def with_item(**changes: Any) -> dict[str, Any]:
    return {**ORDER, "items": [{**ITEM, **changes}]}


INVALID_BODIES: dict[str, tuple[Any, str]] = {
    "a list": ([], "#"),
    "null": (None, "#"),
    "no user": ({"items": [ITEM]}, "#/userId"),
    "an empty user": ({**ORDER, "userId": ""}, "#/userId"),
    "too long a user": ({**ORDER, "userId": "u" * 129}, "#/userId"),
    "a user with NUL": ({**ORDER, "userId": "a\0b"}, "#/userId"),
    "a number as user": ({**ORDER, "userId": 1}, "#/userId"),
    "an unknown field": ({**ORDER, "colour": "red"}, "#/colour"),
    "an unknown field with a slash": ({**ORDER, "a/b~c": 1}, "#/a~1b~0c"),
    "an unknown field of an item": (with_item(colour="red"), "#/items/0/colour"),
    "no items": ({**ORDER, "items": []}, "#/items"),
    "items left out": ({"userId": "user123"}, "#/items"),
    "too many items": ({**ORDER, "items": [ITEM] * 1001}, "#/items"),
    "quantity zero": (with_item(quantity=0), "#/items/0/quantity"),
    "a negative quantity": (with_item(quantity=-1), "#/items/0/quantity"),
    "a fractional quantity": (with_item(quantity=1.5), "#/items/0/quantity"),
    "a quantity written as a fraction": (with_item(quantity=1.0), "#/items/0/quantity"),
    "a huge quantity": (with_item(quantity=MAX_SAFE_INTEGER + 1), "#/items/0/quantity"),
    "a quantity beyond 64 bits": (with_item(quantity=10**30), "#/items/0/quantity"),
    "a boolean quantity": (with_item(quantity=True), "#/items/0/quantity"),
    "a quantity as text": (with_item(quantity="1"), "#/items/0/quantity"),
    "quantity null": (with_item(quantity=None), "#/items/0/quantity"),
    "a negative price": (with_item(price=-5), "#/items/0/price"),
    "a fractional price": (with_item(price=0.5), "#/items/0/price"),
    "a huge price": (with_item(price=2**63), "#/items/0/price"),
    "an empty product id": (with_item(productId=""), "#/items/0/productId"),
    "a product id that ends with a space": (with_item(productId="a "), "#/items/0/productId"),
    "a product id with a newline at its end": (with_item(productId="a\n"), "#/items/0/productId"),
    "too long a product id": (with_item(productId="p" * 256), "#/items/0/productId"),
    "the second item": ({**ORDER, "items": [ITEM, {**ITEM, "price": -1}]}, "#/items/1/price"),
    "too long an address": ({**ORDER, "shippingAddress": "a" * 1001}, "#/shippingAddress"),
    "an address with NUL": ({**ORDER, "shippingAddress": "\0"}, "#/shippingAddress"),
    "a currency that does not exist": ({**ORDER, "currency": "ZZZ"}, "#/currency"),
    "a currency in small letters": ({**ORDER, "currency": "jpy"}, "#/currency"),
    "a currency of four letters": ({**ORDER, "currency": "JPYX"}, "#/currency"),
    "a currency with a newline at its end": ({**ORDER, "currency": "JPY\n"}, "#/currency"),
}


@pytest.mark.parametrize("name", INVALID_BODIES)
async def test_invalid_order_body_returns_422_with_pointer(
    http: httpx.AsyncClient, process: RecordingProcess, name: str
) -> None:
    body, pointer = INVALID_BODIES[name]
    reply = await http.post("/orders", content=json.dumps(body), headers=JSON)
    problem = assert_problem(reply, 422, "invalid-body")
    (fault,) = problem["errors"]
    assert fault["pointer"] == pointer
    assert fault["detail"] in problem["detail"]
    assert "`" not in fault["detail"], "the decoder's own words"
    assert process.commands == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"userId":}',
        b"not json",
        b"\xef\xbb\xbf{}",
        b'{"userId": "\xff"}',
        b'{"userId": "\\ud800", "items": []}',
    ],
)
async def test_malformed_json_is_refused(
    http: httpx.AsyncClient, process: RecordingProcess, body: bytes
) -> None:
    reply = await http.post("/orders", content=body, headers=JSON)
    assert_problem(reply, 400, "malformed-json")
    assert process.commands == []


@pytest.mark.parametrize("body", [b"[" * 500_000, b'{"items":[' * 50_000, b'{"x":' * 100_000])
async def test_deep_nesting_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    assert_problem(await http.post("/orders", content=body, headers=JSON), 422, "invalid-body")


async def test_thousand_items_are_accepted(http: httpx.AsyncClient) -> None:
    items = [{**ITEM, "productId": f"p{n}"} for n in range(1000)]
    assert (await http.post("/orders", json={**ORDER, "items": items})).status_code == 201


async def test_unicode_text_is_returned_unchanged(http: httpx.AsyncClient) -> None:
    order = {**ORDER, "userId": "利用者 \U0001f600", "shippingAddress": "東京都千代田区1-1"}
    reply = (await http.post("/orders", json=order)).json()
    assert (reply["userId"], reply["shippingAddress"]) == (
        order["userId"],
        order["shippingAddress"],
    )


async def test_full_mailbox_returns_503_with_retry_after(
    http: httpx.AsyncClient, process: RecordingProcess
) -> None:
    process.fail_with = MailboxFull("5000 requests are waiting already: try again later.")
    reply = await http.post("/orders", json=ORDER)
    assert_problem(reply, 503, "overloaded")
    assert reply.headers["retry-after"] == "1"


async def test_command_timeout_returns_outcome_unknown_with_lookup() -> None:
    process = RecordingProcess(lambda _: asyncio.Event().wait())
    with empty_database(store.metadata) as database:
        backend = Backend(
            process=process, database=database, run_read=run_inline, response_timeout_seconds=0.01
        )
        async with client(application(orders_api(backend), backend)) as http:
            reply = await http.post("/orders", json=ORDER)
    problem = assert_problem(reply, 503, "outcome-unknown")
    assert f"GET /orders/{process.commands[0].order_id}" in problem["detail"]


async def test_placed_order_can_be_read_with_its_history(real: httpx.AsyncClient) -> None:
    placed = (await real.post("/orders", json=ORDER)).json()
    found = await real.get(f"/orders/{placed['id']}")
    assert (found.status_code, found.json()) == (200, placed)
    assert (await real.get(f"/orders/{placed['id'].upper()}")).json() == placed

    history = (await real.get(f"/orders/{placed['id']}/events")).json()
    (event,) = history["items"]
    assert event["sequence"] == 1
    assert event["type"] == "OrderCreatedEvent"
    assert event["source"] == "orders"
    assert event["actor"] is None
    assert event["status"] == "PENDING"
    assert event["time"] == event["recordedAt"] == placed["createdAt"]
    assert event["data"]["orderId"] == placed["id"]
    assert event["data"]["totalAmount"] == 10000


async def test_order_is_accepted_with_its_deadline(real: httpx.AsyncClient) -> None:
    reply = await real.post("/orders", json={**ORDER, "deadline": "2034-01-02T12:00:00+09:00"})
    assert reply.status_code == 201
    order = reply.json()
    assert order["deadline"] == "2034-01-02T03:00:00Z"
    assert (await real.get(f"/orders/{order['id']}")).json() == order


async def test_order_without_a_deadline_gets_one(real: httpx.AsyncClient) -> None:
    order = (await real.post("/orders", json=ORDER)).json()
    created, deadline = (datetime.fromisoformat(order[key]) for key in ("createdAt", "deadline"))
    assert deadline - created == timedelta(days=7)


@pytest.mark.parametrize(
    ("deadline", "slug"),
    [
        ("2020-01-02T03:04:05Z", "invalid-deadline"),
        ("9999-12-31T23:59:59-12:00", "invalid-deadline"),
        ("0001-01-01T00:00:00+12:00", "invalid-deadline"),
        ("2034-01-02T03:04:05", "invalid-body"),
        ("tomorrow", "invalid-body"),
        (1893553445, "invalid-body"),
    ],
)
async def test_invalid_deadline_is_refused(
    real: httpx.AsyncClient, deadline: Any, slug: str
) -> None:
    reply = await real.post("/orders", json={**ORDER, "deadline": deadline})
    assert_problem(reply, 422, slug)
    assert (await real.get("/orders")).json()["items"] == []


async def test_order_is_cancelling_until_shipping_has_decided(real: httpx.AsyncClient) -> None:
    placed = (await real.post("/orders", json=ORDER)).json()
    reply = await real.post(f"/orders/{placed['id']}/cancel", json={"reason": "Ordered twice."})
    assert reply.status_code == 202
    order = reply.json()
    assert order == {
        **placed,
        "status": "CANCELLING",
        "updatedAt": order["updatedAt"],
        "cancellation": {
            "state": "requested",
            "by": None,
            "reason": "Ordered twice.",
            "requestedAt": order["updatedAt"],
            "decidedAt": None,
            "refusal": None,
        },
        "changes": order["changes"],
        "waitingFor": {**WAITING, "what": "cancellation", "since": order["updatedAt"]},
    }
    (change,) = order["changes"]
    assert (change["items"], change["whole"]) == ([{"productId": "prod001", "quantity": 2}], True)
    assert (await real.get(f"/orders/{placed['id']}")).json() == order
    history = (await real.get(f"/orders/{placed['id']}/events")).json()["items"]
    assert [event["type"] for event in history] == [
        "OrderCreatedEvent",
        "CancellationRequestedEvent",
    ]
    listed = await real.get("/orders", params={"status": "CANCELLING"})
    assert [each["id"] for each in listed.json()["items"]] == [placed["id"]]


async def test_asking_again_to_cancel_gets_the_same_answer(real: httpx.AsyncClient) -> None:
    placed = (await real.post("/orders", json=ORDER)).json()
    address = f"/orders/{placed['id']}/cancel"
    first = await real.post(address, json={"reason": "Ordered twice."})
    second = await real.post(address, json={"reason": "Another reason."})
    assert (second.status_code, second.json()) == (202, first.json())


async def test_pieces_of_a_line_can_be_cancelled(real: httpx.AsyncClient) -> None:
    placed = (await real.post("/orders", json=ORDER)).json()
    address = f"/orders/{placed['id']}/cancel"
    piece = {"productId": "prod001", "quantity": 1}
    order = (await real.post(address, json={"items": [piece]})).json()
    assert (order["status"], order["cancellation"]) == ("PENDING", None)
    (change,) = order["changes"]
    assert (change["items"], change["whole"], change["state"]) == ([piece], False, "requested")
    for wrong in ({**piece, "quantity": 2}, {**piece, "productId": "prod002"}):
        assert_problem(
            await real.post(address, json={"items": [wrong]}), 422, "invalid-cancellation"
        )
    last = (await real.post(address, json={"items": [piece]})).json()
    assert (last["status"], last["changes"][1]["whole"]) == ("CANCELLING", True)
    assert_problem(await real.post(address, json={"items": [piece]}), 409, "too-late-to-cancel")


async def test_order_that_is_unknown_cannot_be_cancelled(real: httpx.AsyncClient) -> None:
    for order_id in (str(uuid.uuid4()), "not-a-uuid"):
        assert_problem(await real.post(f"/orders/{order_id}/cancel", json={}), 404, "unknown-order")


async def test_cancellation_that_is_too_late_is_refused_with_the_status(
    http: httpx.AsyncClient, process: RecordingProcess
) -> None:
    process.fail_with = TooLateToCancel("Order 4711 has ended: it is COMPLETED.")
    reply = await http.post(f"/orders/{uuid.uuid4()}/cancel", json={})
    problem = assert_problem(reply, 409, "too-late-to-cancel")
    assert problem["detail"] == "Order 4711 has ended: it is COMPLETED."


async def test_cancellation_names_who_asked(
    http: httpx.AsyncClient, process: RecordingProcess
) -> None:
    process.fail_with = TooLateToCancel("")
    order_id = str(uuid.uuid4())
    await http.post(f"/orders/{order_id.upper()}/cancel", json={"reason": "r"})
    (command,) = process.commands
    assert isinstance(command, CancelOrder)
    assert (command.order_id, command.reason, command.by) == (order_id, "r", None)
    assert uuid.UUID(command.change_id).version == 7


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"reason": ""}, "#/reason"),
        ({"reason": "r" * 1001}, "#/reason"),
        ({"reason": 5}, "#/reason"),
        ({"why": "r"}, "#/why"),
        ({"items": []}, "#/items"),
        ([], "#"),
    ],
)
async def test_invalid_cancellation_is_refused(
    http: httpx.AsyncClient, process: RecordingProcess, body: Any, pointer: str
) -> None:
    reply = await http.post(f"/orders/{uuid.uuid4()}/cancel", json=body)
    problem = assert_problem(reply, 422, "invalid-body")
    assert problem["errors"][0]["pointer"] == pointer
    assert process.commands == []


async def test_lines_with_same_product_are_added_up(real: httpx.AsyncClient) -> None:
    order = (await real.post("/orders", json={**ORDER, "items": [ITEM, ITEM]})).json()
    assert order["items"] == [{**ITEM, "quantity": 4}]


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([{**ITEM, "quantity": MAX_SAFE_INTEGER, "price": 2}], id="one line"),
        pytest.param(
            [{**ITEM, "quantity": MAX_SAFE_INTEGER, "price": 1}, {**ITEM, "price": 1}], id="a sum"
        ),
        pytest.param([ITEM, {**ITEM, "price": 4999}], id="two prices"),
    ],
)
async def test_order_refused_by_domain_returns_422(
    real: httpx.AsyncClient, items: list[Any]
) -> None:
    reply = await real.post("/orders", json={**ORDER, "items": items})
    assert_problem(reply, 422, "invalid-order")
    assert (await real.get("/orders")).json()["items"] == []


@pytest.mark.parametrize("path", ["/orders/{id}", "/orders/{id}/events"])
@pytest.mark.parametrize(
    "order_id", ["0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e", "17", "%00", "a'b", "{}", "%F0%9F%98%80"]
)
async def test_unknown_order_id_of_any_form_returns_404(
    http: httpx.AsyncClient, path: str, order_id: str
) -> None:
    assert_problem(await http.get(path.format(id=order_id)), 404, "unknown-order")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("status=LOST", "status"),
        ("userId=", "userId"),
        ("userId=%00", "userId"),
        ("user=u", "user"),
        ("limit=1&limit=2", "limit"),
        ("cursor=", "cursor"),
        ("cursor=*", "cursor"),
        ("cursor=abc", "cursor"),
        ("userId=%FF", "userId"),
        ("status=PENDING&status=LOST", "status"),
        ("productId=%00", "productId"),
        ("createdFrom=2030-01-02T03:04:05", "createdFrom"),
        ("createdTo=1893553445", "createdTo"),
        ("createdTo=tomorrow", "createdTo"),
        ("parked=false", "parked"),
        ("overdue=yes", "overdue"),
        ("sort=id", "sort"),
        ("count=1", "count"),
    ],
)
async def test_invalid_parameter_is_refused_by_name(
    http: httpx.AsyncClient, query: str, parameter: str
) -> None:
    problem = assert_problem(await http.get(f"/orders?{query}"), 400, "invalid-parameter")
    assert [fault["parameter"] for fault in problem["errors"]] == [parameter]


async def test_place_order_accepts_no_query_parameters(
    http: httpx.AsyncClient, process: RecordingProcess
) -> None:
    assert_problem(await http.post("/orders?dry=1", json=ORDER), 400, "invalid-parameter")
    assert process.commands == []


class Orders:
    """Insert orders into a database, each a second after the one before."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.count = 0

    def add(self, user_id: str, status: OrderStatus = OrderStatus.PENDING) -> str:
        self.count += 1
        now = NOW + timedelta(seconds=self.count)
        order_id = f"{self.count:08x}-0000-7000-8000-000000000000"
        item = OrderedItem(product_id="prod001", quantity=1, price=self.count)
        command = PlaceOrder(order_id=order_id, user_id=user_id, items=(item,), currency="JPY")
        order = msgspec.structs.replace(
            place_order(None, command, now)[0], status=status, tracking_number="T1"
        )
        world = store.OrdersUnitOfWork({}, {})
        world.put(command, order)
        with self._database.transaction() as connection:
            store.OrdersStore().save(connection, world, now)
        return order_id


@pytest.fixture
def database() -> Any:
    with empty_database(store.metadata) as database:
        yield database


@pytest.fixture
async def listing(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    backend = Backend(process=RecordingProcess(accept), database=database, run_read=run_inline)
    async with client(application(orders_api(backend), backend)) as http:
        yield http


async def follow(http: httpx.AsyncClient, url: str) -> list[list[str]]:
    """Return the ids on each page, following the Link headers."""
    pages = []
    while True:
        reply = await http.get(url)
        assert reply.status_code == 200, reply.text
        page = reply.json()
        pages.append([order["id"] for order in page["items"]])
        if page["nextCursor"] is None:
            assert "link" not in reply.headers
            return pages
        url = reply.links["next"]["url"]
        assert page["nextCursor"] in url


async def test_order_pages_are_newest_first(listing: httpx.AsyncClient, database: Database) -> None:
    placed = Orders(database)
    ids = [placed.add("u") for _ in range(5)][::-1]
    assert await follow(listing, "/orders?limit=2") == [ids[:2], ids[2:4], ids[4:]]
    assert await follow(listing, "/orders?limit=5") == [ids]
    assert await follow(listing, "/orders") == [ids]


async def test_new_orders_do_not_move_page_boundaries(
    listing: httpx.AsyncClient, database: Database
) -> None:
    placed = Orders(database)
    ids = [placed.add("u") for _ in range(4)][::-1]
    first = await listing.get("/orders?limit=2")
    placed.add("u")
    rest = await follow(listing, first.links["next"]["url"])
    assert [order["id"] for order in first.json()["items"]] + rest[0] == ids


async def test_filters_combine_and_apply_to_further_pages(
    listing: httpx.AsyncClient, database: Database
) -> None:
    placed, done = Orders(database), OrderStatus.COMPLETED
    wanted = []
    for _ in range(3):
        wanted.append(placed.add("a & b", done))
        placed.add("a & b")
        placed.add("c", done)
    query = "userId=a%20%26%20b&status=COMPLETED&limit=2"
    assert await follow(listing, f"/orders?{query}") == [wanted[:0:-1], wanted[:1]]
    assert await follow(listing, "/orders?userId=nobody") == [[]]


async def test_listed_order_equals_single_order(
    listing: httpx.AsyncClient, database: Database
) -> None:
    order_id = Orders(database).add("u")
    (listed,) = (await listing.get("/orders")).json()["items"]
    assert listed == (await listing.get(f"/orders/{order_id}")).json()


async def test_repeated_status_and_both_sorts_follow_their_pages(
    listing: httpx.AsyncClient, database: Database
) -> None:
    placed = Orders(database)
    kinds = [OrderStatus.PENDING, OrderStatus.COMPLETED, OrderStatus.CANCELLED]
    ids = [placed.add("u", kind) for _ in range(2) for kind in kinds]
    wanted = [ids[0], ids[2], ids[3], ids[5]]
    query = "status=PENDING&status=CANCELLED&status=PENDING&limit=3"
    assert await follow(listing, f"/orders?{query}") == [wanted[:0:-1], wanted[:1]]
    pages = await follow(listing, f"/orders?{query}&sort=createdAt")
    assert pages == [wanted[:3], wanted[3:]]


async def test_total_is_there_if_asked_for_and_bounded(
    listing: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = Orders(database)
    for _ in range(3):
        placed.add("u")
    assert "total" not in (await listing.get("/orders")).json()
    counted = "/orders?count=true&limit=1"
    first = await listing.get(counted)
    assert first.json()["total"] == 3
    assert (await listing.get(first.links["next"]["url"])).json()["total"] == 3
    monkeypatch.setattr(orders_listing, "COUNTED_MAX", 2)
    assert (await listing.get(counted)).json()["total"] == "2+"
    assert (await listing.get(f"{counted}&status=COMPLETED")).json()["total"] == 0


async def test_cursor_of_another_list_or_with_a_changed_key_is_refused(
    listing: httpx.AsyncClient, database: Database
) -> None:
    placed = Orders(database)
    for _ in range(3):
        placed.add("u")
    cursor = (await listing.get("/orders?limit=1&userId=u")).json()["nextCursor"]
    same = f"/orders?userId=u&limit=2&count=true&cursor={cursor}"
    assert (await listing.get(same)).status_code == 200
    changed = base64.urlsafe_b64encode(
        base64.urlsafe_b64decode(cursor + "==").replace(b"00000003", b"00000002")
    )
    for query in (
        f"cursor={cursor}",
        f"userId=v&cursor={cursor}",
        f"userId=u&status=PENDING&cursor={cursor}",
        f"userId=u&sort=createdAt&cursor={cursor}",
        f"userId=u&overdue=true&cursor={cursor}",
        f"userId=u&cursor={changed.decode().rstrip('=')}",
        f"userId=u&cursor={cursor}A",
    ):
        problem = assert_problem(await listing.get(f"/orders?{query}"), 400, "invalid-parameter")
        assert [fault["parameter"] for fault in problem["errors"]] == ["cursor"]


async def test_overdue_orders_are_the_open_ones_of_five_minutes_ago_or_past_their_deadline(
    listing: httpx.AsyncClient, database: Database
) -> None:
    placed = Orders(database)
    late = placed.add("u")
    placed.add("u", OrderStatus.COMPLETED)
    assert await follow(listing, "/orders?overdue=true") == [[late]]
    assert await follow(listing, "/orders?overdue=true&status=COMPLETED") == [[]]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"statuses": (OrderStatus.PENDING,)},
        {"statuses": tuple(OrderStatus)},
        {"user_id": "u"},
        {"product_id": "p"},
        {"parked": True},
        {"overdue_at": NOW},
        {"created_from": NOW, "created_to": NOW},
    ],
    ids=str,
)
@pytest.mark.parametrize("ascending", [False, True])
def test_candidates_are_read_from_an_index_in_sequence(
    database: Database, wanted: dict[str, Any], ascending: bool
) -> None:
    """Only what is parked, or in one of several statuses, is sorted: as much as fits on the pages."""
    filters = orders_listing.OrderFilter(**wanted)
    [source] = orders_listing._sources(filters)
    part = orders_listing.Part(10, "f", ascending, until="f")
    with database.read() as connection:
        query = source.ids(filters, part).compile(
            connection, compile_kwargs={"literal_binds": True, "render_postcompile": True}
        )
        plan = [row.detail for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))]
    read = [step for step in plan if "orders" in step or "order_items" in step]
    assert all(step.startswith("SEARCH") for step in read), plan
    if len(source.branches) == 1:
        assert not any("TEMP B-TREE" in step for step in plan), plan
