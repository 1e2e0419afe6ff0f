"""HTTP operations for dead letters: list, retry, edit and discard."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, MetaData

from todoku.engine import DeadLetters
from todoku.engine.dead_letter_tables import LetterSummary
from todoku.engine.dead_letters import (
    DeadLetter,
    DeadLetterResolved,
    DeadLetterState,
    DiscardDeadLetter,
    EditDeadLetter,
    InvalidEdit,
    RedeliveryFailed,
    RetryDeadLetter,
    RetryDeadLetters,
    RetrySchedule,
    UnknownDeadLetter,
)
from todoku.identity import scopes
from todoku.web.backend import Backend
from todoku.web.body import Body
from todoku.web.call import Call
from todoku.web.dead_letter_views import (
    DeadLetterDetails,
    DeadLetterGroups,
    DeadLetterPage,
    ScheduledRetries,
    details_view,
    group_view,
    view,
)
from todoku.web.fields import GroupId, Reason, Uuid, Who, canonical_uuid
from todoku.web.operations import Operation, SuccessResponse
from todoku.web.paging import PageQuery, from_time_cursor, page_reply, page_response, time_key
from todoku.web.problems import (
    DATABASE_UNAVAILABLE,
    DEAD_LETTER_RESOLVED,
    INVALID_BODY,
    INVALID_EDIT,
    REDELIVERY_FAILED,
    UNKNOWN_DEAD_LETTER,
    Problem,
    ProblemType,
)
from todoku.web.reply import Reply

letters = DeadLetters(MetaData())
"""The dead-letter tables, the same in every service."""

DEAD_LETTER_REFUSALS: Final[dict[type[Exception], ProblemType]] = {
    UnknownDeadLetter: UNKNOWN_DEAD_LETTER,
    DeadLetterResolved: DEAD_LETTER_RESOLVED,
    RedeliveryFailed: REDELIVERY_FAILED,
    InvalidEdit: INVALID_EDIT,
}


class DeadLetterQuery(PageQuery, frozen=True, kw_only=True):
    """Filter and page of a list of dead letters."""

    state: DeadLetterState | UnsetType = UNSET
    order_id: Annotated[Uuid, Meta(description="The id of an order.")] | UnsetType = UNSET
    group: GroupId | UnsetType = UNSET


class Retry(Body, frozen=True, kw_only=True):
    """Retry a parked message."""

    by: Who | None = None


class RetryMany(Body, frozen=True, kw_only=True):
    """Retry many parked messages: those of a `group`, or `all`."""

    group: GroupId | None = None
    all: bool = False
    rate_per_second: Annotated[int, Meta(ge=1, le=1_000)] = 10
    by: Who | None = None


class Edit(Body, frozen=True, kw_only=True):
    """The corrected event: the message's `data`, of the same type and order."""

    data: dict[str, Any]
    by: Who | None = None


class Discard(Body, frozen=True, kw_only=True):
    """Discard a parked message: why, and who decided it."""

    reason: Reason
    by: Who | None = None


