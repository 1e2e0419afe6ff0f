"""The keys of an OIDC issuer: read over HTTP, kept, and read again when they may have changed."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from todoku.identity.tokens import KeySet, read_key_set
from todoku.loopback import is_loopback

FRESH_SECONDS: Final = 300.0
"""How old keys may be before they are read again, while the old ones are used."""

KEPT_SECONDS: Final = 86_400.0
"""How long keys are used while the issuer does not answer."""

PAUSE_SECONDS: Final = 5.0
"""The least time between two reads, whoever asks: so unknown keys are no way to flood the issuer."""

ANSWER_SECONDS_MAX: Final = 5.0
DOCUMENT_BYTES_MAX: Final = 512 * 1024

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"

log = structlog.get_logger(__name__)

Fetch = Callable[[], Coroutine[Any, Any, bytes]]
"""Return the JWKS of an issuer. Raises `IssuerUnavailable`."""


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be had."""


class IssuerKeys:
    """The keys of an issuer. All calls are made in one event loop."""

    def __init__(
        self, fetch: Fetch, issuer: str, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._fetch = fetch
        self._issuer = issuer
        self._clock = clock
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._failing = False

    async def current(self) -> KeySet:
        """Return the keys as they are known. Waits for the issuer only where none are known.

        Raises `IssuerUnavailable`.
        """
        age = self._clock() - self._read_at
        if age > FRESH_SECONDS:
            self.refresh()
        if (self._keys is None or age > KEPT_SECONDS) and self._reading is not None:
            await asyncio.shield(self._reading)
        if self._keys is None or self._clock() - self._read_at > KEPT_SECONDS:
            raise IssuerUnavailable(f"The keys of {self._issuer} are not known yet.")
        return self._keys

    async def newer(self) -> KeySet:
        """Return the keys, read once more if that was not tried just now. Raises `IssuerUnavailable`."""
        self.refresh()
        if self._reading is not None:
            await asyncio.shield(self._reading)
        return await self.current()

    def refresh(self) -> None:
        """Begin to read the keys, unless that is under way or was tried just now."""
        if self._reading is None and self._clock() - self._tried_at >= PAUSE_SECONDS:
            self._tried_at = self._clock()
            self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        try:
            document = await self._fetch()
            if self._keys is None or document != self._keys.source:
                self._keys = read_key_set(document)
                log.info("oidc_keys_read", issuer=self._issuer, keys=self._keys.size)
            self._read_at = self._clock()
            self._failing = False
        except Exception as error:  # whatever it answers: the keys that are known stay in use
            if not self._failing:
                log.warning("oidc_keys_unavailable", issuer=self._issuer, reason=str(error))
            self._failing = True
        finally:
            self._reading = None


def fetch_over_http(issuer: str, jwks_url: str | None, trusted: ssl.SSLContext) -> Fetch:
    """Return how the keys of an issuer are read: at `jwks_url`, else where its metadata says (OpenID Connect
    Discovery 1.0)."""

    async def fetch() -> bytes:
        with answering():
            async with client_of(issuer, trusted) as client:
                if jwks_url is not None:
                    return await _get(client, jwks_url)
                found = await read_metadata(client, issuer)
                return await _get(client, endpoint(found, "jwks_uri", issuer))

    return fetch


@contextlib.asynccontextmanager
async def client_of(issuer: str, trusted: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client for a few requests to an issuer, which follows no redirects."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # It logs every request.
    client = httpx.AsyncClient(
        verify=trusted,
        timeout=ANSWER_SECONDS_MAX,
        follow_redirects=False,
        # No proxy that the environment names is asked for what is on this machine.
        trust_env=not is_loopback(urlsplit(issuer).hostname or ""),
    )
    async with asyncio.timeout(2 * ANSWER_SECONDS_MAX), client:
        yield client


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Raise `IssuerUnavailable` for whatever may go wrong on the way to an issuer."""
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise IssuerUnavailable("it does not answer in time") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise IssuerUnavailable(str(error) or type(error).__name__) from error


async def read_metadata(client: httpx.AsyncClient, issuer: str) -> dict[str, Any]:
    """Return what an issuer says of itself (OpenID Connect Discovery 1.0). Raises `IssuerUnavailable`."""
    address = issuer.rstrip("/") + DISCOVERY_PATH
    try:
        found = msgspec.json.decode(await _get(client, address), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise IssuerUnavailable(f"no JSON object at {address}") from error
    if found.get("issuer") != issuer:
        raise IssuerUnavailable(
            f"its metadata names the issuer {found.get('issuer')!r}, and oidc_issuer has to be the same"
        )
    return found


def endpoint(metadata: Mapping[str, Any], name: str, issuer: str) -> str:
    """Return an address that the metadata of an issuer has. Raises `IssuerUnavailable`."""
    address = metadata.get(name)
    if not isinstance(address, str) or not _is_as_safe(address, issuer):
        raise IssuerUnavailable(f"no {name} with https at {issuer.rstrip('/') + DISCOVERY_PATH}")
    return address


def _is_as_safe(address: str, issuer: str) -> bool:
    """Return whether what is read there cannot be changed on its way."""
    parts = urlsplit(address)
    if parts.scheme == "https":
        return True
    return parts.scheme == "http" and all(
        is_loopback(urlsplit(each).hostname or "") for each in (address, issuer)
    )


async def _get(client: httpx.AsyncClient, address: str) -> bytes:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with client.stream("GET", address, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            raise IssuerUnavailable(f"{response.status_code} from {address}")
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > DOCUMENT_BYTES_MAX:
                raise IssuerUnavailable(f"more than {DOCUMENT_BYTES_MAX:,} bytes from {address}")
        return bytes(body)
