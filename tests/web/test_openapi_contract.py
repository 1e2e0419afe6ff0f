"""Services conform to their OpenAPI documents, tested with generated requests.

Schemathesis sends valid and invalid requests to three connected services with real engines over
HTTP. No response may be a server error or undocumented, and no invalid request may be accepted.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from todoku.settings import Span
from todoku.system import system
from web.edge import listening, running_together

SECONDS_MAX = 600
"""A bound for a run that takes one minute, since other tests run beside it."""


@asynccontextmanager
async def running_system() -> AsyncIterator[dict[str, str]]:
    """Run the connected services; yield their addresses."""
    settings = system.settings(carrier_success_rate=0.5, carrier_delay_seconds=Span(0, 0))
    services = [(service.build(settings), service.build_api) for service in system]
    async with AsyncExitStack() as stack:
        addresses = {}
        apps = await stack.enter_async_context(running_together(services))
        for (service, _), app in zip(services, apps, strict=True):
            host, port = await stack.enter_async_context(listening(app))
            addresses[service.name] = f"http://{host}:{port}"
        yield addresses


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Addresses of the services, which run on an event loop of their own."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running_system()) as addresses,
    ):
        yield addresses


@pytest.mark.parametrize("service", system.names)
def test_service_conforms_to_its_openapi_document(
    service: str, addresses: dict[str, str], tmp_path: Path
) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{addresses[service]}/openapi.json",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=5",
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-color",
            # Streams do not end.
            "--exclude-path-regex=/stream$",
            # A schema cannot tell which cursors exist, and cannot bound an order's total.
            "--exclude-checks=positive_data_acceptance",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert run.returncode == 0, run.stdout + run.stderr
