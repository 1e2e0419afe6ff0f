"""Whether the service lives, and whether it can serve."""

import asyncio

import msgspec
from sqlalchemy import Connection

from todoku.database import DatabaseError
from todoku.web.backend import Backend
from todoku.web.exchange import Call, Reply
from todoku.web.operations import Answer, Operation
from todoku.web.problems import NOT_READY, Problem

DATABASE_SECONDS_MAX = 5.0


class Health(msgspec.Struct, frozen=True):
    """All is well."""

    status: str = "ok"


def health_operations(backend: Backend) -> list[Operation]:
    """`/livez` answers while the process does; `/readyz` asks the database, but not the broker,
    because orders are taken without it."""

    async def live(call: Call) -> Reply:
        return Reply(200, Health())

    async def ready(call: Call) -> Reply:
        if not backend.process.database_available:
            raise Problem(NOT_READY, "The database takes no writes at present: see the log.")
        try:
            async with asyncio.timeout(DATABASE_SECONDS_MAX):
                await backend.read(_touch)
        except DatabaseError as error:
            raise Problem(NOT_READY, str(error)) from error
        except TimeoutError:
            raise Problem(
                NOT_READY, f"The database gave no answer in {DATABASE_SECONDS_MAX:g} seconds."
            ) from None
        return Reply(200, Health())

    return [
        Operation(
            id="getLiveness",
            method="GET",
            path="/livez",
            summary="Whether the process lives",
            handle=live,
            answers=[Answer(status=200, meaning="It lives.", content=Health)],
        ),
        Operation(
            id="getReadiness",
            method="GET",
            path="/readyz",
            summary="Whether the database serves",
            description="The broker is not asked: without it, everything is taken and sent later.",
            handle=ready,
            answers=[Answer(status=200, meaning="It serves.", content=Health)],
            problems=[NOT_READY],
        ),
    ]


def _touch(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT 1")
