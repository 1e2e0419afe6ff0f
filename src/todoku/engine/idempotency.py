"""Idempotency keys: a request that is repeated with its key is executed once, and answered the same.

The key and what the answer is built from are saved in the transaction of the command. Source:
draft-ietf-httpapi-idempotency-key-header-08.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from pkgutil import resolve_name
from typing import Any, Generic

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    MetaData,
    Text,
    bindparam,
    delete,
    insert,
    select,
)
from typing_extensions import TypeVar

from todoku.database import Integer64, Many, Query, Timestamp, among, table, to_microseconds

A = TypeVar("A", default=Any)

CALLER_CHARACTERS_MAX = 255
"""The longest name of a caller that is part of an id as it is; of a longer one, a hash is."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class IdempotencyKeyReused(Exception):
    """Raised for a key that was sent before with another request: nothing was changed."""


class RequestInProgress(Exception):
    """Raised for a key whose first request is still being executed."""


class AnswerUnavailable(Exception):
    """Raised for a repeated request that was executed, and whose answer cannot be built any more."""


class IdempotencyKey(msgspec.Struct, frozen=True, gc=False):
    """The key of a command. `id` is derived from the caller and the key, `fingerprint` from what was
    requested. Errors of the types `refusals` are decisions, which are kept like results; all others
    leave the key unused."""

    id: str
    fingerprint: str
    refusals: frozenset[type[Exception]] = frozenset()

    def keeps(self, result: object) -> bool:
        """Return whether a repeated request is answered with this result."""
        return not isinstance(result, Exception) or type(result) in self.refusals


def key_id(caller: str, key: str, number: int = 1) -> str:
    """Return the id of a caller's key for the `number`-th command of the request.

    It begins with the key: UUIDv7s of about the same time lie beside each other in an index. The key has
    no tabs, so no two callers share an id.
    """
    if len(caller) > CALLER_CHARACTERS_MAX:
        caller = blake2b(caller.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{key}\t{caller}\t{number}"


class KeptAnswer(msgspec.Struct, frozen=True, gc=False):
    """The answer that a key has got: a result of the class `kind` (`module:name`), or with `refused` an
    error of that class. `content` is what it is built from; for an error, its text."""

    fingerprint: str
    kind: str
    refused: bool
    content: str


class AnswerFormat(msgspec.Struct, Generic[A], frozen=True):
    """How results of one type are kept, if not as a whole.

    `keep` returns what is saved, as JSON can hold it: best the key of a row and what may change in it.
    `rebuild` returns the result from that and from the database; None if the row is gone.
    """

    keep: Callable[[A], Any]
    rebuild: Callable[[Connection, Any], A | None]


Formats = Mapping[type, AnswerFormat]


def kept_answer(key: IdempotencyKey, result: object, formats: Formats) -> KeptAnswer:
    """Return what to keep of a result or a refusal. Raises `TypeError` if the result is not JSON."""
    kind = type(result)
    if isinstance(result, Exception):
        return KeptAnswer(key.fingerprint, _path(kind), True, str(result))
    chosen = formats.get(kind)
    content = _encode(result if chosen is None else chosen.keep(result)).decode()
    return KeptAnswer(key.fingerprint, _path(kind), False, content)


def rebuild_answer(
    connection: Connection, kept: KeptAnswer, key: IdempotencyKey, formats: Formats
) -> object:
    """Return the result or the refusal that is kept. Raises `AnswerUnavailable`."""
    if kept.refused:
        return _refusal(kept, key)
    if kept.kind == _path(type(None)):
        return None
    chosen = next((each for kind, each in formats.items() if _path(kind) == kept.kind), None)
    if chosen is None:
        return _result(kept)
    answer = chosen.rebuild(connection, _decode(kept.content))
    if answer is None:
        raise _unavailable(kept)
    return answer


def _refusal(kept: KeptAnswer, key: IdempotencyKey) -> Exception:
    """Return the error with its text; its class may be made from something else."""
    kind = next((each for each in key.refusals if _path(each) == kept.kind), None)
    if kind is None:
        raise _unavailable(kept)
    return kind.__new__(kind, kept.content)


def _result(kept: KeptAnswer) -> object:
    try:
        return msgspec.json.decode(kept.content, type=resolve_name(kept.kind))
    except (ImportError, AttributeError, msgspec.DecodeError) as error:
        raise _unavailable(kept) from error  # Another version kept it.


def _unavailable(kept: KeptAnswer) -> AnswerUnavailable:
    return AnswerUnavailable(
        f"The request was executed, but its answer ({kept.kind}) cannot be built any more."
    )


def _path(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


class IdempotencyKeys:
    """The table of the keys that were used. `number` counts them, so that the oldest are pruned without
    an index on their age."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "idempotency_keys",
            metadata,
            Column("number", Integer64, primary_key=True),
            Column("id", Text, nullable=False, unique=True),
            Column("fingerprint", Text, nullable=False),
            Column("kind", Text, nullable=False),
            Column("refused", Integer64, nullable=False),
            Column("content", Text, nullable=False),
            Column("used_at", Timestamp, nullable=False),
            CheckConstraint("refused IN (0, 1)", name="refused_or_not"),
        )
        columns = self.table.c
        # No duplicate is ignored: another replica may have executed the same request.
        self._insert = Many(insert(self.table))
        self._find = Query(
            select(
                columns.id, columns.fingerprint, columns.kind, columns.refused, columns.content
            ).where(among(columns.id, "ids"))
        )
        oldest = (
            select(columns.number, columns.used_at)
            .order_by(columns.number)
            .limit(bindparam("count"))
            .subquery()
        )
        self._prune = delete(self.table).where(
            columns.number.in_(
                select(oldest.c.number).where(oldest.c.used_at < bindparam("before"))
            )
        )

    def find(self, connection: Connection, ids: Collection[str]) -> dict[str, KeptAnswer]:
        """Return what these keys were answered with, as far as they were used."""
        return self.send(connection, ids)()

    def send(
        self, connection: Connection, ids: Collection[str]
    ) -> Callable[[], dict[str, KeptAnswer]]:
        """Ask for these keys; return what returns what they were answered with."""
        if not ids:
            return dict
        rows = self._find.send(connection, ids=sorted(ids))
        return lambda: {
            row.id: KeptAnswer(row.fingerprint, row.kind, bool(row.refused), row.content)
            for row in rows()
        }

    def add(
        self, connection: Connection, answers: Iterable[tuple[str, KeptAnswer]], now: datetime
    ) -> None:
        """Save the answers of these keys. Raises `ConstraintViolated` if one is used already."""
        used_at = to_microseconds(now)
        # In one sequence on every replica, so that two of them do not wait for each other.
        rows = [
            {
                "id": key,
                "fingerprint": kept.fingerprint,
                "kind": kept.kind,
                "refused": int(kept.refused),
                "content": kept.content,
                "used_at": used_at,
            }
            for key, kept in sorted(answers, key=lambda answer: answer[0])
        ]
        self._insert(connection, rows)

    def prune(self, connection: Connection, before: datetime, count: int) -> int:
        """Delete those of the `count` oldest keys that were used before that instant; return how many."""
        return connection.execute(self._prune, {"before": before, "count": count}).rowcount
