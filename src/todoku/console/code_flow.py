"""Log somebody in at the OIDC issuer: authorization code flow with PKCE (RFC 6749, RFC 7636, OpenID Connect
Core 1.0)."""

import base64
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus, urlencode

import httpx
import msgspec
import structlog
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from todoku.console.cookies import LOGIN_SECONDS
from todoku.identity.tokens import Expected, KeyUnknown, TokenRefused, verify
from todoku.web.issuer_keys import (
    IssuerKeys,
    IssuerUnavailable,
    answering,
    client_of,
    endpoint,
    read_metadata,
)

RANDOM_BYTES: Final = 32
USED_STATES_MAX: Final = 10_000

_SEALED: Final = {"alg": "dir", "enc": "A256GCM"}

log = structlog.get_logger(__name__)


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """What the console is to the issuer: a confidential client if it has a secret."""

    id: str
    secret_file: Path | None
    scope: str
    issuer: str
    audience: str
    leeway_seconds: float

    def secret(self) -> str | None:
        """Return the secret, as its file has it now. Raises `IssuerUnavailable`."""
        if self.secret_file is None:
            return None
        try:
            return self.secret_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise IssuerUnavailable(
                f"the file of oidc_console_client_secret_file cannot be read: {error}"
            ) from error


class Tokens(NamedTuple):
    """What the issuer gives for a code, or for a refresh token."""

    access_token: str
    valid_seconds: float | None
    refresh_token: str | None
    subject: str | None


