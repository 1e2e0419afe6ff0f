"""Liveness and readiness checks."""

import asyncio
from datetime import datetime

import msgspec
from sqlalchemy import Connection

from todoku.database import DatabaseError
from todoku.identity import OPEN
from todoku.web.backend import Backend
from todoku.web.call import Call
from todoku.web.operations import Operation, SuccessResponse
from todoku.web.problems import NOT_READY, Problem
from todoku.web.reply import Reply

DATABASE_SECONDS_MAX = 5.0


class Health(msgspec.Struct, frozen=True):
    """The service is healthy."""

    status: str = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """The service is ready; `time` is the current time (UTC) of its engine's clock."""

    time: datetime
    status: str = "ok"


def health_operations(backend: Backend) -> list[Operation]:
    """Return the operations `/livez` and `/readyz`.

    Readiness checks the database, the writer, and that all loops run; not the broker, because commands
    are accepted without it."""

    async def live(call: Call) -> Reply:
        return Reply(200, Health())

    async def ready(call: Call) -> Reply:
        if backend.draining:
            raise Problem(
                NOT_READY, "The service is about to stop: send requests to another process."
            )
        if not (backend.process.database_available and backend.database.accepts_writes):
            raise Problem(NOT_READY, "The database accepts no writes at present: see the log.")
        if not backend.process.ready:
            raise Problem(
                NOT_READY, "The service is starting, stopping, or has failed: see the log."
            )
        try:
            async with asyncio.timeout(DATABASE_SECONDS_MAX):
                await backend.read(_select_one)
        except DatabaseError as error:
            raise Problem(NOT_READY, str(error)) from error
        except TimeoutError:
            raise Problem(
                NOT_READY, f"The database did not respond within {DATABASE_SECONDS_MAX:g} seconds."
            ) from None
        return Reply(200, Readiness(backend.process.clock.now()))

    return [
        Operation(
            id="getLiveness",
            method="GET",
            scope=OPEN,
            path="/livez",
            summary="Liveness check",
            handle=live,
            responses=[
                SuccessResponse(status=200, description="The process is running.", content=Health)
            ],
        ),
        Operation(
            id="getReadiness",
            method="GET",
            scope=OPEN,
            path="/readyz",
            summary="Readiness check",
            description="Checks the database, the writer and that all loops run; not the broker: without it, "
            "commands are accepted and their events are published later.",
            handle=ready,
            responses=[
                SuccessResponse(status=200, description="The service is ready.", content=Readiness)
            ],
            problems=[NOT_READY],
        ),
    ]


def _select_one(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT 1")
