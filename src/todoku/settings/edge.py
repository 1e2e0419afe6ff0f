"""Define the settings of the edge: rate limits, TLS, proxies and pages of other sites."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from todoku.settings.oidc import OidcSettings


class EdgeSettings(OidcSettings, frozen=True, kw_only=True):
    """The settings of the HTTP edge, which every system has."""

    behind_proxy: Annotated[
        bool,
        Meta(
            description="Clients reach the services through a proxy only, which ends TLS and sets"
            " X-Forwarded-For (or Forwarded) to the client's address. Without it these headers are ignored."
        ),
    ] = False

    tls_cert: Annotated[
        Path | None,
        Meta(
            description="The certificate of the services (PEM, followed by those of its issuers), with which"
            " they speak HTTPS; loaded again when the file changes.",
            extra={"allowed": "the path of a PEM file"},
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        Meta(
            description="The private key of the certificate (PEM, without a password).",
            extra={"allowed": "the path of a PEM file"},
        ),
    ] = None
    tls_ca: Annotated[
        Path | None,
        Meta(
            description="The certificate authorities that commands trust when they call a service at --url,"
            " and the console when it calls those of `console_services`; without one, those of the system.",
            extra={"allowed": "the path of a PEM file"},
        ),
    ] = None

    cors_origins: Annotated[
        str,
        Meta(
            pattern=r"^(\s*https?://[A-Za-z0-9._\[\]:-]+\s*(,|\Z))*\Z",
            max_length=10_000,
            description="Origins of pages on other sites that may call the services from a browser, joined by"
            " commas: `https://shop.example`. None by default.",
            extra={"allowed": "origins (https://HOST), joined by commas"},
        ),
    ] = ""

    rate_limits: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Whether each caller's requests are limited; auto: unless the services listen on a"
            " loopback address and have no accounts."
        ),
    ] = "auto"
    rate_limit_requests_per_second: Annotated[
        float,
        Meta(ge=0.01, le=1_000_000, description="How many requests a second one caller may send."),
    ] = 500.0
    rate_limit_burst_requests: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="How many requests one caller may send at once after a pause.",
        ),
    ] = 1_000
    rate_limit_costly_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="How many costly requests a minute one caller may send: those that retry, send or"
            " publish everything again, and those that make keys.",
        ),
    ] = 30
    rate_limit_failures_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="How many requests with wrong credentials a minute are answered with 401 for one"
            " address; the next are answered with 429.",
        ),
    ] = 30

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins whose pages may call the services."""
        return tuple(filter(None, map(str.strip, self.cors_origins.split(","))))
