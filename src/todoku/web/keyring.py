"""Verify API keys in memory: no request asks another service, and few the database."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from todoku.engine import ApiKeys
from todoku.identity import Caller
from todoku.identity.keys import ApiKey, parse, same
from todoku.web.backend import Backend
from todoku.web.guard import unauthenticated

READ_EVERY: Final = timedelta(seconds=1)
"""How old what is known of the keys may be: so a revocation holds within this time once it is here."""

UNKNOWN_READS_MAX: Final = 5
"""How many times in a second, on average and at once, the keys are read because a request has one that is
not known: it may be new."""

USE_NOTED_EVERY: Final = timedelta(minutes=1)

UNKNOWN: Final = "0" * 64
"""What the digest of an unknown key is compared with, so that it takes as long."""


class Keyring:
    """The API keys of a service, read again when they may have changed."""

    def __init__(self, backend: Backend, keys: ApiKeys) -> None:
        self._backend = backend
        self._table = keys
        self._keys: dict[str, ApiKey] = {}
        self._callers: dict[str, Caller] = {}
        self._read_at: datetime | None = None
        self._reading = asyncio.Lock()
        self._unknown_reads = float(UNKNOWN_READS_MAX)
        self._unknown_at = backend.process.clock.now()
        self._used: dict[str, datetime] = {}
        self._noted: dict[str, datetime] = {}

    async def __call__(self, credential: str) -> Caller:
        """Return who has this credential. Raises `Problem` (401)."""
        parsed = parse(credential)
        if parsed is None:
            raise unauthenticated("The credential is not an API key.", invalid=True)
        key_id, digest = parsed
        now = self._backend.process.clock.now()
        await self._refresh(now, READ_EVERY)
        if key_id not in self._keys and self._may_read(now):
            await self._refresh(now, timedelta())
        key = self._keys.get(key_id)
        if not same(UNKNOWN if key is None else key.digest, digest) or key is None:
            raise unauthenticated("There is no such API key.", invalid=True)
        if (refusal := key.refusal(now)) is not None:
            raise unauthenticated(refusal, invalid=True)
        self._used[key_id] = now
        return self._callers[key_id]

    def _may_read(self, now: datetime) -> bool:
        """Return whether the keys may be read once more for an unknown key."""
        seconds = max(0.0, (now - self._unknown_at).total_seconds())
        self._unknown_at = now
        refilled = self._unknown_reads + seconds * UNKNOWN_READS_MAX
        self._unknown_reads = min(float(UNKNOWN_READS_MAX), refilled)
        if self._unknown_reads < 1:
            return False
        self._unknown_reads -= 1
        return True

    async def _refresh(self, now: datetime, age: timedelta) -> None:
        """Read the keys if what is known of them is older."""
        if self._is_new(now, age):
            return
        async with self._reading:
            if self._is_new(now, age):
                return
            found = await self._backend.read(self._table.read)
            self._callers = {
                key.id: Caller(key.owner, frozenset(key.scopes), key.id) for key in found.values()
            }
            self._keys, self._read_at = found, now
            await self._note_use(now)

    def _is_new(self, now: datetime, age: timedelta) -> bool:
        return self._read_at is not None and self._read_at <= now < self._read_at + age

    async def _note_use(self, now: datetime) -> None:
        """Write when keys were used, of each at most once a minute."""
        due = {
            key_id: at
            for key_id, at in self._used.items()
            if key_id not in self._noted or self._noted[key_id] + USE_NOTED_EVERY <= now
        }
        if due:
            self._used.clear()
            self._noted |= dict.fromkeys(due, now)
            await self._backend.process.transact(
                lambda connection: self._table.note_use(connection, due)
            )
