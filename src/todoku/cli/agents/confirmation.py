"""Tokens that a dry run gives out: without one nothing is changed, and each is good for one change."""

import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import msgspec

VALID_SECONDS: Final = 300
NONCE_BYTES: Final = 12
TIME_BYTES: Final = 8


class Unconfirmed(Exception):
    """The token does not confirm this change: what is wrong, and what to do."""


class Confirmations:
    """Issues and checks tokens, with a secret of this process.

    A token confirms one change: the tool, its arguments, the caller, and the state of what it is about.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        self._now = now

    def issue(self, change: Any, state: Any) -> str:
        """Return a token for a change while what it is about is in this state."""
        ends = int(self._now()) + VALID_SECONDS
        head = ends.to_bytes(TIME_BYTES, "big") + secrets.token_bytes(NONCE_BYTES)
        return urlsafe_b64encode(head + self._mac(head, change, state)).decode().rstrip("=")

    def check(self, token: str, change: Any, state: Any) -> str:
        """Return the idempotency key of a confirmed change, the same for the same token. Raises
        `Unconfirmed`."""
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raw = b""
        head, mac = raw[: TIME_BYTES + NONCE_BYTES], raw[TIME_BYTES + NONCE_BYTES :]
        if not hmac.compare_digest(mac, self._mac(head, change, state)):
            raise Unconfirmed(
                "The token is not that of a dry run of this very change, or what the change is about is not"
                " as it was then. Nothing was changed. Call the tool without confirm, and read the new dry"
                " run."
            )
        if int.from_bytes(head[:TIME_BYTES], "big") < self._now():
            raise Unconfirmed(
                f"The dry run is more than {VALID_SECONDS} s old. Nothing was changed. Call the tool without"
                " confirm, and read the new dry run."
            )
        return f"mcp-{sha256(raw).hexdigest()[:32]}"

    def _mac(self, head: bytes, change: Any, state: Any) -> bytes:
        text = head + msgspec.json.encode([change, state], order="sorted")
        return hmac.new(self._secret, text, sha256).digest()
