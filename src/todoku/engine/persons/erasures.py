"""The table of erasures: what has to be erased again if an older copy of the database comes back."""

import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, MetaData, Text, select

from todoku.database import (
    Many,
    Query,
    Timestamp,
    among,
    insert_ignoring_duplicates,
    table,
    to_microseconds,
)
from todoku.events import ErasureEvent

SALT_BYTES = 16


class Erasure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A person who was erased, by a salted digest of the id, and the orders that belonged to it."""

    id: str
    digest: str
    order_ids: tuple[str, ...]
    erased_at: datetime

    def is_about(self, name: str | None) -> bool:
        """Return whether this is the id of the person."""
        if name is None:
            return False
        return digest_of(name, bytes.fromhex(self.digest.partition(":")[0])) == self.digest


class InvalidErasure(Exception):
    """A message is no erasure of a person, although it looks like one."""


_is_id = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-[1-9][0-9]{0,6}").fullmatch
_is_digest = re.compile(r"[0-9a-f]{32}:[0-9a-f]{64}").fullmatch


def require_valid(event: ErasureEvent) -> None:
    """Raise `InvalidErasure` for one that no service can have published."""
    if not (_is_id(event.erasure_id) and _is_digest(event.digest)):
        raise InvalidErasure(
            f"{event.publisher} cannot have published it: its id or its digest looks otherwise. Discard the"
            " message."
        )


def digest_of(person: str, salt: bytes | None = None) -> str:
    """Return a salted digest of the id of a person, with its salt before it."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    digest = sha256(salt + person.encode(errors="surrogatepass")).hexdigest()
    return f"{salt.hex()}:{digest}"


class Erasures:
    """All erasures that this database has applied. Nothing is ever deleted."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "erasures",
            metadata,
            Column("id", Text, primary_key=True),
            Column("digest", Text, nullable=False),
            Column("order_ids", Text, nullable=False),
            Column("erased_at", Timestamp, nullable=False),
        )
        columns = self.table.c
        self._rows = select(columns.id, columns.digest, columns.order_ids, columns.erased_at)
        self._these = Query(self._rows.where(among(columns.id, "ids")))
        self._insert = Many(insert_ignoring_duplicates(self.table))

    def add(self, connection: Connection, erasures: Iterable[Erasure]) -> None:
        """Add erasures; those that are known already are left as they are."""
        rows = [
            {
                "id": each.id,
                "digest": each.digest,
                "order_ids": msgspec.json.encode(each.order_ids).decode(),
                "erased_at": to_microseconds(each.erased_at),
            }
            for each in erasures
        ]
        self._insert(connection, rows)

    def find(self, connection: Connection, ids: Sequence[str]) -> list[Erasure]:
        """Return those of these erasures that were applied."""
        return [_erasure(row) for row in self._these(connection, ids=list(ids))] if ids else []

    def all(self, connection: Connection) -> list[Erasure]:
        """Return every erasure."""
        return [_erasure(row) for row in connection.execute(self._rows.order_by("id"))]


def _erasure(row: Any) -> Erasure:
    return Erasure(
        id=row.id,
        digest=row.digest,
        order_ids=msgspec.json.decode(row.order_ids, type=tuple[str, ...]),
        erased_at=row.erased_at,
    )
