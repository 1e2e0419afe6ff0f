"""The Idempotency-Key header: a request that is repeated with its key is executed once.

Source: draft-ietf-httpapi-idempotency-key-header-08. The engine keeps the keys
(`todoku.engine.idempotency`); here they are read, and go with the commands of the request. Handlers do
nothing for it.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from hashlib import blake2b
from typing import Any, Final

import msgspec

from todoku.engine import IdempotencyKey, key_id
from todoku.web.fields import ALLOWED, IDEMPOTENCY_KEY_PATTERN
from todoku.web.problems import INVALID_IDEMPOTENCY_KEY, Problem, ProblemType

HEADER: Final = "Idempotency-Key"
METHODS: Final = ("POST", "PATCH")
"""The methods that take a key: the others are idempotent by themselves."""

NO_ONE: Final = "anonymous"
"""The caller of requests without an actor."""

UNDECIDED: Final = frozenset({400, 401, 413, 429})
"""The statuses of refusals that say nothing about the command: they leave the key unused."""

_encode = msgspec.json.Encoder(order="deterministic").encode
_is_key = re.compile(IDEMPOTENCY_KEY_PATTERN).fullmatch
# The usual form, which the whole pattern takes five times as long to match.
_is_plain = re.compile(rb'"([ !#-\[\]-~]{1,255})"').fullmatch


class RequestKey:
    """The key of a request. Each of its commands, usually one, has an id of its own."""

    __slots__ = ("_caller", "_commands", "_fingerprint", "_key", "_refusals")

    def __init__(
        self, caller: str, key: str, fingerprint: str, refusals: frozenset[type[Exception]]
    ) -> None:
        self._caller = caller
        self._key = key
        self._fingerprint = fingerprint
        self._refusals = refusals
        self._commands = 0

    def next_command(self) -> IdempotencyKey:
        """Return the key of the next command."""
        self._commands += 1
        return IdempotencyKey(
            key_id(self._caller, self._key, self._commands), self._fingerprint, self._refusals
        )


_current: ContextVar[RequestKey | None] = ContextVar("idempotency key", default=None)


def begin(key: RequestKey) -> Token[RequestKey | None]:
    """Give the commands of this task the key, until `end` is called with the token."""
    return _current.set(key)


def end(token: Token[RequestKey | None]) -> None:
    """Take the key from the commands of this task."""
    _current.reset(token)


def next_key() -> IdempotencyKey | None:
    """Return the key of the next command of this request, None if it has none."""
    key = _current.get()
    return None if key is None else key.next_command()


def read_key(values: list[bytes]) -> str:
    """Return the key in the values of the header. Raises `Problem`.

    It is an RFC 8941 string. Without quotation marks, as most clients send it, it is the same key.
    """
    if len(values) == 1 and (plain := _is_plain(values[0])):
        return plain[1].decode()
    value = values[0].strip(b" \t").decode("latin-1")
    if len(values) > 1 or not _is_key(value):
        raise Problem(
            INVALID_IDEMPOTENCY_KEY,
            f"{HEADER}: must be given once, and be {ALLOWED[IDEMPOTENCY_KEY_PATTERN]}.",
        )
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def fingerprint(
    operation: bytes, parameters: Any, query: Any, body: Any, condition: Any = None
) -> str:
    """Return the same text for requests of an operation that mean the same: spaces, the sequence of the
    fields, and defaults that are given do not matter."""
    asked = body if not parameters and query is None else (parameters, query, body)
    if condition is not None:
        asked = (asked, condition)
    return blake2b(operation + _encode(asked), digest_size=16).hexdigest()


def decided(refusals: Mapping[type[Exception], ProblemType]) -> frozenset[type[Exception]]:
    """Return the refusals that are decisions: a repeated request gets them again."""
    return frozenset(
        error
        for error, kind in refusals.items()
        if 400 <= kind.status < 500 and kind.status not in UNDECIDED
    )
