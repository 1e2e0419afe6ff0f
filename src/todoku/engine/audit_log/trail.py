"""The chain that a process writes: the writer adds rows to it in its transactions."""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from todoku.database import to_microseconds
from todoku.engine.audit_log.entries import (
    BEGIN,
    RESTORED,
    STARTED,
    AuditEntry,
    Head,
    chain_id,
    row_hash,
)
from todoku.engine.audit_log.names import AuditNames
from todoku.engine.audit_log.tables import AuditLog, said

HEADS_NAMED_MAX: Final = 20
"""How many chains before it the first row of a chain names: as many as processes write at once."""

NAMES_KNOWN_MAX: Final = 10_000
"""How many names this process keeps the digests of."""


class Trail:
    """The chain of one process. Rows that were added belong to it once the transaction is committed."""

    def __init__(
        self,
        log: AuditLog,
        names: AuditNames,
        *,
        owner: str,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._log = log
        self._names = names
        self._owner = owner
        self._random = random
        self._chains = 0
        self._head: Head | None = None
        self._added: Head | None = None
        self._known: dict[str, str] = {}
        self._new_names: dict[str, str] = {}

    @property
    def head(self) -> Head | None:
        """Return the last committed row; None before the chain has begun."""
        return self._head

    def open_transaction(self, connection: Connection, *, certain: bool) -> None:
        """Prepare for a transaction; read the chain again if it is not `certain` what the last one did."""
        self._added, self._new_names = None, {}
        if len(self._known) > NAMES_KNOWN_MAX:
            self._known.clear()
        if not certain and self._head is not None:
            self._head = self._log.head(connection, self._head.chain)

    def committed(self) -> None:
        """Note that the transaction was committed."""
        if self._added is not None:
            self._head = self._added
            self._known.update(self._new_names)

    def forget_names(self) -> None:
        """Read the digests of names again when they are needed: one may have been erased."""
        self._known.clear()

    def begin(self, connection: Connection, now: datetime, *, restored: bool = False) -> None:
        """Begin a chain. Its first row names where the chains before it end, so that they are anchored with
        it."""
        self._chains += 1
        before = self._log.heads(connection, HEADS_NAMED_MAX)
        chain = chain_id(self._owner, self._chains, now, before[0].chain if before else None)
        self._added = Head(chain)
        first = AuditEntry(
            operation=BEGIN,
            outcome=RESTORED if restored else STARTED,
            subject=" ".join(map(str, before)) or None,
        )
        self.add(connection, [first], now)

    def add(self, connection: Connection, entries: Sequence[AuditEntry], now: datetime) -> None:
        """Add rows at the end of the chain."""
        if not entries:
            return
        head = self._added or self._head
        if head is None:
            self.begin(connection, now)
            head = self._added
            assert head is not None
        digests = self._digests(connection, entries)
        at = to_microseconds(now)
        chain, sequence, last = head.chain, head.sequence, head.hash
        rows: list[dict[str, Any]] = []
        for entry in entries:
            sequence += 1
            row = {
                "chain": chain,
                "sequence": sequence,
                "at": at,
                "operation": entry.operation,
                "outcome": entry.outcome,
                "actor": digests.get(entry.actor),
                "key_id": entry.key_id,
                "subject": entry.subject,
                "about": digests.get(entry.about),
                "trace_id": entry.trace_id,
                "source": digests.get(entry.source),
                "times": entry.times,
            }
            last = row_hash(last, (chain, sequence, at, *said(row)))
            row["hash"] = last
            rows.append(row)
        self._log.insert(connection, rows)
        self._added = Head(chain, sequence, last)

    def _digests(
        self, connection: Connection, entries: Iterable[AuditEntry]
    ) -> dict[str | None, str | None]:
        """Return the digests of the names in these entries."""
        names: set[str | None] = set()
        for entry in entries:
            names |= {entry.actor, entry.about, entry.source}
        names.discard(None)
        found: dict[str | None, str | None] = {None: None}
        if not names:
            return found
        unknown = [name for name in names if name is not None and name not in self._known]
        if unknown:
            self._new_names |= self._names.add(connection, unknown, self._random)
        known = self._known | self._new_names if self._new_names else self._known
        return found | {name: known[name] for name in names if name is not None}
