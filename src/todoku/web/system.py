"""HTTP operation that tells what a service runs with: versions, database, broker, settings."""

import os
import platform
import socket
from collections.abc import Mapping
from datetime import datetime

import msgspec

from todoku.identity.scopes import METRICS_READ
from todoku.redaction import redact
from todoku.settings import Settings, to_text, values_of
from todoku.web.backend import Backend
from todoku.web.call import Call
from todoku.web.operations import Operation, SuccessResponse
from todoku.web.reply import Reply


class SystemView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a process of a service runs with. `time` is its engine's clock. `database` and `broker` are
    without secrets, and so are the `settings` by name, as they are written in a variable; null if not set."""

    service: str
    version: str
    python: str
    host: str
    pid: int
    time: datetime
    database: str
    broker: str
    settings: dict[str, str | None]


def system_operation(name: str, settings: Settings, backend: Backend) -> Operation:
    """Return the operation that shows what a service runs with."""
    from todoku import __version__

    shown = _without_secrets(values_of(settings))
    database, broker = redact(str(settings.database(name))), redact(settings.broker_url)

    async def show(call: Call) -> Reply:
        return Reply(
            200,
            SystemView(
                service=name,
                version=__version__,
                python=platform.python_version(),
                host=socket.gethostname(),
                pid=os.getpid(),
                time=backend.process.clock.now(),
                database=database,
                broker=broker,
                settings=shown,
            ),
        )

    return Operation(
        id="getSystem",
        method="GET",
        path="/system",
        scope=METRICS_READ,
        summary="Get what the service runs with",
        description="Versions, database, broker and the settings in force, without secrets.",
        handle=show,
        responses=[SuccessResponse(status=200, description="The system.", content=SystemView)],
    )


def _without_secrets(values: Mapping[str, object]) -> dict[str, str | None]:
    return {
        name: None if value is None else redact(to_text(value)) for name, value in values.items()
    }
