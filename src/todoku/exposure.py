"""Refuse to serve other machines without protection: TLS, and credentials of the callers."""

from collections.abc import Iterator
from typing import Final

from todoku.loopback import is_loopback
from todoku.settings import Settings, SettingsInvalid
from todoku.tls import require_tls

WITHOUT_CREDENTIALS: Final = (
    "host is {host}, which other machines reach, and whoever reaches a service may do everything: set auth to"
    " required (TODOKU_AUTH=required), and bootstrap_key_file to a file for the first API key"
    " (TODOKU_BOOTSTRAP_KEY_FILE). Or listen on 127.0.0.1."
)


def require_protection(settings: Settings) -> None:
    """Raise `SettingsInvalid` if other machines reach the services, and something is missing for that."""
    problems = [text for _, text in unprotected(settings)]
    if problems:
        raise SettingsInvalid(problems)


def unprotected(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what is missing to serve other machines, and what to do about it."""
    loopback = is_loopback(settings.host)
    try:
        require_tls(settings, loopback=loopback)
    except SettingsInvalid as invalid:
        yield "TLS", invalid.problems[0]
    if not loopback and settings.auth != "required":
        yield "authentication", WITHOUT_CREDENTIALS.format(host=settings.host)
