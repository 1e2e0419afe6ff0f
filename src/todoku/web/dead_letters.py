"""Dead letters over HTTP, alike on every service: look at them, retry, edit and discard them.

What a message says may be about a person, so lists tell only of which kind its error is; the letter
itself tells everything.
"""

import base64
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, MetaData

from todoku.database import to_microseconds
from todoku.database.columns import EPOCH
from todoku.engine import DeadLetters
from todoku.engine.dead_letter_tables import LetterGroup, LetterSummary
from todoku.engine.dead_letters import (
    Attempt,
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
    shape,
)
from todoku.web.backend import Backend
from todoku.web.exchange import Body, Call, Reply
from todoku.web.fields import Cursor, GroupId, PageLimit, Reason, Uuid, Who, canonical_uuid
from todoku.web.operations import Answer, Operation
from todoku.web.paging import DEFAULT_LIMIT, from_cursor, next_page, to_cursor
from todoku.web.problems import (
    DATABASE_UNAVAILABLE,
    INVALID_BODY,
    INVALID_EDIT,
    LETTER_CLOSED,
    LETTER_STAYS_PARKED,
    UNKNOWN_LETTER,
    Problem,
    ProblemType,
)

letters = DeadLetters(MetaData())
"""The table as every service has it."""

LETTER_REFUSALS: Final[dict[type[Exception], ProblemType]] = {
    UnknownDeadLetter: UNKNOWN_LETTER,
    DeadLetterResolved: LETTER_CLOSED,
    RedeliveryFailed: LETTER_STAYS_PARKED,
    InvalidEdit: INVALID_EDIT,
}


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that could not be dealt with, without what it says. `error` is the shape of its last
    error, without ids, numbers and quotations; `group` names all letters with an error like this;
    `retryAt` is when it is retried by itself."""

    id: str
    state: DeadLetterState
    order_id: str | None
    event_type: str | None
    error: str | None
    group: str | None
    attempts: int
    parked_at: datetime
    retry_at: datetime | None
    closed_at: datetime | None
    closed_by: str | None
    reason: str | None
    replaces: str | None
    replaced_by: str | None


class DeadLetterPage(msgspec.Struct, frozen=True, rename="camel"):
    """Dead letters, those parked last first; `nextCursor` leads to older ones, and is null on the
    last page."""

    items: list[DeadLetterView]
    next_cursor: str | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One try at the message: the error, null if it went well, and who asked for it, null if the
    stream delivered it."""

    at: datetime
    error: str | None
    asked_by: str | None


