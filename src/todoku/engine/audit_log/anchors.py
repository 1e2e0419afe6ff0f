"""The anchors that a service keeps for others: heads of the chains of their audit logs."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Text, select

from todoku.database import (
    Integer64,
    Many,
    Timestamp,
    insert_ignoring_duplicates,
    table,
    to_microseconds,
)
from todoku.engine.audit_log.check import Anchor
from todoku.events import AuditAnchoredEvent


class InvalidAnchor(Exception):
    """A message is no anchor of an audit log, although it looks like one."""


_is_chain = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}").fullmatch
_is_hash = re.compile(r"[0-9a-f]{64}").fullmatch


def require_valid(event: AuditAnchoredEvent) -> None:
    """Raise `InvalidAnchor` for one that no process can have published."""
    if event.service != event.publisher:
        raise InvalidAnchor(
            f"It is about the audit log of {event.service!r}, and {event.publisher} publishes only its own"
            " anchors: discard the message."
        )
    valid = _is_chain(event.chain) and _is_hash(event.hash) and 0 < event.sequence < 2**63
    if not valid:
        raise InvalidAnchor(
            f"{event.publisher} cannot have published it: a chain, a sequence or a hash looks otherwise."
            " Discard the message."
        )


def keep_anchor(state: Any, event: Any, now: datetime) -> tuple[Any, list[Any]]:
    """Decide nothing about an anchor of another service: the engine keeps it. A service lists this as the
    handler of the anchors that it keeps."""
    return state, []


class AuditAnchors:
    """All anchors of other services. Nothing is ever changed: of two anchors of the same row, the first one
    stays, and a service that could publish a second one cannot take back the first."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "audit_anchors",
            metadata,
            Column("service", Text, primary_key=True),
            Column("chain", Text, primary_key=True),
            Column("sequence", Integer64, primary_key=True),
            Column("hash", Text, nullable=False),
            Column("kept_at", Timestamp, nullable=False),
            clustered=True,
        )
        columns = self.table.c
        self._insert = Many(insert_ignoring_duplicates(self.table))
        self._read = select(
            columns.service, columns.chain, columns.sequence, columns.hash, columns.kept_at
        ).order_by(columns.service, columns.chain, columns.sequence)

    def keep(
        self, connection: Connection, events: Iterable[AuditAnchoredEvent], now: datetime
    ) -> None:
        """Keep these anchors, each under the service that has published it."""
        kept_at = to_microseconds(now)
        rows = [
            {
                "service": event.publisher,
                "chain": event.chain,
                "sequence": event.sequence,
                "hash": event.hash,
                "kept_at": kept_at,
            }
            for event in events
        ]
        self._insert(connection, rows)

    def read(self, connection: Connection) -> list[tuple[str, Anchor]]:
        """Return every anchor, with the service whose audit log it is about."""
        found = connection.execute(self._read)
        return [
            (row.service, Anchor(row.chain, row.sequence, row.hash, row.kept_at)) for row in found
        ]
