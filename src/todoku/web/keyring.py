"""Verify API keys in memory: no request asks another service, and few the database."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from time import monotonic
from typing import Final, NamedTuple

from todoku.database import DatabaseError
from todoku.engine import ApiKeys
from todoku.identity import Caller
from todoku.identity.keys import ApiKey, parse, same
from todoku.web.backend import Backend
from todoku.web.guard import unauthenticated
from todoku.web.problems import Problem

READ_EVERY_SECONDS: Final = 1.0
"""How old what is known of the keys may be before a request causes another read, without waiting for it."""

KNOWN_SECONDS_MAX: Final = 2.0
"""How old it may be at most. If it is older, requests wait until the keys are read; so a revocation holds
within this time once it has arrived at this service."""

UNKNOWN_READS_MAX: Final = 5
"""How many times in a second, on average and at once, the keys are read because a request has one that is
not known: it may be new."""

USE_NOTED_EVERY: Final = timedelta(minutes=1)

UNKNOWN: Final = "0" * 64
"""What the digest of an unknown key is compared with, so that it takes as long."""


class _Verified(NamedTuple):
    caller: Caller
    key_id: str
    expires_at: datetime | None


class Keyring:
    """The API keys of a service, read again when they may have changed, beside the requests that use them.

    Keys that were verified since then are remembered by a digest: no more than there are valid ones.
    """

    def __init__(self, backend: Backend, keys: ApiKeys) -> None:
        self._backend = backend
        self._table = keys
        self._keys: dict[str, ApiKey] = {}
        self._callers: dict[str, Caller] = {}
        self._verified: dict[bytes, _Verified] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._ahead: asyncio.Task[None] | None = None
        self._unknown_reads = float(UNKNOWN_READS_MAX)
        self._unknown_at = monotonic()
        self._used: set[str] = set()
        self._noted: dict[str, datetime] = {}

    async def __call__(self, credential: str) -> Caller:
        """Return who has this credential. Raises `Problem` (401)."""
        digest = sha256(credential.encode()).digest()
        age_seconds = monotonic() - self._read_at
        if age_seconds < KNOWN_SECONDS_MAX:
            if age_seconds >= READ_EVERY_SECONDS:
                self._refresh_ahead()
            found = self._verified.get(digest)
            if found is not None and (
                found.expires_at is None or self._backend.process.clock.now() < found.expires_at
            ):
                self._used.add(found.key_id)
                return found.caller
        return await self._verify(credential, digest)

    async def _verify(self, credential: str, remembered_as: bytes) -> Caller:
        parsed = parse(credential)
        if parsed is None:
            raise unauthenticated("The credential is not an API key.", invalid=True)
        key_id, digest = parsed
        await self._refresh(KNOWN_SECONDS_MAX)
        if key_id not in self._keys and self._may_read():
            await self._refresh(0.0)
        key = self._keys.get(key_id)
        if not same(UNKNOWN if key is None else key.digest, digest) or key is None:
            raise unauthenticated("There is no such API key.", invalid=True)
        if (refusal := key.refusal(self._backend.process.clock.now())) is not None:
            raise unauthenticated(refusal, invalid=True)
        self._used.add(key_id)
        caller = self._callers[key_id]
        self._verified[remembered_as] = _Verified(caller, key_id, key.expires_at)
        return caller

    def _may_read(self) -> bool:
        """Return whether the keys may be read once more for an unknown key."""
        now = monotonic()
        refilled = self._unknown_reads + (now - self._unknown_at) * UNKNOWN_READS_MAX
        self._unknown_at = now
        self._unknown_reads = min(float(UNKNOWN_READS_MAX), refilled)
        if self._unknown_reads < 1:
            return False
        self._unknown_reads -= 1
        return True

    def _refresh_ahead(self) -> None:
        """Read the keys, and write which were used, while requests go on."""
        if self._ahead is None or self._ahead.done():
            self._ahead = asyncio.create_task(self._read_and_note(), name="read API keys")

    async def _read_and_note(self) -> None:
        # Without the database, requests that wait for the keys say so.
        with suppress(DatabaseError, Problem):
            await self._refresh(READ_EVERY_SECONDS)
            await self._note_use()

    async def _refresh(self, age_seconds: float) -> None:
        """Read the keys if what is known of them is older."""
        asked_at = monotonic()
        if asked_at - self._read_at < age_seconds:
            return
        async with self._reading:
            # Another request may have read them while this one waited.
            if self._read_at >= asked_at - age_seconds:
                return
            begun_at = monotonic()
            found = await self._backend.read(self._table.read)
            self._callers = {
                key.id: Caller(key.owner, frozenset(key.scopes), key.id) for key in found.values()
            }
            self._keys, self._read_at = found, begun_at
            self._verified.clear()

    async def _note_use(self) -> None:
        """Write when keys were used, of each at most once a minute."""
        now = self._backend.process.clock.now()
        due = {
            key_id: now
            for key_id in self._used
            if key_id not in self._noted or self._noted[key_id] + USE_NOTED_EVERY <= now
        }
        self._used.clear()
        if due:
            self._noted |= due
            await self._backend.process.transact(
                lambda connection: self._table.note_use(connection, due)
            )
