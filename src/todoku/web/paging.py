"""Keyset pagination: a cursor contains the key after which the next page begins.

Keys never change, so rows that are added or changed meanwhile do not move between pages.
"""

import base64
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, UnsetType

from todoku.web.fields import Cursor, PageLimit
from todoku.web.operations import SuccessResponse
from todoku.web.query import invalid_parameter
from todoku.web.reply import Reply

DEFAULT_LIMIT: Final = 20

Row = TypeVar("Row")


class PageQuery(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Base of the queries of lists."""

    limit: PageLimit = DEFAULT_LIMIT
    cursor: Cursor | UnsetType = UNSET

    @property
    def rows_max(self) -> int:
        """How many rows to select: one more than fit on the page shows that another page exists."""
        return self.limit + 1


def to_cursor(key: str) -> str:
    """Return the cursor of the page after this key; opaque to clients."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def from_cursor(cursor: str | UnsetType, is_key: Callable[[str], object]) -> str | None:
    """Return the key after which the page begins; None for the first page. Raises `Problem`."""
    if cursor is UNSET:
        return None
    try:
        key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        key = ""
    if not is_key(key) or to_cursor(key) != cursor:
        raise invalid_parameter(
            "cursor",
            "Not a cursor of this list: use nextCursor or the Link header of the page before.",
        )
    return key


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
    cursor = to_cursor(key(rows[-1])) if len(found) > len(rows) else None
    headers = {}
    if cursor is not None:
        parameters = urlencode({**msgspec.to_builtins(query), "cursor": cursor})
        headers["Link"] = f'<{path}?{parameters}>; rel="next"'
    return Reply(200, page([view(row) for row in rows], cursor), headers)


def page_response(description: str, content: type[Any]) -> SuccessResponse:
    """Return the documentation of a list's response."""
    return SuccessResponse(
        status=200,
        description=description,
        content=content,
        headers={"Link": 'The next page, as `rel="next"`; none on the last.'},
    )
