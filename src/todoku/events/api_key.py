"""The base of the events that tell of API keys."""

from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

from todoku.events.event import Event, Personal

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class ApiKeyEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """An API key was created, or revoked: `digest` is the SHA-256 of its secret in hexadecimal, `owner` whom
    it stands for. Of two events about a key, the one with the higher `version` is valid."""

    key_field: ClassVar[str] = "key_id"

    key_id: str
    version: int
    digest: str
    owner: Annotated[str, Personal]
    scopes: tuple[str, ...]
    created_at: Time
    expires_at: Time | None = None
    revoked_at: Time | None = None

    @property
    def fact(self) -> str:
        """Return the name of the fact: a key is created once, and revoked once."""
        return f"{type(self).__name__} {self.version}"
