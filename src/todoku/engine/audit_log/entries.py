"""What a row of the audit log says, and how rows are chained. Pure."""

from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

DONE: Final = "done"
"""The outcome of a command that was executed."""

REPEATED: Final = "repeated"
"""The outcome of a request whose idempotency key was used before: it got the same answer again."""

REFUSED: Final = "refused"
"""The operation of rows that count the refused requests of callers who are unknown, or too fast."""

BEGIN: Final = "begin"
"""The operation of the first row of a chain. Its subject is where the chains before it end."""

STARTED: Final = "started"
"""The outcome of `BEGIN` where a process has started."""

RESTORED: Final = "restored"
"""The outcome of `BEGIN` where the database was restored from a backup."""

NO_HASH: Final = bytes(32)
"""What the first row of a chain has in the place of the hash of the row before."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What somebody has asked for, and what came of it.

    operation: the id of the HTTP operation.
    outcome: `DONE`, `REPEATED`, or the type of the problem, such as `unknown-order`.
    actor, key_id: who asked, and with which key; `source` is the address of an unknown caller.
    subject: what it is about, such as the id of an order; `about` is a person it is about.
    times: how many requests the row counts.

    `actor`, `source` and `about` are personal. They are stored as salted digests.
    """

    operation: str
    outcome: str
    actor: str | None = None
    key_id: str | None = None
    subject: str | None = None
    about: str | None = None
    trace_id: str | None = None
    source: str | None = None
    times: int = 1


class Head(msgspec.Struct, frozen=True, gc=False):
    """The last row of a chain: its sequence and its hash."""

    chain: str
    sequence: int = 0
    hash: bytes = NO_HASH

    def __str__(self) -> str:
        return f"{self.chain}:{self.sequence}:{self.hash.hex()}"


def read_heads(text: str | None) -> list[Head]:
    """Return the heads that the first row of a chain names. Raises `ValueError`."""
    parts = (part.split(":") for part in (text or "").split())
    return [Head(chain, int(sequence), bytes.fromhex(digest)) for chain, sequence, digest in parts]


def chain_id(owner: str, number: int, began_at: datetime, latest: str | None) -> str:
    """Return the id of the `number`-th chain of a process: greater than `latest`, that of the latest chain so
    far, even if the clock was set back."""
    microseconds = int(began_at.timestamp() * 1_000_000)
    if latest is not None:
        microseconds = max(microseconds, int(latest.partition("-")[0], 16) + 1)
    return f"{microseconds:016x}-{sha256(f'{owner} {number}'.encode()).hexdigest()[:8]}"


def row_hash(before: bytes, values: tuple[object, ...]) -> bytes:
    """Return the hash of a row with these values, behind the row that has the hash `before`."""
    return sha256(before + _encode(values)).digest()


_encode = msgspec.json.Encoder().encode
