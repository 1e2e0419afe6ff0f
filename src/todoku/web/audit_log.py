"""The HTTP operation that lists the audit log."""

from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, MetaData

from todoku.database.columns import EPOCH
from todoku.engine import AuditFilter, AuditLog, AuditNames, AuditRow
from todoku.identity.scopes import AUDIT_READ
from todoku.web.backend import Backend
from todoku.web.call import Call
from todoku.web.fields import TEXT_PATTERN
from todoku.web.operations import Operation
from todoku.web.paging import PageQuery, from_cursor, page_reply, page_response
from todoku.web.problems import DATABASE_UNAVAILABLE
from todoku.web.reply import Reply

_metadata = MetaData()
audit_log = AuditLog(_metadata)
audit_names = AuditNames(_metadata)
"""The tables of the audit log, the same in every service."""

NO_DIGEST: Final = ""
"""The digest of a name that is not in the log."""

DIGITS_MAX: Final = 17
"""How many digits the microseconds of a time have at most, up to the year 9999."""

Wanted = Annotated[str, Meta(pattern=TEXT_PATTERN, min_length=1, max_length=512)]


class AuditQuery(PageQuery, frozen=True, kw_only=True):
    """Filter and page of the audit log."""

    actor: Wanted | UnsetType = UNSET
    operation: Wanted | UnsetType = UNSET
    outcome: Wanted | UnsetType = UNSET
    subject: Wanted | UnsetType = UNSET


class AuditView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who asked for what, and what came of it: `done`, `repeated` (with an idempotency key that was used
    before), or the type of the problem. `about` is the person that it is about. `times` is the number of
    requests where a row counts those that were refused, of a `source`.

    A name that was erased is shown as `erased-` and the beginning of its digest.
    """

    at: datetime
    operation: str
    outcome: str
    actor: str | None
    key_id: str | None
    subject: str | None
    about: str | None
    trace_id: str | None
    source: str | None
    times: int
    chain: str
    sequence: int


class AuditPage(msgspec.Struct, frozen=True, rename="camel"):
    """Rows of the audit log, the latest first; `nextCursor` is null on the last page."""

    items: list[AuditView]
    next_cursor: str | None


def audit_operations(backend: Backend) -> list[Operation]:
    """Return the operation on the audit log, the same in every service."""

    async def show(call: Call) -> Reply:
        query: AuditQuery = call.query
        rows, names = await backend.read(_find, query)
        return page_reply(
            AuditPage, "/audit", query, rows, key=_key, view=lambda row: view(row, names)
        )

    return [
        Operation(
            id="listAuditLog",
            method="GET",
            path="/audit",
            scope=AUDIT_READ,
            summary="List the audit log, the latest rows first",
            description=ABOUT,
            handle=show,
            query=AuditQuery,
            responses=[page_response("A page of the audit log.", AuditPage)],
            problems=[DATABASE_UNAVAILABLE],
        )
    ]


def _find(connection: Connection, query: AuditQuery) -> tuple[list[AuditRow], dict[str, str]]:
    """Return the rows of a page, and whom the digests in them stand for."""
    actor = None
    if query.actor is not UNSET:
        digests = audit_names.digests(connection, [query.actor])
        actor = digests.get(query.actor, NO_DIGEST)
    chosen = AuditFilter(
        actor=actor,
        operation=query.operation or None,
        outcome=query.outcome or None,
        subject=query.subject or None,
    )
    rows = audit_log.page(connection, chosen, before=_place(query), limit=query.rows_max)
    return rows, audit_names.names(connection, {each for row in rows for each in row.digests})


def _key(row: AuditRow) -> str:
    return f"{(row.at - EPOCH) // timedelta(microseconds=1)} {row.chain} {row.sequence}"


def _place(query: AuditQuery) -> tuple[datetime, str, int] | None:
    key = from_cursor(query, _is_key)
    if key is None:
        return None
    at, chain, sequence = key.split(" ")
    return EPOCH + timedelta(microseconds=int(at)), chain, int(sequence)


def _is_key(key: str) -> bool:
    at, _, rest = key.partition(" ")
    chain, _, sequence = rest.partition(" ")
    numbers = all(
        each.isascii() and each.isdigit() and len(each) <= DIGITS_MAX for each in (at, sequence)
    )
    return numbers and bool(chain) and " " not in chain


def view(row: AuditRow, names: dict[str, str]) -> AuditView:
    """Return how a row is shown."""

    def name(digest: str | None) -> str | None:
        return None if digest is None else names.get(digest, f"erased-{digest[:12]}")

    return AuditView(
        at=row.at,
        operation=row.operation,
        outcome=row.outcome,
        actor=name(row.actor),
        key_id=row.key_id,
        subject=row.subject,
        about=name(row.about),
        trace_id=row.trace_id,
        source=name(row.source),
        times=row.times,
        chain=row.chain,
        sequence=row.sequence,
    )


ABOUT = """\
Every request that changes something leaves a row, and so does each that a known caller was refused; reading
leaves none. Refused requests of unknown callers are counted, by source and minute. Rows are only ever added:
`todoku verify` finds one that was changed or removed. The setting `audit` says whether the log is written."""
