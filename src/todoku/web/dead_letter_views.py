"""Show dead letters over HTTP.

A message may contain personal data, so lists show only the shape of its error; the dead letter
itself shows everything.
"""

import base64
from datetime import datetime

import msgspec

from todoku.contracts import may_be_about_order
from todoku.engine.dead_letter_tables import LetterGroup, LetterSummary
from todoku.engine.dead_letters import Attempt, DeadLetter, DeadLetterState, shape


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A dead letter without its content. `key` is the id of what the message is about; if that is an order,
    `orderId` is the same. `error` is the shape of its last error, without ids, numbers
    and quotations; `group` is the id of all dead letters with this shape; `retryAt` is the time of
    the scheduled retry."""

    id: str
    state: DeadLetterState
    order_id: str | None
    key: str | None
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
    """Dead letters, the most recently parked first; `nextCursor` is null on the last page."""

    items: list[DeadLetterView]
    next_cursor: str | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An attempt to process the message: the error, null if it succeeded, and who requested it, null
    if the stream delivered it."""

    at: datetime
    error: str | None
    asked_by: str | None


class DeadLetterDetails(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A dead letter. `key` and `orderId` are as in the list. `body` is the message if it is JSON, else
    `bodyBase64`; `history` has the recorded attempts, `attempts` is the number of all attempts."""

    id: str
    state: DeadLetterState
    order_id: str | None
    key: str | None
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
    """Parked dead letters whose errors have the same shape: how many, and for how many orders (or products,
    or whatever else their messages are about)."""

    group: str
    error: str
    letters: int
    orders: int
    first_parked_at: datetime
    last_parked_at: datetime


class DeadLetterGroups(msgspec.Struct, frozen=True):
    """Groups of parked dead letters, the largest first."""

    items: list[DeadLetterGroupView]


class ScheduledRetries(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many parked messages are scheduled for a retry, the last at `lastAt`."""

    scheduled: int
    last_at: datetime


def details_view(letter: DeadLetter, history: list[Attempt]) -> DeadLetterDetails:
    is_json = _is_json(letter.body)
    return DeadLetterDetails(
        id=letter.id,
        state=letter.state,
        order_id=_order_id(letter),
        key=letter.key,
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


def _order_id(letter: DeadLetter | LetterSummary) -> str | None:
    return letter.key if may_be_about_order(letter.event_type) else None


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def view(letter: LetterSummary) -> DeadLetterView:
    return DeadLetterView(
        id=letter.id,
        state=letter.state,
        order_id=_order_id(letter),
        key=letter.key,
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


def group_view(group: LetterGroup) -> DeadLetterGroupView:
    return DeadLetterGroupView(
        group=group.id,
        error=group.shape,
        letters=group.letters,
        orders=group.keys,
        first_parked_at=group.first_parked_at,
        last_parked_at=group.last_parked_at,
    )
