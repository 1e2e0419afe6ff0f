"""The ids of spans: which trace they belong to, who is their parent, whether they are sampled."""

import os
from binascii import unhexlify
from collections.abc import Callable
from random import Random
from typing import Final

Sample = Callable[[str], bool]
"""Tells whether a trace that begins here is sampled, by its id in hexadecimal digits."""

TRACE_DIGITS: Final = 32
SPAN_DIGITS: Final = 16
TRACEPARENT_LENGTH: Final = 55
ODD: Final = frozenset("13579bdf")
"""How the flags of a traceparent end that is sampled."""

randbytes: Final = Random().randbytes
"""Makes a few random bytes, without handing on the interpreter's lock as `os.urandom` does."""

_POOL_IDS: Final = 512
_span_ids: list[str] = []
_roots: list[str] = []


def new_span_id() -> str:
    """Return a random span id in hexadecimal digits."""
    try:
        return _span_ids.pop()
    except IndexError:
        _span_ids.extend(_random_digits(SPAN_DIGITS))
        return new_span_id()


def new_root() -> str:
    """Return the traceparent of a sampled span that begins a trace."""
    try:
        return _roots.pop()
    except IndexError:
        ids = zip(_random_digits(TRACE_DIGITS), _random_digits(SPAN_DIGITS), strict=True)
        _roots.extend([f"00-{trace_id}-{span_id}-01" for trace_id, span_id in ids])
        return new_root()


def _random_digits(count: int) -> list[str]:
    """Return many texts of so many random hexadecimal digits."""
    octets = count // 2
    return os.urandom(octets * _POOL_IDS).hex("-", octets).split("-")


def parent_of(traceparent: str) -> bytes | None:
    """Return the ids of trace and span, one after the other, of a traceparent as it is stored in messages;
    None if it is malformed."""
    if len(traceparent) != TRACEPARENT_LENGTH:
        return None
    try:
        return unhexlify(traceparent[3:35] + traceparent[36:52])
    except ValueError:
        return None


def is_sampled(traceparent: str) -> bool:
    """Return whether a traceparent is that of a sampled span; not whether its ids are valid."""
    return len(traceparent) == TRACEPARENT_LENGTH and traceparent[54] in ODD
