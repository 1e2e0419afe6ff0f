"""Who connects to the broker: what the settings say about credentials and TLS, as nats-py takes it."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from todoku.broker.credentials import SeedUnusable, folder_of, read_seed, seed_path
from todoku.broker.permissions import inbox_of
from todoku.broker.port import BrokerUnsuitable
from todoku.settings import Settings
from todoku.settings.nats import SERVICE


def connection_options(settings: Settings, name: str) -> dict[str, Any]:
    """Return what nats-py's `connect` takes for a service, or for `up` or `reader`.

    Files are read each time, so that new ones take effect with the next connection. Raises
    `BrokerUnsuitable` for one that cannot be used.
    """
    if settings.nats_url is None:
        return _of_embedded(settings, name)
    return dict(_of_external(settings, name))


def _of_embedded(settings: Settings, name: str) -> dict[str, Any]:
    """Return the credential that `todoku up` made. Without one, the server may be somebody's own."""
    path = seed_path(folder_of(settings.data_dir), name)
    return {**_seed(path), "inbox_prefix": inbox_of(name)} if path.exists() else {}


def _of_external(settings: Settings, name: str) -> Iterator[tuple[str, Any]]:
    if (seed := settings.nats_seed_file) is not None:
        yield from _seed(_named(seed, name)).items()
    if (creds := settings.nats_creds_file) is not None:
        yield "user_credentials", str(_readable(_named(creds, name), "nats_creds_file"))
    if settings.nats_user is not None and settings.nats_password_file is not None:
        path = _named(settings.nats_password_file, name)
        yield "user", settings.nats_user
        yield "password", _secret(path, "nats_password_file")
    if (token := settings.nats_token_file) is not None:
        yield "token", _secret(_named(token, name), "nats_token_file")
    if settings.nats_ca_file is not None or settings.nats_cert_file is not None:
        yield "tls", _tls(settings, name)


def _seed(path: Path) -> dict[str, Any]:
    try:
        return {"nkeys_seed_str": read_seed(path)}
    except SeedUnusable as error:
        raise BrokerUnsuitable(str(error)) from error


def _tls(settings: Settings, name: str) -> ssl.SSLContext:
    ca, certificate, key = settings.nats_ca_file, settings.nats_cert_file, settings.nats_key_file
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if certificate is not None and key is not None:
            context.load_cert_chain(_named(certificate, name), _named(key, name))
    except OSError as error:  # Also what OpenSSL says about the content.
        raise BrokerUnsuitable(
            f"the certificates for NATS cannot be used ({error.strerror or error}): check nats_ca_file,"
            " nats_cert_file and nats_key_file"
        ) from error
    return context


def _named(path: Path, name: str) -> Path:
    return Path(str(path).replace(SERVICE, name))


def _secret(path: Path, setting: str) -> str:
    try:
        return _readable(path, setting).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise BrokerUnsuitable(f"{path} ({setting}) is not UTF-8: correct it") from error


def _readable(path: Path, setting: str) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise BrokerUnsuitable(
            f"{path} ({setting}) cannot be read: {error.strerror}; correct it there"
        ) from error