class Begun(msgspec.Struct, frozen=True):
    """A login that has begun; sealed in a cookie of the browser that has begun it."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    target: str
    until: float


class LoginRefused(Exception):
    """Somebody is not logged in; `code` says why, for the page."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class CodeFlow:
    """Logs people in. All calls are made in one event loop."""

    def __init__(
        self, client: Client, keys: IssuerKeys, trusted: SSLContext, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._keys = keys
        self._trusted = trusted
        self._now = now
        self._seal = OctKey.import_key(secrets.token_bytes(RANDOM_BYTES))
        self._used: dict[str, float] = {}

    async def begin(self, redirect_uri: str, target: str) -> tuple[str, str]:
        """Return where the browser logs in, and what it has to bring back in a cookie. Raises
        `IssuerUnavailable`."""
        begun = Begun(
            state=secrets.token_urlsafe(RANDOM_BYTES),
            nonce=secrets.token_urlsafe(RANDOM_BYTES),
            verifier=secrets.token_urlsafe(RANDOM_BYTES),
            redirect_uri=redirect_uri,
            target=target,
            until=self._now().timestamp() + LOGIN_SECONDS,
        )
        address = endpoint(await self._metadata(), "authorization_endpoint", self._client.issuer)
        parameters = {
            "response_type": "code",
            "client_id": self._client.id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys(["openid", *self._client.scope.split()])),
            "audience": self._client.audience,  # Some issuers need it; others ignore it (RFC 6749, 3.1).
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": _challenge(begun.verifier),
            "code_challenge_method": "S256",
        }
        sealed = jwe.encrypt_compact(_SEALED, msgspec.json.encode(begun), self._seal)
        return f"{address}{'&' if '?' in address else '?'}{urlencode(parameters)}", sealed

    async def finish(self, sealed: str | None, given: Mapping[str, str]) -> tuple[Tokens, str]:
        """Return the tokens for the code with which the browser comes back, and where it wanted to go.

        Raises `LoginRefused` and `IssuerUnavailable`.
        """
        begun = self._open(sealed)
        if begun is None or not compare_digest(begun.state, given.get("state", "")):
            raise LoginRefused("state", "this browser has not begun this login, or too long ago")
        if given.get("iss", self._client.issuer) != self._client.issuer:
            raise LoginRefused("state", "the response is that of another issuer")
        self._use(begun)
        if "error" in given:
            raise LoginRefused("denied", f"the issuer says {given['error'][:100]!r}")
        answer = await self._ask_for_tokens(
            {
                "grant_type": "authorization_code",
                "code": given.get("code", ""),
                "redirect_uri": begun.redirect_uri,
                "code_verifier": begun.verifier,
            }
        )
        claims = await self._id_token_claims(answer)
        if not compare_digest(str(claims.get("nonce", "")), begun.nonce):
            raise LoginRefused("token", "the ID token was issued for another login (nonce)")
        return _tokens(answer, claims), begun.target

    async def refresh(self, refresh_token: str, subject: str | None) -> Tokens:
        """Return new tokens of the same person. Raises `LoginRefused` if the issuer gives none any more, and
        `IssuerUnavailable`."""
        answer = await self._ask_for_tokens(
            {"grant_type": "refresh_token", "refresh_token": refresh_token}
        )
        claims = await self._id_token_claims(answer) if "id_token" in answer else {}
        if claims.get("sub", subject) != subject:
            raise LoginRefused("token", "the issuer has sent tokens of somebody else")
        renewed = _tokens(answer, claims)
        return renewed._replace(refresh_token=renewed.refresh_token or refresh_token)

    async def revoke(self, refresh_token: str) -> None:
        """Tell the issuer that a refresh token is not needed any more, if it wants to know (RFC 7009)."""
        form = {"token": refresh_token, "token_type_hint": "refresh_token"}
        try:
            metadata = await self._metadata()
            if "revocation_endpoint" in metadata:
                address = endpoint(metadata, "revocation_endpoint", self._client.issuer)
                await self._post(address, form, metadata)
        except IssuerUnavailable as error:
            log.warning("refresh_token_not_revoked", reason=str(error))

    def _open(self, sealed: str | None) -> Begun | None:
        """Return the login that was sealed; None if it was not sealed here, is too old, or was used."""
        try:
            plain = jwe.decrypt_compact(sealed or "", self._seal).plaintext
            begun = msgspec.json.decode(plain or b"", type=Begun)
        except (JoseError, ValueError, TypeError, msgspec.DecodeError):
            return None
        is_over = begun.state in self._used or self._now().timestamp() >= begun.until
        return None if is_over else begun

    def _use(self, begun: Begun) -> None:
        """Note that this login has ended: its state counts once."""
        now = self._now().timestamp()
        self._used = {state: until for state, until in self._used.items() if until > now}
        if len(self._used) >= USED_STATES_MAX:
            del self._used[next(iter(self._used))]
        self._used[begun.state] = begun.until

    async def _id_token_claims(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the claims of the ID token, which has to be for this client. Raises `LoginRefused`."""
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginRefused("token", "the issuer has sent no ID token")
        expected = Expected(
            issuer=self._client.issuer,
            audience=self._client.id,
            leeway_seconds=self._client.leeway_seconds,
        )
        try:
            try:
                claims = verify(token, await self._keys.current(), expected, self._now())
            except KeyUnknown:
                claims = verify(token, await self._keys.newer(), expected, self._now())
        except TokenRefused as refused:
            raise LoginRefused("token", f"ID token: {refused}") from refused
        if claims.get("azp", self._client.id) != self._client.id:
            raise LoginRefused("token", "the ID token was issued to another client (azp)")
        return claims

    async def _ask_for_tokens(self, form: dict[str, str]) -> dict[str, Any]:
        metadata = await self._metadata()
        address = endpoint(metadata, "token_endpoint", self._client.issuer)
        response = await self._post(address, form, metadata)
        try:
            answer = msgspec.json.decode(response.content, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise IssuerUnavailable(f"no JSON object from {address}") from error
        if response.is_server_error:
            raise IssuerUnavailable(f"{response.status_code} from {address}")
        if response.status_code != httpx.codes.OK:
            raise LoginRefused("token", f"the issuer says {str(answer.get('error'))[:100]!r}")
        return answer

    async def _post(
        self, address: str, form: dict[str, str], metadata: Mapping[str, Any]
    ) -> httpx.Response:
        secret = self._client.secret()
        form = {**form, "client_id": self._client.id}
        headers = {"Accept": "application/json"}
        if secret is not None:
            if _takes_basic(metadata):
                pair = f"{quote_plus(self._client.id)}:{quote_plus(secret)}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            else:
                form["client_secret"] = secret
        with answering():
            async with client_of(self._client.issuer, self._trusted) as client:
                return await client.post(address, data=form, headers=headers)

    async def _metadata(self) -> dict[str, Any]:
        with answering():
            async with client_of(self._client.issuer, self._trusted) as client:
                return await read_metadata(client, self._client.issuer)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")


def _takes_basic(metadata: Mapping[str, Any]) -> bool:
    """Return whether the issuer takes the client's secret in a header, which is the default."""
    methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return "client_secret_basic" in methods or "client_secret_post" not in methods


def _tokens(answer: Mapping[str, Any], claims: Mapping[str, Any]) -> Tokens:
    access, refresh, seconds = (
        answer.get(name) for name in ("access_token", "refresh_token", "expires_in")
    )
    if not isinstance(access, str) or not access.isascii() or not access.isprintable():
        raise LoginRefused("token", "the issuer has sent no access token")
    return Tokens(
        access,
        float(seconds) if isinstance(seconds, int | float) and seconds > 0 else None,
        refresh if isinstance(refresh, str) and refresh else None,
        claims.get("sub"),
    )
