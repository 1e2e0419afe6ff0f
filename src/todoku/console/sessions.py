"""Sessions of people who have logged in at the console: who they are, and the credential that is theirs.

The browser has a random id only, in a cookie that no script reads. Sessions are in memory: when the console
ends, everybody logs in again.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from time import monotonic
from typing import Final

SESSIONS_MAX: Final = 10_000
OF_ONE_PERSON_MAX: Final = 20
"""How many sessions one person has at most: the oldest ends for a new one."""

ID_BYTES: Final = 32

RENEWED_BEFORE: Final = 30.0
"""How many seconds before its end a credential is renewed; one that is short, at half of its time."""


class Session:
    """What one browser may do until `ended` is set."""

    def __init__(
        self,
        *,
        actor: str,
        credential: str,
        ends_at: float,
        refresh_token: str | None = None,
        subject: str | None = None,
    ) -> None:
        self.actor = actor
        self.subject = subject
        """Whom the issuer calls by that name; the same whenever the credential is replaced."""
        self.credential = credential
        self.csrf_token = secrets.token_urlsafe(ID_BYTES)
        """What a request that changes something has to repeat: pages of other sites cannot read it."""
        self.refresh_token = refresh_token
        self.renew_at: float | None = None
        """When the credential is to be replaced, by the clock of the sessions; None for one that never is."""
        self.ends_at = ends_at
        self.used_at = float("-inf")
        self.renewing = asyncio.Lock()
        self.ended = asyncio.Event()


class Sessions:
    """The sessions of a console, by a digest of their id: they end after `seconds_max`, and when they were
    not used for `idle_seconds_max`."""

    def __init__(
        self,
        *,
        seconds_max: float,
        idle_seconds_max: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.clock = clock
        self._seconds_max = seconds_max
        self._idle_seconds_max = idle_seconds_max
        self._by_digest: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_digest)

    def begin(
        self,
        actor: str,
        credential: str,
        *,
        refresh_token: str | None = None,
        subject: str | None = None,
        valid_seconds: float | None = None,
    ) -> tuple[str, Session]:
        """Begin a session, and return it with its new id. Without a `refresh_token` it ends with its
        credential, after `valid_seconds`."""
        now = self.clock()
        ends_at = now + self._seconds_max
        if refresh_token is None and valid_seconds is not None:
            ends_at = min(ends_at, now + valid_seconds)
        session = Session(
            actor=actor,
            credential=credential,
            ends_at=ends_at,
            refresh_token=refresh_token,
            subject=subject,
        )
        session.used_at = now
        self.replace_credential(session, credential, refresh_token, valid_seconds)
        self._make_room(actor)
        session_id = secrets.token_urlsafe(ID_BYTES)
        self._by_digest[_digest(session_id)] = session
        return session_id, session

    def find(self, session_id: str) -> Session | None:
        """Return the session with this id, and note that it is used; None if there is none."""
        session = self._by_digest.get(_digest(session_id))
        if session is None or self._end_if_over(session):
            return None
        session.used_at = self.clock()
        return session

    def replace_credential(
        self,
        session: Session,
        credential: str,
        refresh_token: str | None,
        valid_seconds: float | None,
    ) -> None:
        """Give a session another credential, to be renewed before `valid_seconds` are over."""
        session.credential, session.refresh_token = credential, refresh_token
        session.renew_at = None
        if refresh_token is not None and valid_seconds is not None:
            session.renew_at = self.clock() + max(valid_seconds - RENEWED_BEFORE, valid_seconds / 2)

    def end(self, session: Session) -> None:
        """End a session: its credential is forgotten, and its streams are closed."""
        session.ended.set()
        session.credential = ""
        session.refresh_token = None
        for digest in [each for each, found in self._by_digest.items() if found is session]:
            del self._by_digest[digest]

    async def wait_for_end(self, session: Session) -> None:
        """Return when the session has ended, or when its time is over."""
        while not self._end_if_over(session):
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._over_at(session) - self.clock())):
                    await session.ended.wait()

    def _over_at(self, session: Session) -> float:
        return min(session.ends_at, session.used_at + self._idle_seconds_max)

    def _end_if_over(self, session: Session) -> bool:
        if not session.ended.is_set() and self.clock() >= self._over_at(session):
            self.end(session)
        return session.ended.is_set()

    def _make_room(self, actor: str) -> None:
        for session in list(self._by_digest.values()):
            self._end_if_over(session)
        own = [each for each in self._by_digest.values() if each.actor == actor]
        for session in own[: max(0, len(own) - OF_ONE_PERSON_MAX + 1)]:
            self.end(session)
        if len(self._by_digest) >= SESSIONS_MAX:
            self.end(next(iter(self._by_digest.values())))


def _digest(session_id: str) -> bytes:
    return sha256(session_id.encode(errors="replace")).digest()
