"""Check who reaches the services, and whether what they send can be read on its way."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from todoku.diagnosis import CheckResult, ok, warning, wrong
from todoku.exposure import unprotected
from todoku.loopback import is_loopback
from todoku.settings import Settings
from todoku.tls import ServerCertificate, TlsUnusable, public_context

DAYS_LEFT_MIN = 14


def exposure(settings: Settings) -> Iterator[CheckResult]:
    """Check that services that other machines reach have TLS and ask for credentials, and that their
    certificate is valid."""
    missing = dict(unprotected(settings))
    if missing:
        found = f"{settings.host}, without {' and '.join(missing)}"
        yield wrong("exposure", found, fix=" ".join(missing.values()))
    else:
        protection = _protection(settings, loopback=is_loopback(settings.host))
        yield ok("exposure", f"{settings.host}, {protection}")
    if settings.tls_cert is not None:
        yield _certificate(settings, settings.tls_cert, datetime.now(UTC))


def issuer(settings: Settings) -> Iterator[CheckResult]:
    """Check that the keys of the issuer of access tokens can be read, if there is one."""
    if settings.oidc_issuer is None:
        return
    import asyncio

    from todoku.identity.tokens import KeySetUnusable, read_key_set
    from todoku.web.issuer_keys import IssuerUnavailable, fetch_over_http

    try:
        trusted = public_context(settings.oidc_ca)
        fetch = fetch_over_http(settings.oidc_issuer, settings.oidc_jwks_url, trusted)
        keys = read_key_set(asyncio.run(fetch()))
    except (TlsUnusable, IssuerUnavailable, KeySetUnusable) as error:
        yield wrong(
            "issuer",
            f"its keys cannot be read: {error}",
            fix="correct oidc_issuer, oidc_jwks_url or oidc_ca, or start the issuer: no access token can be"
            " verified",
        )
    else:
        yield ok("issuer", f"{keys.size} usable keys of {settings.oidc_issuer}")


def _protection(settings: Settings, *, loopback: bool) -> str:
    if settings.tls_cert is not None:
        return "with TLS"
    if settings.behind_proxy:
        return "behind a proxy that ends TLS"
    return "only from this machine" if loopback else "without TLS"


def _certificate(settings: Settings, path: Path, now: datetime) -> CheckResult:
    try:
        ServerCertificate.of(settings)
        ends_at = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (TlsUnusable, OSError, ValueError) as error:
        return wrong("certificate", str(error), fix="correct tls_cert and tls_key")
    found = f"{path}, valid until {ends_at:%Y-%m-%d %H:%M} UTC"
    if ends_at < now:
        return wrong("certificate", found, fix="renew it: clients refuse the services")
    if (ends_at - now).days < DAYS_LEFT_MIN:
        return warning(
            "certificate", found, fix="renew it; services load the new file by themselves"
        )
    return ok("certificate", found)
