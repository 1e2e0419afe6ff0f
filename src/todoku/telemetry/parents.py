"""The ids of spans: which trace they belong to, who is their parent, whether they are sampled."""

from collections.abc import Callable, Iterable, Sequence
from random import Random
from struct import Struct
from typing import Final

Sample = Callable[[str], bool]
"""Tells whether a trace that begins here is sampled, by its id in hexadecimal digits."""

SPAN_DIGITS: Final = 16
TRACEPARENT_LENGTH: Final = 55
IDS_LENGTH: Final = 24
ODD: Final = frozenset("13579bdf")
"""How the flags of a traceparent end that is sampled."""

_child: Final = Struct("<x16s8sx8s")
"""A traceparent and a span id after it, without the dashes."""

randbytes: Final = Random().randbytes
"""Makes random bytes, without handing on the interpreter's lock as `os.urandom` does."""

_POOL_BYTES: Final = 8 * 512
_pool: list[str] = []


def new_span_id() -> str:
    """Return a random span id in hexadecimal digits."""
    try:
        return _pool.pop()
    except IndexError:
        digits = randbytes(_POOL_BYTES).hex()
        _pool.extend([digits[at : at + SPAN_DIGITS] for at in range(0, len(digits), SPAN_DIGITS)])
        return new_span_id()


def new_trace_id() -> str:
    """Return a random trace id in hexadecimal digits."""
    return new_span_id() + new_span_id()


def parent_of(traceparent: str) -> bytes | None:
    """Return the ids of trace and span, one after the other, of a traceparent as it is stored in messages;
    None if it is malformed."""
    if len(traceparent) != TRACEPARENT_LENGTH:
        return None
    try:
        ids = bytes.fromhex(traceparent[3:35] + traceparent[36:52])
    except ValueError:
        return None
    return ids if len(ids) == IDS_LENGTH else None  # Spaces are skipped.


def children(digits: Sequence[str]) -> Iterable[tuple[bytes, ...]]:
    """Return the ids of trace, parent and child for each traceparent of a parent that is followed by the span
    id of the child. Raises `ValueError` if one is malformed."""
    ids = bytes.fromhex("".join(digits).replace("-", ""))
    if len(ids) != _child.size * len(digits):
        raise ValueError("a traceparent is malformed")
    return _child.iter_unpack(ids)


def is_sampled(traceparent: str) -> bool:
    """Return whether a traceparent is that of a sampled span; not whether its ids are valid."""
    return len(traceparent) == TRACEPARENT_LENGTH and traceparent[54] in ODD
