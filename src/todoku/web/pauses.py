"""HTTP operations for pauses: pause, list, resume."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import MetaData
from uuid_utils import uuid7

from todoku.engine import (
    NotPaused,
    Pause,
    PauseRecord,
    Pauses,
    PauseState,
    Resume,
    UnknownPause,
    UnknownPauseTarget,
)
from todoku.identity import scopes
from todoku.web.backend import Backend
from todoku.web.body import Body
from todoku.web.call import Call
from todoku.web.fields import TEXT_PATTERN, Reason, Uuid, Who
from todoku.web.operations import Operation, SuccessResponse
from todoku.web.paging import PageQuery, from_time_cursor, page_reply, page_response, time_key
from todoku.web.problems import (
    DATABASE_UNAVAILABLE,
    NOT_PAUSED,
    UNKNOWN_PAUSE,
    UNKNOWN_PAUSE_TARGET,
    Problem,
    ProblemType,
)
from todoku.web.reply import Reply

pauses = Pauses(MetaData())
"""The table of pauses, the same in every service."""

PAUSE_REFUSALS: Final[dict[type[Exception], ProblemType]] = {
    UnknownPause: UNKNOWN_PAUSE,
    UnknownPauseTarget: UNKNOWN_PAUSE_TARGET,
    NotPaused: NOT_PAUSED,
}

Target = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=512,
        description="What is paused: `service` is all that the service starts of its own accord; it may have "
        "others, as shipping has `carrier`, and `product:ID` for the orders that contain a product.",
        examples=["service", "carrier", "product:prod1"],
    ),
]


class PauseRequest(Body, frozen=True, kw_only=True):
    """Pause the service, or one thing that it does: why, and who decided it."""

    target: Target = "service"
    reason: Reason
    by: Who | None = None


class ResumeRequest(Body, frozen=True, kw_only=True):
    """End a pause: who decided it, and how many due rows and effects per second may start at most until the
    backlog is through; without `rate`, as many as there are."""

    by: Who | None = None
    rate: Annotated[int, Meta(ge=1, le=1_000)] | None = None


class PauseQuery(PageQuery, frozen=True, kw_only=True):
    """Filter and page of a list of pauses."""

    state: PauseState | UnsetType = UNSET


class PauseView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pause. After a resume with a `rate` it is RESUMING until the backlog is through, at `throughAt`."""

    id: str
    state: PauseState
    target: str
    paused_at: datetime
    paused_by: str
    reason: str
    resumed_at: datetime | None
    resumed_by: str | None
    rate: int | None
    through_at: datetime | None


class PausePage(msgspec.Struct, frozen=True, rename="camel"):
    """Pauses, the latest first; `nextCursor` is null on the last page."""

    items: list[PauseView]
    next_cursor: str | None


