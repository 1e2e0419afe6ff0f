"""HTTP operations about a person: export everything, erase everything."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, MetaData
from uuid_utils import uuid7

from todoku.engine import (
    EngineTables,
    ErasedPerson,
    ErasePerson,
    PersonHasOpenWork,
    Persons,
    UnknownPerson,
    exported,
)
from todoku.identity.scopes import PERSONS_WRITE
from todoku.web.backend import Backend
from todoku.web.body import Body
from todoku.web.call import Call
from todoku.web.fields import TEXT_PATTERN, UserId, Uuid
from todoku.web.operations import Operation, SuccessResponse
from todoku.web.problems import DATABASE_UNAVAILABLE, Problem, ProblemType
from todoku.web.reply import Reply

tables = EngineTables(MetaData())
"""The engine's tables, the same in every service."""

UNKNOWN_PERSON: Final = ProblemType(
    "unknown-person",
    404,
    "Unknown person",
    "Nothing is stored about this person, or no erasure has this id here.",
    "Check the id. An erasure arrives at the other services a moment after it was requested at orders.",
)
PERSON_HAS_OPEN_ORDERS: Final = ProblemType(
    "person-has-open-orders",
    409,
    "The person has open orders, or valid keys",
    "Orders of this person have not ended, dead letters about them are not handled, or API keys of the"
    " person are valid: what is erased now would still be needed. `orders`, `deadLetters` and `keys` name"
    " them. Nothing was erased.",
    "Wait until the orders have ended, or cancel them; handle the dead letters; revoke the keys. Then send"
    " the request again.",
)
PERSON_REFUSALS: Final[dict[type[Exception], ProblemType]] = {
    UnknownPerson: UNKNOWN_PERSON,
    PersonHasOpenWork: PERSON_HAS_OPEN_ORDERS,
}

ERASURE_ID_LENGTH_MAX: Final = 64
ErasureId = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN, max_length=ERASURE_ID_LENGTH_MAX, description="The id of an erasure."
    ),
]


class PersonRequest(Body, frozen=True, kw_only=True):
    """Whose data to export; the ids of the person's orders, where orders is not asked itself."""

    user_id: UserId
    order_ids: list[Uuid] | UnsetType = UNSET


class ErasePersonRequest(Body, frozen=True, kw_only=True):
    """Whom to erase."""

    user_id: UserId


class PersonExport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything that this service stores about a person: whole rows by table."""

    user_id: str
    order_ids: list[str]
    exported_at: datetime
    tables: dict[str, list[dict[str, Any]]]


class ErasedView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A person was erased here. The other services erase what they have about the `orders` when they receive
    these `erasures`: GET /persons/erasures/{erasureId} of each tells."""

    erasures: list[str]
    orders: int


class ErasureView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An erasure that this service has carried out."""

    id: str
    erased_at: datetime
    orders: int


def person_operations(backend: Backend, persons: Persons) -> list[Operation]:
    """Return the operations about persons of a service that contributes this."""
    routes = PersonRoutes(backend, persons)
    common = [
        Operation(
            id="exportPerson",
            method="POST",
            path="/persons/export",
            scope=PERSONS_WRITE,
            summary="Export everything about a person",
            handle=routes.export,
            body=PersonRequest,
            examples={"a person": {"userId": "user123"}},
            responses=[
                SuccessResponse(status=200, description="Everything.", content=PersonExport)
            ],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="getErasure",
            method="GET",
            path="/persons/erasures/{erasureId}",
            scope=PERSONS_WRITE,
            path_parameters={"erasureId": ErasureId},
            summary="Show whether an erasure was carried out here",
            handle=routes.show,
            responses=[SuccessResponse(status=200, description="It was.", content=ErasureView)],
            problems=[UNKNOWN_PERSON, DATABASE_UNAVAILABLE],
        ),
    ]
    if persons.owner is None:
        return common
    return [
        *common,
        Operation(
            id="erasePerson",
            method="POST",
            path="/persons/erase",
            scope=PERSONS_WRITE,
            summary="Erase everything about a person, at every service",
            description=ABOUT_ERASING,
            handle=routes.erase,
            body=ErasePersonRequest,
            examples={"a person": {"userId": "user123"}},
            responses=[
                SuccessResponse(status=200, description="It is erased here.", content=ErasedView)
            ],
            problems=[UNKNOWN_PERSON, PERSON_HAS_OPEN_ORDERS, DATABASE_UNAVAILABLE],
        ),
    ]


class PersonRoutes:
    """Handlers: parse → command or query → reply."""

    def __init__(self, backend: Backend, persons: Persons) -> None:
        self._backend = backend
        self._persons = persons

    async def export(self, call: Call) -> Reply:
        wanted: PersonRequest = call.body
        order_ids, found = await self._backend.read(self._export, wanted)
        return Reply(
            200,
            PersonExport(
                user_id=wanted.user_id,
                order_ids=order_ids,
                exported_at=self._backend.process.clock.now(),
                tables=found,
            ),
        )

    async def erase(self, call: Call) -> Reply:
        wanted: ErasePersonRequest = call.body
        command = ErasePerson(id=str(uuid7()), person=wanted.user_id, by=call.context.actor)
        try:
            erased: ErasedPerson = await self._backend.execute(
                command, context=call.context, find_out="It is safe to repeat it."
            )
        except PersonHasOpenWork as error:
            raise Problem(
                PERSON_HAS_OPEN_ORDERS,
                str(error),
                members={"orders": error.orders, "deadLetters": error.letters, "keys": error.keys},
            ) from None
        return Reply(200, ErasedView(erasures=list(erased.erasures), orders=erased.orders))

    async def show(self, call: Call) -> Reply:
        erasure_id = call.path["erasureId"]
        found = await self._backend.read(tables.erasures.find, [erasure_id])
        if not found:
            raise Problem(UNKNOWN_PERSON, f"No erasure {erasure_id!r} was carried out here.")
        (erasure,) = found
        return Reply(
            200,
            ErasureView(id=erasure.id, erased_at=erasure.erased_at, orders=len(erasure.order_ids)),
        )

    def _export(
        self, connection: Connection, wanted: PersonRequest
    ) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
        owner = self._persons.owner
        if owner is not None:
            order_ids = list(owner.orders_of(connection, wanted.user_id))
        else:
            order_ids = [] if wanted.order_ids is UNSET else list(wanted.order_ids)
        found = exported(connection, self._persons, tables, wanted.user_id, order_ids)
        return order_ids, found


ABOUT_ERASING = """\
Whose orders they were, where they went, and what customers wrote about cancellations is erased from the
tables of every service, from histories, from messages of handled dead letters, from API keys that have ended
and from the names in audit logs. What was ordered and sold stays, without whose it was. It is refused while
an order of the person is open, or a dead letter about one, or a key valid. Events on the stream end with its
age. A restored backup does not bring it back: each service keeps which orders were erased, also in a file
outside of the database."""
