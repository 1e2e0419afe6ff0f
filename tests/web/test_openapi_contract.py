"""What the OpenAPI documents say is what the services do, tried with generated requests.

Schemathesis sends what the documents allow and what they do not to the whole system: three services
with real engines, over real HTTP. No answer may be a server error or differ from what is
documented, and nothing that a document forbids may be accepted.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory
from todoku.orders.http import orders_api
from todoku.orders.service import orders
from todoku.shipping.carriers import SimulatedCarrier, pickup_delay
from todoku.shipping.http import shipping_api
from todoku.shipping.service import shipping
from web.edge import listening, running_together


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


@pytest.mark.parametrize("service", ["orders", "inventory", "shipping"])
def test_a_service_does_what_its_document_says(
    service: str, addresses: dict[str, str], tmp_path: Path
) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{addresses[service]}/openapi.json",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=20",
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-color",
            # A cursor must be one that was given out, and a schema cannot bound an order's total.
            "--exclude-checks=positive_data_acceptance",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
