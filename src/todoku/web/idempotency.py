"""The Idempotency-Key header: a request that is repeated with its key is executed once.

Source: draft-ietf-httpapi-idempotency-key-header-08. The engine keeps the keys
(`todoku.engine.idempotency`); here they are read, and go with the commands of the request. Handlers do
nothing for it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any, Final, TypeVar

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

R = TypeVar("R")

_encode = msgspec.json.Encoder(order="deterministic").encode
_is_key = re.compile(IDEMPOTENCY_KEY_PATTERN).fullmatch


class RequestKey:
    """The key of a request. Each of its commands, usually one, has an id of its own."""

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


async def with_key(key: RequestKey, handle: Callable[[], Awaitable[R]]) -> R:
    """Call a function whose commands have this key."""
    token = _current.set(key)
    try:
        return await handle()
    finally:
        _current.reset(token)


def next_key() -> IdempotencyKey | None:
    """Return the key of the next command of this request, None if it has none."""
    key = _current.get()
    return None if key is None else key.next_command()


def read_key(values: list[bytes]) -> str:
    """Return the key in the values of the header. Raises `Problem`.

    It is an RFC 8941 string. Without quotation marks, as most clients send it, it is the same key.
    """
    value = values[0].strip(b" \t").decode("latin-1")
    if len(values) > 1 or not _is_key(value):
        raise Problem(
            INVALID_IDEMPOTENCY_KEY,
            f"{HEADER}: must be given once, and be {ALLOWED[IDEMPOTENCY_KEY_PATTERN]}.",
        )
    if not value.startswith('"'):
        return value
    text = value[1:-1]
    return re.sub(r"\\(.)", r"\1", text) if "\\" in text else text


def fingerprint(method: str, path: str, parameters: Any, query: Any, body: Any) -> str:
    """Return the same text for requests that mean the same: spaces, the sequence of the fields, and
    defaults that are given do not matter."""
    parsed = _encode((method, path, parameters, query, body))
    return blake2b(parsed, digest_size=16).hexdigest()


def decided(refusals: Mapping[type[Exception], ProblemType]) -> frozenset[type[Exception]]:
    """Return the refusals that are decisions: a repeated request gets them again."""
    return frozenset(
        error
        for error, kind in refusals.items()
        if 400 <= kind.status < 500 and kind.status not in UNDECIDED
    )
