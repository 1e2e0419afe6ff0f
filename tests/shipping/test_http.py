"""HTTP operations of the shipping service."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from todoku.contracts import ReservedItem, StockReservedEvent
from todoku.shipping import store
from todoku.shipping.domain import (
    RecordAnswer,
    Rejected,
    Shipment,
    Unknown,
    initiate_shipment,
    record_answer,
    when_due,
)
from todoku.shipping.http import shipment_view, shipping_api
from todoku.web import Backend, application
from web.edge import RecordingProcess, client, empty_database, run_inline

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def reserved(n: int) -> StockReservedEvent:
    """Return the event that the stock of the n-th order is reserved."""
    return StockReservedEvent(
        order_id=f"{n:08x}-0000-7000-8000-000000000000",
        items=(ReservedItem(product_id="prod001", quantity=n),),
        shipping_address="Tokyo",
    )


@pytest.fixture
def shipments() -> list[Shipment]:
    """Three shipments, the oldest first."""
    return [
        initiate_shipment(None, reserved(n), NOW, pickup_delay=lambda _: timedelta(0))[0]
        for n in (1, 2, 3)
    ]


@pytest.fixture
async def http(shipments: list[Shipment]) -> AsyncIterator[httpx.AsyncClient]:
    with empty_database(store.metadata) as database:
        world = store.ShippingUnitOfWork({})
        for shipment in shipments:
            world.put(shipment, shipment)
        with database.transaction() as connection:
            store.ShippingStore().save(connection, world, NOW)
        process = RecordingProcess(lambda _: pytest.fail("shipping has no commands"))
        backend = Backend(process=process, database=database, run_read=run_inline)
        async with client(application(shipping_api(backend), backend)) as http:
            yield http


def assert_problem(reply: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert problem["type"] == f"/problems/{slug}"
    return problem


async def test_shipment_is_found_by_id(http: httpx.AsyncClient, shipments: list[Shipment]) -> None:
    shipment = shipments[0]
    reply = await http.get(f"/shipments/{shipment.id}")
    assert reply.status_code == 200
    assert reply.json() == {
        "id": shipment.id,
        "orderId": shipment.order_id,
        "items": [{"productId": "prod001", "quantity": 1}],
        "shippingAddress": "Tokyo",
        "status": "INITIATED",
        "attempts": 0,
        "trackingNumber": None,
        "reason": None,
        "lastError": None,
        "nextAttemptAt": "2026-01-02T03:04:05Z",
        "createdAt": "2026-01-02T03:04:05Z",
        "updatedAt": "2026-01-02T03:04:05Z",
    }
    assert (await http.get(f"/shipments/{shipment.id.upper()}")).json() == reply.json()


async def test_shipment_pages_are_newest_order_first(
    http: httpx.AsyncClient, shipments: list[Shipment]
) -> None:
    first = await http.get("/shipments?limit=2")
    rest = await http.get(first.links["next"]["url"])
    found = [*first.json()["items"], *rest.json()["items"]]
    assert [shipment["id"] for shipment in found] == [each.id for each in reversed(shipments)]
    assert rest.json()["nextCursor"] is None


async def test_shipment_is_found_by_order_id(
    http: httpx.AsyncClient, shipments: list[Shipment]
) -> None:
    order_id = shipments[1].order_id
    for written in (order_id, order_id.upper()):
        found = (await http.get(f"/shipments?orderId={written}")).json()
        assert [shipment["id"] for shipment in found["items"]] == [shipments[1].id]
    nobody = (await http.get("/shipments?orderId=0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e")).json()
    assert nobody == {"items": [], "nextCursor": None}


@pytest.mark.parametrize(
    "shipment_id", ["0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e", "17", "%00", "%F0%9F%98%80"]
)
async def test_unknown_shipment_id_of_any_form_returns_404(
    http: httpx.AsyncClient, shipment_id: str
) -> None:
    assert_problem(await http.get(f"/shipments/{shipment_id}"), 404, "unknown-shipment")


@pytest.mark.parametrize("query", ["orderId=17", "orderId=", "limit=0", "cursor=x", "order=17"])
async def test_invalid_parameter_is_refused(http: httpx.AsyncClient, query: str) -> None:
    assert_problem(await http.get(f"/shipments?{query}"), 400, "invalid-parameter")


async def test_open_shipment_shows_its_last_error_and_its_next_attempt(
    shipments: list[Shipment],
) -> None:
    claimed, _ = when_due(shipments[0], NOW)
    answer = RecordAnswer(order_id=claimed.order_id, answer=Unknown("ConnectionError: cut off"))
    waiting, _ = record_answer(claimed, answer, NOW)
    view = shipment_view(waiting)
    assert (view.status, view.attempts) == ("BOOKING", 1)
    assert view.last_error == "ConnectionError: cut off"
    assert view.next_attempt_at == NOW + timedelta(seconds=2)


async def test_ended_shipment_has_no_last_error(shipments: list[Shipment]) -> None:
    claimed, _ = when_due(shipments[0], NOW)
    answer = RecordAnswer(order_id=claimed.order_id, answer=Rejected("no room"))
    failed, _ = record_answer(claimed, answer, NOW)
    view = shipment_view(failed)
    assert (view.reason, view.last_error, view.next_attempt_at) == ("no room", None, None)
