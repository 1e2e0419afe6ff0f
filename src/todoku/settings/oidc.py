"""Define the settings of OIDC access tokens: who issues them, and what their claims permit."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

_LOOPBACK = r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
_ALLOWED = "an address with https (or http on this machine)"

IssuerUrl = Annotated[
    str,
    Meta(
        pattern=rf"^(https://[^\s?#@]+|{_LOOPBACK}(/[^\s?#@]*)?)\Z",
        extra={"allowed": _ALLOWED},
    ),
]
KeysUrl = Annotated[
    str,
    Meta(pattern=rf"^(https://[^\s#@]+|{_LOOPBACK}(/[^\s#@]*)?)\Z", extra={"allowed": _ALLOWED}),
]
Audience = Annotated[str, Meta(min_length=1, extra={"allowed": "a text"})]
ClientId = Annotated[str, Meta(min_length=1, max_length=1_000, extra={"allowed": "a text"})]
Claim = Annotated[str, Meta(pattern=r"^\S+\Z", extra={"allowed": "the name of a claim"})]


class OidcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of OIDC access tokens, which every system has."""

    oidc_issuer: Annotated[
        IssuerUrl | None,
        Meta(
            description="The issuer whose access tokens are accepted beside API keys, exactly as their claim"
            " `iss` has it. Its keys are found by its metadata."
        ),
    ] = None
    oidc_audience: Annotated[
        Audience | None,
        Meta(
            description="What the claim `aud` of access tokens has to contain: the name that the issuer knows"
            " Todoku by, and no other program."
        ),
    ] = None
    oidc_jwks_url: Annotated[
        KeysUrl | None,
        Meta(description="Where the issuer's keys are (JWKS), if it has no metadata."),
    ] = None
    oidc_ca: Annotated[
        Path | None,
        Meta(
            description="The certificate authorities that services trust when they call the issuer; without"
            " one, those of the system.",
            extra={"allowed": "the path of a PEM file"},
        ),
    ] = None
    oidc_scopes_claim: Annotated[
        Claim, Meta(description="The claim with the scopes of an access token.")
    ] = "scope"
    oidc_roles_claim: Annotated[
        Claim | None,
        Meta(
            description="The claim with the roles of an access token (customer, staff, operator, service), by"
            " its name, or by a path with dots: `realm_access.roles`. Without it, no token has roles."
        ),
    ] = None
    oidc_leeway_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=300,
            description="How far the clocks of issuer and services may differ, in seconds.",
        ),
    ] = 30.0
    oidc_console_client_id: Annotated[
        ClientId | None,
        Meta(
            description="The client as which the console logs people in at the issuer (authorization code"
            " flow with PKCE). Without it, they log in with an API key.",
            extra={"allowed": "a text"},
        ),
    ] = None
    oidc_console_client_secret_file: Annotated[
        Path | None,
        Meta(
            description="The file with the secret of that client, if it is a confidential one; without it,"
            " it is a public client.",
            extra={"allowed": "the path of a file"},
        ),
    ] = None
    oidc_console_scope: Annotated[
        str,
        Meta(
            pattern=r"^[!#-\[\]-~]+( [!#-\[\]-~]+)*\Z",
            max_length=2_000,
            description="The scopes that the console asks the issuer for; `openid` is added.",
            extra={"allowed": "scopes, joined by spaces"},
        ),
    ] = "openid"


def contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with settings of access tokens that are good alone and bad together."""
    if values.get("oidc_console_client_secret_file") and not values.get("oidc_console_client_id"):
        yield (
            "oidc_console_client_secret_file is set, but not oidc_console_client_id: nobody logs in with it."
            " Set oidc_console_client_id."
        )
    given = [
        name
        for name in (
            "oidc_audience",
            "oidc_jwks_url",
            "oidc_ca",
            "oidc_roles_claim",
            "oidc_console_client_id",
        )
        if values.get(name) is not None
    ]
    if values.get("oidc_issuer") is None:
        if given:
            yield f"{given[0]} is set, but not oidc_issuer: no access token is accepted. Set oidc_issuer."
        return
    if values.get("oidc_audience") is None:
        yield (
            "oidc_issuer is set, but not oidc_audience: tokens that it issues for other programs would be"
            " accepted. Set oidc_audience."
        )
    if values.get("auth", "none") != "required":
        yield "oidc_issuer is set, but credentials are not looked at (auth = none). Set auth to required."
