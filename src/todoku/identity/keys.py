"""API keys: `tdk_<id>_<secret>`. The secret is shown once; only its digest is kept."""

import hmac
import re
import secrets
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

PREFIX: Final = "tdk_"
SECRET_BYTES: Final = 32
ID_BYTES: Final = 8

_match = re.compile(r"tdk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})").fullmatch
is_key_id = re.compile(r"[0-9a-f]{16}").fullmatch
is_digest = re.compile(r"[0-9a-f]{64}").fullmatch


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is kept: `digest` is the SHA-256 of its secret, `owner` whom it stands for."""

    id: str
    digest: str
    owner: str
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def version(self) -> int:
        """Which state of the key this is: a later one replaces an earlier one."""
        return 1 if self.revoked_at is None else 2

    def refusal(self, now: datetime) -> str | None:
        """Return why the key is not valid now, None if it is."""
        if self.revoked_at is not None:
            return "The key is revoked."
        if self.expires_at is not None and self.expires_at <= now:
            return "The key has expired."
        return None


def new_key() -> tuple[str, str]:
    """Return a new key, and its id."""
    key_id = secrets.token_hex(ID_BYTES)
    return f"{PREFIX}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}", key_id


def parse(key: str) -> tuple[str, str] | None:
    """Return the id of a key and the digest of its secret; None if it is no API key."""
    match = _match(key)
    return None if match is None else (match[1], sha256(match[2].encode()).hexdigest())


def same(digest: str, other: str) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(digest.encode(), other.encode())
