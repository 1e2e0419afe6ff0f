"""Keyset pagination: a cursor contains the key after which the next page begins.

Keys never change, so rows that are added or changed meanwhile do not move between pages.
"""

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec

from todoku.web.exchange import invalid_parameter

DEFAULT_LIMIT = 20


def to_cursor(key: str) -> str:
    """Return the cursor of the page after this key; opaque to clients."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def from_cursor(cursor: str | msgspec.UnsetType, is_key: Callable[[str], object]) -> str | None:
    """Return the key after which the page begins; None for the first page. Raises `Problem`."""
    if cursor is msgspec.UNSET:
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


def next_page(path: str, query: msgspec.Struct, cursor: str | None) -> dict[str, str]:
    """Return the Link header (RFC 8288) to the page at `cursor`; empty for the last page."""
    if cursor is None:
        return {}
    parameters: dict[str, Any] = {**msgspec.to_builtins(query), "cursor": cursor}
    return {"Link": f'<{path}?{urlencode(parameters)}>; rel="next"'}