def pause_operations(backend: Backend) -> list[Operation]:
    """Return the operations on pauses, the same in every service."""
    routes = PauseRoutes(backend)
    pause_id = {"pauseId": Annotated[Uuid, Meta(description="The id of a pause.")]}
    return [
        Operation(
            id="pause",
            method="POST",
            scope=scopes.SYSTEM_PAUSE,
            path="/pauses",
            summary="Pause the service, or one thing that it does",
            description=ABOUT_PAUSING,
            handle=routes.pause,
            body=PauseRequest,
            examples={
                "the carrier": {
                    "target": "carrier",
                    "reason": "The carrier's warehouse is closed.",
                    "by": "alice",
                },
                "a product": {
                    "target": "product:prod1",
                    "reason": "A batch is recalled.",
                    "by": "alice",
                },
                "the service": {"reason": "Moving to another machine.", "by": "alice"},
            },
            responses=[
                SuccessResponse(
                    status=201,
                    description="It is paused.",
                    content=PauseView,
                    headers={"Location": "The path of the pause."},
                )
            ],
            problems=[UNKNOWN_PAUSE_TARGET, DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="listPauses",
            method="GET",
            scope=scopes.SYSTEM_PAUSE,
            path="/pauses",
            summary="List pauses, the latest first",
            handle=routes.list,
            query=PauseQuery,
            responses=[page_response("A page of pauses.", PausePage)],
            problems=[DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="getPause",
            method="GET",
            scope=scopes.SYSTEM_PAUSE,
            path="/pauses/{pauseId}",
            path_parameters=pause_id,
            summary="Get a pause",
            handle=routes.show,
            responses=[SuccessResponse(status=200, description="The pause.", content=PauseView)],
            problems=[UNKNOWN_PAUSE, DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="resume",
            method="POST",
            scope=scopes.SYSTEM_PAUSE,
            path="/pauses/{pauseId}/resume",
            path_parameters=pause_id,
            summary="End a pause",
            description=ABOUT_RESUMING,
            handle=routes.resume,
            body=ResumeRequest,
            examples={"slowly": {"by": "alice", "rate": 50}},
            responses=[
                SuccessResponse(status=200, description="The pause has ended.", content=PauseView)
            ],
            problems=[UNKNOWN_PAUSE, NOT_PAUSED, DATABASE_UNAVAILABLE],
        ),
    ]


class PauseRoutes:
    """Handlers: parse → command → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def pause(self, call: Call) -> Reply:
        wanted: PauseRequest = call.body
        by = call.must_be_decided_by(wanted.by)
        command = Pause(id=str(uuid7()), target=wanted.target, by=by, reason=wanted.reason)
        pause = await self._execute(call, command, "GET /pauses shows what is paused.")
        return Reply(201, view(pause), {"Location": f"/pauses/{pause.id}"})

    async def list(self, call: Call) -> Reply:
        query: PauseQuery = call.query
        found = await self._backend.read(
            pauses.page,
            state=query.state or None,
            before=from_time_cursor(query),
            limit=query.rows_max,
        )
        return page_reply(PausePage, "/pauses", query, found, key=_key, view=view)

    async def show(self, call: Call) -> Reply:
        pause_id = call.uuid("pauseId", _unknown_pause)
        pause = await self._backend.read(pauses.get, pause_id)
        if pause is None:
            raise _unknown_pause(pause_id)
        return Reply(200, view(pause))

    async def resume(self, call: Call) -> Reply:
        pause_id, wanted = call.uuid("pauseId", _unknown_pause), call.body
        by = call.must_be_decided_by(wanted.by)
        command = Resume(pause_id=pause_id, by=by, rate=wanted.rate)
        pause = await self._execute(call, command, f"GET /pauses/{pause_id} shows its state.")
        return Reply(200, view(pause))

    async def _execute(self, call: Call, command: Any, find_out: str) -> PauseRecord:
        pause: PauseRecord = await self._backend.execute(
            command, context=call.context, find_out=find_out
        )
        return pause


def view(pause: PauseRecord) -> PauseView:
    """Return how a pause is shown."""
    return PauseView(
        id=pause.id,
        state=pause.state,
        target=pause.target,
        paused_at=pause.paused_at,
        paused_by=pause.paused_by,
        reason=pause.reason,
        resumed_at=pause.resumed_at,
        resumed_by=pause.resumed_by,
        rate=pause.rate,
        through_at=pause.through_at,
    )


def _unknown_pause(pause_id: str) -> Problem:
    return Problem(UNKNOWN_PAUSE, f"No pause has the id {pause_id!r}: see GET /pauses.")


def _key(pause: PauseRecord) -> str:
    return time_key(pause.paused_at, pause.id)


ABOUT_PAUSING = """\
A paused service takes requests and messages, but starts nothing of its own accord: it calls no other
system, and decides on nothing that is due. Calls under way end. Timers stand still: what is left of one
is left when the pause ends. Only the deadlines of orders stay, because customers were told of them. Of
several replicas, each starts nothing more within a second. What is paused twice goes on when both
pauses have ended. Of a paused product no order is booked with the carrier that contains it; its stock
is reserved as before, and other orders go on."""

ABOUT_RESUMING = """\
With `rate`, at most so many due rows and effects start per second until what has waited is through; then
the state changes from RESUMING to RESUMED."""
