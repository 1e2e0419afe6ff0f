"""Verify OIDC access tokens with the keys of their issuer: no request asks the issuer."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple

from todoku.identity import Caller
from todoku.identity.claims import ClaimNames, caller_of
from todoku.identity.tokens import Expected, KeySet, KeyUnknown, TokenRefused, verify
from todoku.settings import Settings
from todoku.tls import public_context
from todoku.web.guard import Authenticate, unauthenticated
from todoku.web.issuer_keys import PAUSE_SECONDS, IssuerKeys, IssuerUnavailable, fetch_over_http
from todoku.web.problems import ISSUER_UNAVAILABLE, Problem

REMEMBERED_MAX: Final = 2_000
"""How many verified tokens are remembered: a signature costs more than the rest of a request's check."""

API_KEY_PREFIX: Final = "tdk_"


class _Verified(NamedTuple):
    caller: Caller
    until: datetime


class AccessTokens:
    """The access tokens of one issuer."""

    def __init__(
        self,
        keys: IssuerKeys,
        expected: Expected,
        names: ClaimNames,
        now: Callable[[], datetime],
    ) -> None:
        self._keys = keys
        self._expected = expected
        self._names = names
        self._now = now
        self._leeway = timedelta(seconds=int(expected.leeway_seconds))
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._verified_with: KeySet | None = None

    async def __call__(self, token: str) -> Caller:
        """Return who has this token. Raises `Problem` (401; 503 where no key of the issuer is known)."""
        now = self._now()
        try:
            keys = await self._keys.current()
            digest = sha256(token.encode()).digest()
            known = self._recall(keys, digest, now)
            return known or self._remember(digest, await self._verify(token, keys, now))
        except TokenRefused as refused:
            raise unauthenticated(str(refused), invalid=True) from refused
        except IssuerUnavailable as error:
            retry = {"Retry-After": str(int(PAUSE_SECONDS))}
            raise Problem(ISSUER_UNAVAILABLE, str(error), headers=retry) from error

    def begin(self) -> None:
        """Begin to read the issuer's keys, before the first token comes."""
        self._keys.refresh()

    async def _verify(self, token: str, keys: KeySet, now: datetime) -> _Verified:
        try:
            claims = verify(token, keys, self._expected, now)
        except KeyUnknown:
            keys = await self._keys.newer()
            claims = verify(token, keys, self._expected, now)
        caller = caller_of(claims, self._names)
        try:
            until = datetime.fromtimestamp(claims["exp"], now.tzinfo) + self._leeway
        except (OverflowError, ValueError, OSError):  # after the year 9999
            until = datetime.max.replace(tzinfo=now.tzinfo)
        return _Verified(caller, until)

    def _recall(self, keys: KeySet, digest: bytes, now: datetime) -> Caller | None:
        if keys is not self._verified_with:
            # A key that the issuer has withdrawn verifies nothing any more.
            self._verified.clear()
            self._verified_with = keys
        found = self._verified.get(digest)
        if found is None or now >= found.until:
            return None
        self._verified.move_to_end(digest)
        return found.caller

    def _remember(self, digest: bytes, verified: _Verified) -> Caller:
        self._verified[digest] = verified
        if len(self._verified) > REMEMBERED_MAX:
            self._verified.popitem(last=False)
        return verified.caller


def access_tokens(settings: Settings, now: Callable[[], datetime]) -> AccessTokens | None:
    """Return the access tokens that the settings name an issuer for, None if there is none.

    Raises `TlsUnusable`.
    """
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    trusted = public_context(settings.oidc_ca)
    fetch = fetch_over_http(settings.oidc_issuer, settings.oidc_jwks_url, trusted)
    return AccessTokens(
        IssuerKeys(fetch, settings.oidc_issuer),
        Expected(
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            leeway_seconds=settings.oidc_leeway_seconds,
        ),
        ClaimNames(settings.oidc_scopes_claim, settings.oidc_roles_claim),
        now,
    )


def keys_or_tokens(keyring: Authenticate, tokens: AccessTokens | None) -> Authenticate:
    """Return how credentials are verified: API keys by their prefix, all others as access tokens."""
    if tokens is None:
        return keyring

    async def authenticate(credential: str) -> Caller:
        verify = keyring if credential.startswith(API_KEY_PREFIX) else tokens
        return await verify(credential)

    return authenticate
