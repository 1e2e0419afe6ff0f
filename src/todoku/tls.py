"""TLS of the services: their certificate, loaded again when it changes, and how clients trust it."""

import asyncio
import ssl
from pathlib import Path
from typing import Final

import structlog

from todoku.settings import Settings, SettingsInvalid

CHECK_SECONDS: Final = 5.0
HANDSHAKE_SECONDS_MAX: Final = 10.0

log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


class TlsUnusable(OSError):
    """A certificate or its key cannot be used."""


class ServerCertificate:
    """The certificate of a server. Connections that are open keep theirs when it is loaded again."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._stamp = self._read_stamp()
        self._newest = _server_context(certificate, key)
        self.context = _server_context(certificate, key)
        """What the server listens with: each handshake is handed to the newest certificate."""
        self.context.sni_callback = self._use_newest  # It is also called without a name.

    @classmethod
    def of(cls, settings: Settings) -> "ServerCertificate | None":
        """Return the certificate that the settings name, None if they name none. Raises `TlsUnusable`."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key)

    async def watch(self) -> None:
        """Load the certificate again whenever its files change, for ever."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.reload_if_changed()

    def reload_if_changed(self) -> None:
        """Load the certificate again if its files have changed; if they are unusable, keep the old one."""
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp  # Before it is loaded: what is written meanwhile changes it again.
            self._newest = _server_context(*self._files)
        except TlsUnusable as error:
            log.error("certificate_not_reloaded", reason=str(error), advice="the old one is used")
        else:
            log.info("certificate_reloaded", certificate=str(self._files[0]))

    def _read_stamp(self) -> Stamp:
        try:
            found = [path.stat() for path in self._files]
        except OSError as error:
            raise TlsUnusable(f"{error.filename} cannot be read: {error.strerror}.") from error
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def _use_newest(self, connection: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        connection.context = self._newest


def require_tls(settings: Settings, *, loopback: bool) -> None:
    """Raise `SettingsInvalid` if requests can be read on their way: no TLS, and no proxy that ends it."""
    if loopback or settings.tls_cert is not None or settings.behind_proxy:
        return
    raise SettingsInvalid([EXPOSED.format(host=settings.host)])


EXPOSED: Final = (
    "host is {host}, which other machines reach, but there is no TLS: set tls_cert and tls_key, or set"
    " behind_proxy if clients reach the services only through a proxy that ends TLS. Or listen on 127.0.0.1."
)


def own_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how clients on this machine trust its own services; None if these have no TLS.

    They accept the very certificate of the settings and no other, whatever names it has: they call the
    services by their address. Raises `TlsUnusable`.
    """
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=_first_certificate(settings.tls_cert))
    return context


def public_context(authorities: Path | None) -> ssl.SSLContext:
    """Return how clients trust a service at a given address: by its name, and by these certificate
    authorities or those of the system. Raises `TlsUnusable`."""
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:  # ssl.SSLError is one, too.
        raise TlsUnusable(
            f"{authorities} has no usable CA certificates: {_reason(error)}"
        ) from error


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password, OpenSSL would ask for it at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise TlsUnusable(
            f"{certificate} and {key} are no usable certificate and key: {_reason(error)}"
        ) from error
    return context


def _first_certificate(path: Path) -> bytes:
    """Return the server's own certificate (DER); those of its issuers follow in the file."""
    try:
        text = path.read_text("ascii")
        end = text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        return ssl.PEM_cert_to_DER_cert(text[text.index(ssl.PEM_HEADER) : end])
    except (OSError, ValueError) as error:
        raise TlsUnusable(f"{path} is no usable certificate: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "it is not PEM."
    if not isinstance(error, ssl.SSLError):
        return f"{error.strerror}."
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate."
    return "they are not PEM, or the key has a password."