def dead_letter_operations(backend: Backend) -> list[Operation]:
    """Return the dead-letter operations, the same in every service."""
    routes = DeadLetterRoutes(backend)
    letter_id = {"letterId": Annotated[Uuid, Meta(description="The id of a dead letter.")]}
    return [
        Operation(
            id="listDeadLetters",
            method="GET",
            scope=scopes.DEAD_LETTERS_READ,
            path="/dead-letters",
            summary="List dead letters, the most recently parked first",
            handle=routes.list,
            query=DeadLetterQuery,
            responses=[page_response("A page of dead letters.", DeadLetterPage)],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="listDeadLetterGroups",
            method="GET",
            scope=scopes.DEAD_LETTERS_READ,
            path="/dead-letters/groups",
            summary="List parked messages grouped by error",
            handle=routes.groups,
            responses=[
                SuccessResponse(status=200, description="The groups.", content=DeadLetterGroups)
            ],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="retryDeadLetters",
            method="POST",
            scope=scopes.DEAD_LETTERS_WRITE,
            path="/dead-letters/retry",
            costly=True,
            summary="Retry a group of parked messages, or all",
            description=ABOUT_RETRYING_MANY,
            handle=routes.retry_many,
            body=RetryMany,
            examples={"a group, slowly": {"group": "5a0c2e91b7d4", "ratePerSecond": 5}},
            responses=[
                SuccessResponse(
                    status=202, description="The retries are scheduled.", content=ScheduledRetries
                )
            ],
        ),
        Operation(
            id="getDeadLetter",
            method="GET",
            scope=scopes.DEAD_LETTERS_READ,
            path="/dead-letters/{letterId}",
            path_parameters=letter_id,
            summary="Get a dead letter",
            handle=routes.show,
            responses=[
                SuccessResponse(
                    status=200, description="The dead letter.", content=DeadLetterDetails
                )
            ],
            problems=[UNKNOWN_DEAD_LETTER, DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="retryDeadLetter",
            method="POST",
            scope=scopes.DEAD_LETTERS_WRITE,
            path="/dead-letters/{letterId}/retry",
            path_parameters=letter_id,
            summary="Retry a parked message now",
            handle=routes.retry,
            body=Retry,
            examples={"somebody": {"by": "alice"}},
            responses=[
                SuccessResponse(
                    status=200, description="The message was processed.", content=DeadLetterDetails
                )
            ],
            problems=[
                UNKNOWN_DEAD_LETTER,
                DEAD_LETTER_RESOLVED,
                REDELIVERY_FAILED,
                DATABASE_UNAVAILABLE,
            ],
        ),
        Operation(
            id="editDeadLetter",
            method="POST",
            scope=scopes.DEAD_LETTERS_WRITE,
            path="/dead-letters/{letterId}/edit",
            path_parameters=letter_id,
            summary="Replace a parked message with a corrected one",
            description=ABOUT_EDITING,
            handle=routes.edit,
            body=Edit,
            responses=[
                SuccessResponse(
                    status=201,
                    description="The corrected message, processed or parked.",
                    content=DeadLetterDetails,
                    headers={"Location": "The path of the corrected message."},
                )
            ],
            problems=[
                UNKNOWN_DEAD_LETTER,
                DEAD_LETTER_RESOLVED,
                INVALID_EDIT,
                DATABASE_UNAVAILABLE,
            ],
        ),
        Operation(
            id="discardDeadLetter",
            method="POST",
            scope=scopes.DEAD_LETTERS_WRITE,
            path="/dead-letters/{letterId}/discard",
            path_parameters=letter_id,
            summary="Discard a parked message",
            description="The dead letter is kept, with the reason and who discarded it.",
            handle=routes.discard,
            body=Discard,
            examples={"a test": {"reason": "A message of a test run.", "by": "alice"}},
            responses=[
                SuccessResponse(
                    status=200, description="The message is discarded.", content=DeadLetterDetails
                )
            ],
            problems=[UNKNOWN_DEAD_LETTER, DEAD_LETTER_RESOLVED, DATABASE_UNAVAILABLE],
        ),
    ]


class DeadLetterRoutes:
    """Handlers: parse → command → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, call: Call) -> Reply:
        query: DeadLetterQuery = call.query
        found = await self._backend.read(
            letters.page,
            state=query.state or None,
            key=canonical_uuid(query.order_id) if query.order_id else None,
            group=query.group or None,
            before=from_time_cursor(query),
            limit=query.rows_max,
        )
        return page_reply(DeadLetterPage, "/dead-letters", query, found, key=_key, view=view)

    async def groups(self, call: Call) -> Reply:
        groups = await self._backend.read(letters.groups)
        return Reply(200, DeadLetterGroups([group_view(group) for group in groups]))

    async def show(self, call: Call) -> Reply:
        return Reply(200, await self._details(call.uuid("letterId", _unknown_letter)))

    async def retry(self, call: Call) -> Reply:
        letter_id, retry = call.uuid("letterId", _unknown_letter), call.body
        await self._execute(
            call, letter_id, RetryDeadLetter(letter_id=letter_id, by=call.decided_by(retry.by))
        )
        return Reply(200, await self._details(letter_id))

    async def retry_many(self, call: Call) -> Reply:
        wanted: RetryMany = call.body
        if (wanted.group is None) is not wanted.all:
            raise Problem(INVALID_BODY, 'Send either "group" or "all": true.')
        scheduled: RetrySchedule = await self._backend.execute(
            RetryDeadLetters(
                per_second=wanted.rate_per_second, group=wanted.group, by=call.decided_by(wanted.by)
            ),
            context=call.context,
            find_out="GET /dead-letters?state=PARKED shows which are scheduled (retryAt).",
        )
        return Reply(202, ScheduledRetries(scheduled=scheduled.count, last_at=scheduled.last_at))

    async def edit(self, call: Call) -> Reply:
        letter_id, edit = call.uuid("letterId", _unknown_letter), call.body
        data = msgspec.json.encode(edit.data)
        successor: DeadLetter = await self._execute(
            call,
            letter_id,
            EditDeadLetter(letter_id=letter_id, data=data, by=call.decided_by(edit.by)),
        )
        details = await self._details(successor.id)
        return Reply(201, details, {"Location": f"/dead-letters/{successor.id}"})

    async def discard(self, call: Call) -> Reply:
        letter_id, discard = call.uuid("letterId", _unknown_letter), call.body
        await self._execute(
            call,
            letter_id,
            DiscardDeadLetter(
                letter_id=letter_id,
                reason=discard.reason,
                by=call.must_be_decided_by(discard.by),
            ),
        )
        return Reply(200, await self._details(letter_id))

    async def _execute(self, call: Call, letter_id: str, command: Any) -> Any:
        return await self._backend.execute(
            command,
            context=call.context,
            find_out=f"GET /dead-letters/{letter_id} shows its state.",
        )

    async def _details(self, letter_id: str) -> DeadLetterDetails:
        details = await self._backend.read(_read_details, letter_id)
        if details is None:
            raise _unknown_letter(letter_id)
        return details


def _unknown_letter(letter_id: str) -> Problem:
    return Problem(
        UNKNOWN_DEAD_LETTER, f"No dead letter has the id {letter_id!r}: see GET /dead-letters."
    )


def _key(letter: LetterSummary) -> str:
    return time_key(letter.parked_at, letter.id)


def _read_details(connection: Connection, letter_id: str) -> DeadLetterDetails | None:
    letter = letters.get(connection, letter_id)
    if letter is None:
        return None
    return details_view(letter, letters.attempts_at(connection, letter_id))


ABOUT_RETRYING_MANY = """\
Send either `group` or `all`. The messages that are parked now are retried one after the other, the
oldest first, at `ratePerSecond`; the schedule survives a restart. Each dead letter's `state` shows
the result."""

ABOUT_EDITING = """\
`data` is validated like every event; it must have the same type and order. It becomes a new message,
caused by the old one, and is processed at once; if that fails, it is parked in place of the old one.
`state` shows which."""
