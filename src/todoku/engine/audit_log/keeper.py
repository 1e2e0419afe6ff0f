"""What a running process does for its audit log beside its batches: rows about requests that execute no
command, counts of refused ones, and anchors."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog

from todoku.database import DatabaseUnavailable
from todoku.engine.audit_log.entries import AuditEntry
from todoku.engine.audit_log.refusals import RefusalCounts

log = structlog.get_logger(__name__)

FLUSH_SECONDS: Final = 1.0
"""How long a refusal waits before it is written, together with others."""

ANCHOR_SECONDS: Final = 60.0
"""How often the head of the chain is anchored, and counts are written, if there are any."""

WAITING_MAX: Final = 10_000
"""How many entries wait at most; more are only counted."""

NOT_WRITTEN: Final = "too-many-to-list"
"""The outcome of a row that counts refusals which were too many to have a row each."""


class WritesTrail(Protocol):
    """The part of the writer that writes the audit log."""

    def begin_trail(self, now: datetime) -> None:
        """Begin the chain of this process."""

    def add_to_trail(self, entries: Sequence[AuditEntry], now: datetime) -> None:
        """Add rows in a transaction of their own."""

    def anchor_trail(self, now: datetime) -> bool:
        """Publish the head of the chain, if it has grown; return whether it had."""


class AuditKeeper:
    """The audit log of a process, as the HTTP edge and the process itself use it. Methods run on the event
    loop's thread."""

    def __init__(
        self,
        writer: WritesTrail,
        *,
        run: Callable[..., Any],
        now: Callable[[], datetime],
        published: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._run = run
        self._now = now
        self._published = published
        self._waiting: list[AuditEntry] = []
        self._counts = RefusalCounts()
        self._anchor_at: datetime | None = None

    async def begin(self) -> None:
        """Begin the chain of this process."""
        now = self._now()
        await self._run(self._writer.begin_trail, now)
        self._anchor_at = now

    async def write(self, entry: AuditEntry) -> None:
        """Write a row; return when it is committed. Raises `DatabaseUnavailable`."""
        await self._run(self._writer.add_to_trail, [entry], self._now())

    def note(self, entry: AuditEntry) -> None:
        """Write a row soon, together with others."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(entry)
        else:
            self._counts.add(None, NOT_WRITTEN)

    def count(self, source: str | None, outcome: str) -> None:
        """Count a refused request of an unknown caller at this address."""
        self._counts.add(source, outcome)

    async def step(self) -> None:
        """After a while, write what waits, and anchor the chain once a minute."""
        await asyncio.sleep(FLUSH_SECONDS)
        try:
            await self._write_waiting()
            now = self._now()
            if self._anchor_at is not None and now >= self._anchor_at:
                await self._anchor(now)
        except DatabaseUnavailable as error:
            log.warning("audit_log_delayed", entries=len(self._waiting), error=str(error))

    async def end(self) -> None:
        """Write and anchor everything."""
        try:
            await self._write_waiting()
            await self._anchor(self._now())
        except DatabaseUnavailable as error:
            log.error("audit_log_incomplete", entries=len(self._waiting), error=str(error))

    async def _write_waiting(self) -> None:
        entries = self._waiting[:]
        if entries:
            await self._run(self._writer.add_to_trail, entries, self._now())
            del self._waiting[: len(entries)]

    async def _anchor(self, now: datetime) -> None:
        self._waiting += self._counts.take()
        await self._write_waiting()
        if await self._run(self._writer.anchor_trail, now):
            self._published()
        self._anchor_at = now + timedelta(seconds=ANCHOR_SECONDS)
