"""Systems to break: with an embedded or an external broker, on SQLite or PostgreSQL, on a small disk."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alerts.run import small_disk
from faults.postgres import postgresql
from operate.carrier import ACCEPTS, VARIABLE
from operate.planted import EXTERNAL_BROKER, PLENTY, POSTGRESQL, SMALL_DISK, ExternalBroker, System
from todoku.lab.stack import Stack, isolated_settings
from todoku.settings import Span, to_environment
from todoku.system import system as services


@contextmanager
def started(kind: str) -> Iterator[System]:
    """Run a system of this kind, whose carrier a file tells how to answer."""
    with ExitStack() as stack_of:
        folder = Path(stack_of.enter_context(tempfile.TemporaryDirectory()))
        broker = server = None
        changes: dict[str, Any] = {}
        if kind == SMALL_DISK:
            stack_of.enter_context(small_disk(folder / "data"))
        if kind == EXTERNAL_BROKER:
            broker = ExternalBroker(folder / "nats")
            broker.start()
            stack_of.callback(broker.stop)
            changes["nats_url"] = broker.url
        if kind == POSTGRESQL:
            server = stack_of.enter_context(postgresql())
            server.create_databases(services.names)
            changes |= {f"{name}_database_url": server.url(name) for name in services.names}
        settings = isolated_settings(
            folder / "data",
            carrier="operate.carrier:carrier",
            carrier_delay_seconds=Span(0.2, 0.4),
            **changes,
        )
        carrier = folder / "carrier"
        environment = to_environment(settings) | {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            VARIABLE: str(carrier),
        }
        system = System(
            Stack(settings, folder / "up.log", environment=environment), carrier, broker, server
        )
        system.set_carrier(ACCEPTS)
        stack_of.enter_context(system.stack)
        system.stack.start()
        system.stack.client.add_products({PLENTY: 1_000_000})
        yield system
