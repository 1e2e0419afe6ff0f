"""Keyset pagination: a cursor contains the key after which the next page begins.

Keys never change, so rows that are added or changed meanwhile do not move between pages. A cursor also
contains a checksum of the filters, so that it continues no other list.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, UnsetType

from todoku.database import to_microseconds
from todoku.database.columns import EPOCH
from todoku.web.fields import Cursor, PageLimit, canonical_uuid
from todoku.web.operations import SuccessResponse
from todoku.web.query import invalid_parameter
from todoku.web.reply import Reply

DEFAULT_LIMIT: Final = 20

Row = TypeVar("Row")


class PageQuery(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Base of the queries of lists."""

    not_in_cursor: ClassVar = frozenset({"limit", "cursor"})
    """The parameters that may change from page to page."""

    limit: PageLimit = DEFAULT_LIMIT
    cursor: Cursor | UnsetType = UNSET

    @property
    def rows_max(self) -> int:
        """How many rows to select: one more than fit on the page shows that another page exists."""
        return self.limit + 1


def to_cursor(key: str, query: PageQuery) -> str:
    """Return the cursor of the page after this key, in the list of this query; opaque to clients."""
    text = f"{key}~{_checksum(key, query)}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def from_cursor(query: PageQuery, is_key: Callable[[str], object]) -> str | None:
    """Return the key after which the page begins; None for the first page. Raises `Problem` if the cursor
    is not one of this list, or of one with other filters."""
    cursor = query.cursor
    if cursor is UNSET:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    key = text.rpartition("~")[0]
    if not is_key(key) or to_cursor(key, query) != cursor:
        raise invalid_parameter(
            "cursor",
            "Not a cursor of this list with these filters: use nextCursor or the Link header of the "
            "page before, with the same other parameters.",
        )
    return key


def time_key(at: datetime, uuid: str) -> str:
    """Return the key of a row in a list by time: its time (UTC), and its id among those of the same time."""
    return f"{to_microseconds(at)} {uuid}"


def from_time_cursor(query: PageQuery) -> tuple[datetime, str] | None:
    """Return the time and the id after which the page of a list by time begins, as `from_cursor` does."""
    key = from_cursor(query, _is_time_key)
    if key is None:
        return None
    microseconds, _, uuid = key.partition(" ")
    return EPOCH + timedelta(microseconds=int(microseconds)), uuid


def _is_time_key(key: str) -> bool:
    microseconds, _, uuid = key.partition(" ")
    # Up to the year 9999, the maximum of datetime.
    digits = microseconds.isascii() and microseconds.isdigit() and len(microseconds) <= 17
    return digits and canonical_uuid(uuid) == uuid


def _checksum(key: str, query: PageQuery) -> str:
    """Return a checksum of a key and of what determines which items are in the list, and in which sequence.

    It finds mistakes; whoever makes up a cursor gets no more than by other filters.
    """
    filters = {k: v for k, v in msgspec.to_builtins(query).items() if k not in query.not_in_cursor}
    encoded = msgspec.json.encode([type(query).__name__, key, sorted(filters.items())])
    return hashlib.sha256(encoded).hexdigest()[:12]


def page_reply(
    page: Callable[[list[Any], str | None], Any],
    path: str,
    query: PageQuery,
    found: Sequence[Row],
    *,
    key: Callable[[Row], str],
    view: Callable[[Row], Any] = lambda row: row,
) -> Reply:
    """Return the reply with a page of what was found: at most `query.rows_max` rows.

    If there is a next page, the reply has its cursor and a Link header (RFC 8288) to it.
    """
    rows = found[: query.limit]
    next_key = key(rows[-1]) if len(found) > len(rows) else None
    cursor, headers = next_page(path, query, next_key)
    return Reply(200, page([view(row) for row in rows], cursor), headers)


def next_page(path: str, query: PageQuery, key: str | None) -> tuple[str | None, Mapping[str, str]]:
    """Return the cursor of the page after this key, and the header that links to it; none without a key."""
    if key is None:
        return None, {}
    cursor = to_cursor(key, query)
    parameters = urlencode({**msgspec.to_builtins(query), "cursor": cursor}, doseq=True)
    return cursor, {"Link": f'<{path}?{parameters}>; rel="next"'}


def page_response(description: str, content: type[Any]) -> SuccessResponse:
    """Return the documentation of a list's response."""
    return SuccessResponse(
        status=200,
        description=description,
        content=content,
        headers={"Link": 'The next page, as `rel="next"`; none on the last.'},
    )
