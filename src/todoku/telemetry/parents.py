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

_POOL_IDS: Final = 512
_pool: list[str] = []
_roots: list[str] = []


def new_span_id() -> str:
    """Return a random span id in hexadecimal digits."""
    try:
        return _pool.pop()
    except IndexError:
        _pool.extend(_random_digits(SPAN_DIGITS))
        return new_span_id()


def new_root() -> str:
    """Return the traceparent of a sampled span that begins a trace."""
    try:
        return _roots.pop()
    except IndexError:
        _roots.extend([f"00-{ids[:32]}-{ids[32:]}-01" for ids in _random_digits(IDS_LENGTH * 2)])
        return new_root()


def _random_digits(length: int) -> list[str]:
    """Return many texts of so many random hexadecimal digits."""
    digits = randbytes(length // 2 * _POOL_IDS).hex()
    return [digits[at : at + length] for at in range(0, len(digits), length)]


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
