"""The header If-Match: what a request changes must be what the client has seen (RFC 9110, section 13.1.1).

The decision compares the entity tags, in its transaction.
"""

import re
from typing import Final

from todoku.web.problems import INVALID_IF_MATCH, Problem

HEADER: Final = "If-Match"
ANY: Final = "*"

_TAG = r'(?:W/)?"[!#-~\x80-\xff]*"'
_is_list = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*").fullmatch
_tags = re.compile(_TAG).findall


def read_if_match(values: list[bytes]) -> tuple[str, ...]:
    """Return the strong entity tags in the values of the header, or `*`. Raises `Problem`.

    A weak tag never matches here, so it is left out.
    """
    value = b",".join(values).strip(b" \t").decode("latin-1")
    if value == ANY:
        return (ANY,)
    if not _is_list(value):
        raise Problem(
            INVALID_IF_MATCH,
            f'{HEADER}: must be `*`, or entity tags in quotation marks, as in {HEADER}: "1767605400000".',
        )
    return tuple(tag for tag in _tags(value) if not tag.startswith("W/"))
