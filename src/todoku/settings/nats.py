"""Define the settings of credentials and TLS for an external broker. Secrets are in files only."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from todoku.settings.edge import EdgeSettings
from todoku.settings.types import ApiPrefix, UserName

SERVICE = "{service}"
"""Stands for the name of the service in the path of a file."""

IDENTITIES = ("nats_seed_file", "nats_creds_file", "nats_user", "nats_token_file")
"""The settings that each say alone who connects."""

EACH = f" {SERVICE} in it stands for the name of the service; `todoku doctor` is `reader`."


def _file(description: str) -> Any:
    return Meta(description=description, extra={"allowed": "a path"})


class NatsSettings(EdgeSettings, frozen=True, kw_only=True):
    """The settings of credentials and TLS for an external broker."""

    nats_seed_file: Annotated[
        Path | None,
        _file("The file with the seed (nkey) with which a service connects to NATS." + EACH),
    ] = None
    nats_creds_file: Annotated[
        Path | None,
        _file("The `.creds` file of a NATS user: a JWT and its seed." + EACH),
    ] = None
    nats_user: Annotated[
        UserName | None, Meta(description="The user's name, where NATS has passwords.")
    ] = None
    nats_password_file: Annotated[
        Path | None, _file("The file with the password of `nats_user`." + EACH)
    ] = None
    nats_token_file: Annotated[Path | None, _file("The file with the token of NATS.")] = None

    nats_api_prefix: Annotated[
        ApiPrefix,
        Meta(
            description="Where JetStream takes requests of the services' NATS users. Servers that"
            " `todoku broker-config` configures take them at `$TODOKU.API`."
        ),
    ] = "$JS.API"

    nats_ca_file: Annotated[
        Path | None,
        _file(
            "The certificates (PEM) of those who sign the NATS servers' certificates; without one, the"
            " system's. Given, TLS is required."
        ),
    ] = None
    nats_cert_file: Annotated[
        Path | None,
        _file("The certificate (PEM) that a service shows to NATS. Given, TLS is required." + EACH),
    ] = None
    nats_key_file: Annotated[
        Path | None, _file("The private key (PEM) of that certificate." + EACH)
    ] = None


def contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what cannot be together."""
    given = [name for name in IDENTITIES if values.get(name) is not None]
    if len(given) > 1:
        yield f"{' and '.join(given)} each say who connects to NATS: set one of them."
    for name, other in (
        ("nats_user", "nats_password_file"),
        ("nats_password_file", "nats_user"),
        ("nats_cert_file", "nats_key_file"),
        ("nats_key_file", "nats_cert_file"),
    ):
        if values.get(name) is not None and values.get(other) is None:
            yield f"{name} is set without {other}: set both or none."
    if given and values.get("nats_url") is None:
        yield (
            f"{given[0]} is for an external broker, and nats_url names none: set nats_url. The embedded"
            " broker has credentials of its own."
        )