class DeadLetterDetails(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All about a dead letter. `body` is the message where it is JSON, else `bodyBase64`; `history`
    are the attempts that were written down, `attempts` is how many there were."""

    id: str
    state: DeadLetterState
    order_id: str | None
    event_id: str | None
    event_type: str | None
    subject: str
    headers: dict[str, str] | None
    body: msgspec.Raw
    body_base64: str | None
    error: str | None
    group: str | None
    traceback: str | None
    attempts: int
    history: list[AttemptView]
    parked_at: datetime
    retry_at: datetime | None
    retry_by: str | None
    closed_at: datetime | None
    closed_by: str | None
    reason: str | None
    replaces: str | None
    replaced_by: str | None


class DeadLetterGroupView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Parked letters whose errors have one shape: how many, for how many orders, and since when."""

    group: str
    error: str
    letters: int
    orders: int
    first_parked_at: datetime
    last_parked_at: datetime


class DeadLetterGroups(msgspec.Struct, frozen=True):
    """What is parked, by kind of error, the largest group first."""

    items: list[DeadLetterGroupView]


class DeadLetterQuery(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Which dead letters are listed."""

    state: DeadLetterState | UnsetType = UNSET
    order_id: Annotated[Uuid, Meta(description="The id of an order.")] | UnsetType = UNSET
    group: GroupId | UnsetType = UNSET
    limit: PageLimit = DEFAULT_LIMIT
    cursor: Cursor | UnsetType = UNSET


class Retry(Body, frozen=True, kw_only=True):
    """Try a parked message again."""

    by: Who | None = None


class RetryMany(Body, frozen=True, kw_only=True):
    """Try many parked messages again: those of a `group`, or `all`."""

    group: GroupId | None = None
    all: bool = False
    rate_per_second: Annotated[int, Meta(ge=1, le=1_000)] = 10
    by: Who | None = None


class ScheduledRetries(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """So many parked messages are tried again, one after the other, the last at `lastAt`."""

    scheduled: int
    last_at: datetime


class Edit(Body, frozen=True, kw_only=True):
    """The event as it should have been: the message's `data`, of the same type and order."""

    data: dict[str, Any]
    by: Who | None = None


class Discard(Body, frozen=True, kw_only=True):
    """Do without a parked message: why, and who says so."""

    reason: Reason
    by: Who


def dead_letter_operations(backend: Backend) -> list[Operation]:
    """What every service offers for its dead letters."""
    routes = DeadLetterRoutes(backend)
    letter_id = {"letterId": Annotated[Uuid, Meta(description="The id of a dead letter.")]}
    return [
        Operation(
            id="listDeadLetters",
            method="GET",
            path="/dead-letters",
            summary="List dead letters, those parked last first",
            handle=routes.list,
            query=DeadLetterQuery,
            answers=[
                Answer(
                    status=200,
                    meaning="A page of dead letters.",
                    content=DeadLetterPage,
                    headers={"Link": 'The next page, as `rel="next"`; none on the last.'},
                )
            ],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="listDeadLetterGroups",
            method="GET",
            path="/dead-letters/groups",
            summary="Group what is parked by kind of error",
            handle=routes.groups,
            answers=[Answer(status=200, meaning="The groups.", content=DeadLetterGroups)],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="retryDeadLetters",
            method="POST",
            path="/dead-letters/retry",
            summary="Retry a group of parked messages, or all",
            description=ABOUT_RETRYING_MANY,
            handle=routes.retry_many,
            body=RetryMany,
            examples={"a group, slowly": {"group": "5a0c2e91b7d4", "ratePerSecond": 5}},
            answers=[
                Answer(status=202, meaning="They will be tried again.", content=ScheduledRetries)
            ],
        ),
        Operation(
            id="getDeadLetter",
            method="GET",
            path="/dead-letters/{letterId}",
            path_parameters=letter_id,
            summary="Look at a dead letter",
            handle=routes.show,
            answers=[Answer(status=200, meaning="The letter.", content=DeadLetterDetails)],
            problems=[UNKNOWN_LETTER, DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="retryDeadLetter",
            method="POST",
            path="/dead-letters/{letterId}/retry",
            path_parameters=letter_id,
            summary="Retry a parked message now",
            handle=routes.retry,
            body=Retry,
            examples={"somebody": {"by": "alice"}},
            answers=[
                Answer(status=200, meaning="It is dealt with now.", content=DeadLetterDetails)
            ],
            problems=[UNKNOWN_LETTER, LETTER_CLOSED, LETTER_STAYS_PARKED, DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="editDeadLetter",
            method="POST",
            path="/dead-letters/{letterId}/edit",
            path_parameters=letter_id,
            summary="Put a corrected message in a parked one's place",
            description=ABOUT_EDITING,
            handle=routes.edit,
            body=Edit,
            answers=[
                Answer(
                    status=201,
                    meaning="The corrected message, as it was dealt with or parked.",
                    content=DeadLetterDetails,
                    headers={"Location": "Where the corrected message is."},
                )
            ],
            problems=[UNKNOWN_LETTER, LETTER_CLOSED, INVALID_EDIT, DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="discardDeadLetter",
            method="POST",
            path="/dead-letters/{letterId}/discard",
            path_parameters=letter_id,
            summary="Do without a parked message",
            description="The letter is kept, with the reason and who gave it.",
            handle=routes.discard,
            body=Discard,
            examples={"a test": {"reason": "A message of a test run.", "by": "alice"}},
            answers=[Answer(status=200, meaning="It is discarded.", content=DeadLetterDetails)],
            problems=[UNKNOWN_LETTER, LETTER_CLOSED, DATABASE_UNAVAILABLE],
        ),
    ]


class DeadLetterRoutes:
    """The routes: parse → command → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, call: Call) -> Reply:
        query: DeadLetterQuery = call.query
        found = await self._backend.read(
            letters.page,
            state=query.state or None,
            order_id=canonical_uuid(query.order_id) if query.order_id else None,
            group=query.group or None,
            before=_place(query.cursor),
            limit=query.limit + 1,
        )
        page = found[: query.limit]
        cursor = _cursor(page[-1]) if len(found) > len(page) else None
        return Reply(
            200,
            DeadLetterPage([_view(letter) for letter in page], cursor),
            next_page("/dead-letters", query, cursor),
        )

    async def groups(self, call: Call) -> Reply:
        groups = await self._backend.read(letters.groups)
        return Reply(200, DeadLetterGroups([_group_view(group) for group in groups]))

    async def show(self, call: Call) -> Reply:
        return Reply(200, await self._details(_letter_id(call)))

    async def retry(self, call: Call) -> Reply:
        letter_id, retry = _letter_id(call), call.body
        await self._ask(call, letter_id, RetryDeadLetter(letter_id=letter_id, by=retry.by))
        return Reply(200, await self._details(letter_id))

    async def retry_many(self, call: Call) -> Reply:
        wanted: RetryMany = call.body
        if (wanted.group is None) is not wanted.all:
            raise Problem(INVALID_BODY, 'Send either "group" or "all": true.')
        scheduled: RetrySchedule = await self._backend.ask(
            RetryDeadLetters(per_second=wanted.rate_per_second, group=wanted.group, by=wanted.by),
            traceparent=call.traceparent,
            find_out="GET /dead-letters?state=PARKED shows which have a retryAt.",
        )
        return Reply(202, ScheduledRetries(scheduled=scheduled.count, last_at=scheduled.last_at))

    async def edit(self, call: Call) -> Reply:
        letter_id, edit = _letter_id(call), call.body
        data = msgspec.json.encode(edit.data)
        successor: DeadLetter = await self._ask(
            call, letter_id, EditDeadLetter(letter_id=letter_id, data=data, by=edit.by)
        )
        details = await self._details(successor.id)
        return Reply(201, details, {"Location": f"/dead-letters/{successor.id}"})

    async def discard(self, call: Call) -> Reply:
        letter_id, discard = _letter_id(call), call.body
        await self._ask(
            call,
            letter_id,
            DiscardDeadLetter(letter_id=letter_id, reason=discard.reason, by=discard.by),
        )
        return Reply(200, await self._details(letter_id))

    async def _ask(self, call: Call, letter_id: str, command: Any) -> Any:
        return await self._backend.ask(
            command,
            traceparent=call.traceparent,
            find_out=f"GET /dead-letters/{letter_id} tells its state.",
        )

    async def _details(self, letter_id: str) -> DeadLetterDetails:
        details = await self._backend.read(_read_details, letter_id)
        if details is None:
            raise _unknown_letter(letter_id)
        return details


def _letter_id(call: Call) -> str:
    """The letter that the path names. What is no UUID is no letter."""
    letter_id = call.path["letterId"]
    canonical = canonical_uuid(letter_id)
    if canonical is None:
        raise _unknown_letter(letter_id)
    return canonical


def _unknown_letter(letter_id: str) -> Problem:
    return Problem(
        UNKNOWN_LETTER, f"There is no dead letter {letter_id!r} here: see GET /dead-letters."
    )


def _cursor(letter: LetterSummary) -> str:
    return to_cursor(f"{to_microseconds(letter.parked_at)} {letter.id}")


def _place(cursor: str | UnsetType) -> tuple[datetime, str] | None:
    """Where the page begins: when the letter before it was parked, and its id."""
    key = from_cursor(cursor, _is_place)
    if key is None:
        return None
    microseconds, _, letter_id = key.partition(" ")
    return EPOCH + timedelta(microseconds=int(microseconds)), letter_id


def _is_place(key: str) -> bool:
    microseconds, _, letter_id = key.partition(" ")
    # Up to the year 9999, the last that a datetime knows.
    digits = microseconds.isascii() and microseconds.isdigit() and len(microseconds) <= 17
    return digits and canonical_uuid(letter_id) == letter_id


def _read_details(connection: Connection, letter_id: str) -> DeadLetterDetails | None:
    letter = letters.get(connection, letter_id)
    if letter is None:
        return None
    return _details_view(letter, letters.attempts_at(connection, letter_id))


def _details_view(letter: DeadLetter, history: list[Attempt]) -> DeadLetterDetails:
    is_json = _is_json(letter.body)
    return DeadLetterDetails(
        id=letter.id,
        state=letter.state,
        order_id=letter.order_id,
        event_id=letter.event_id,
        event_type=letter.event_type,
        subject=letter.subject,
        headers=msgspec.json.decode(letter.headers) if letter.headers else None,
        body=msgspec.Raw(letter.body if is_json else b"null"),
        body_base64=None if is_json else base64.b64encode(letter.body).decode(),
        error=letter.error,
        group=letter.error_group,
        traceback=letter.traceback,
        attempts=letter.attempts,
        history=[
            AttemptView(at=attempt.at, error=attempt.error, asked_by=attempt.asked_by)
            for attempt in history
        ],
        parked_at=letter.parked_at,
        retry_at=letter.retry_at,
        retry_by=letter.retry_by,
        closed_at=letter.closed_at,
        closed_by=letter.closed_by,
        reason=letter.reason,
        replaces=letter.replaces,
        replaced_by=letter.replaced_by,
    )


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _view(letter: LetterSummary) -> DeadLetterView:
    return DeadLetterView(
        id=letter.id,
        state=letter.state,
        order_id=letter.order_id,
        event_type=letter.event_type,
        error=None if letter.error is None else shape(letter.error),
        group=letter.error_group,
        attempts=letter.attempts,
        parked_at=letter.parked_at,
        retry_at=letter.retry_at,
        closed_at=letter.closed_at,
        closed_by=letter.closed_by,
        reason=letter.reason,
        replaces=letter.replaces,
        replaced_by=letter.replaced_by,
    )


def _group_view(group: LetterGroup) -> DeadLetterGroupView:
    return DeadLetterGroupView(
        group=group.id,
        error=group.shape,
        letters=group.letters,
        orders=group.orders,
        first_parked_at=group.first_parked_at,
        last_parked_at=group.last_parked_at,
    )


ABOUT_RETRYING_MANY = """\
Send either `group` or `all`. The messages that are parked now are tried again one after the other,
the oldest first, at so many a second; a restart of the service forgets none. Look at each letter's
`state` for what became of it."""

ABOUT_EDITING = """\
`data` is checked as every event is; it must be of the same type and about the same order. It becomes
a message of its own, caused by the old one, and is dealt with at once; if that fails, it is parked in
the old one's place. `state` says which."""
