"""What the OpenAPI documents say is what the services do, tried with generated requests.

Schemathesis sends what the documents allow and what they do not to the whole system: three services
with real engines, over real HTTP. No answer may be a server error or differ from what is
documented, and nothing that a document forbids may be accepted.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings

from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory
from todoku.orders.http import orders_api
from todoku.orders.service import orders
from todoku.shipping.carriers import SimulatedCarrier, pickup_delay
from todoku.shipping.http import shipping_api
from todoku.shipping.service import shipping
from web.edge import listening, running_together

bounded = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
checks: dict[str, Any] = {"excluded_checks": []}


@asynccontextmanager
async def system() -> AsyncIterator[dict[str, str]]:
    """The three services, hearing each other, and where they listen."""
    carrier = SimulatedCarrier(success_rate=0.5, seed=0)
    services = [
        (orders, orders_api),
        (inventory, inventory_api),
        (shipping(carrier, lambda key: pickup_delay(key, 0, 0, 0)), shipping_api),
    ]
    async with AsyncExitStack() as stack:
        addresses = {}
        apps = await stack.enter_async_context(running_together(services))
        for (service, _), app in zip(services, apps, strict=True):
            host, port = await stack.enter_async_context(listening(app))
            addresses[service.name] = f"http://{host}:{port}"
        yield addresses


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Where the services listen, on an event loop of their own."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(system()) as addresses,
    ):
        yield addresses


@pytest.fixture(scope="module")
def orders_document(addresses: dict[str, str]) -> Any:
    return schemathesis.openapi.from_url(f"{addresses['orders']}/openapi.json")


@pytest.fixture(scope="module")
def inventory_document(addresses: dict[str, str]) -> Any:
    return schemathesis.openapi.from_url(f"{addresses['inventory']}/openapi.json")


@pytest.fixture(scope="module")
def shipping_document(addresses: dict[str, str]) -> Any:
    return schemathesis.openapi.from_url(f"{addresses['shipping']}/openapi.json")


@schemathesis.pytest.from_fixture("orders_document").parametrize()
@bounded
def test_orders_does_what_its_document_says(case: schemathesis.Case) -> None:
    case.call_and_validate(**checks)


@schemathesis.pytest.from_fixture("inventory_document").parametrize()
@bounded
def test_inventory_does_what_its_document_says(case: schemathesis.Case) -> None:
    case.call_and_validate(**checks)


@schemathesis.pytest.from_fixture("shipping_document").parametrize()
@bounded
def test_shipping_does_what_its_document_says(case: schemathesis.Case) -> None:
    case.call_and_validate(**checks)
