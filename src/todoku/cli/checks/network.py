"""Check the network: ports, services and their clocks, and the broker."""

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from todoku.broker.connection import connection_options
from todoku.broker.embedded import PROBE_SUBJECT, VERSION_MIN
from todoku.broker.jetstream import JetStream
from todoku.broker.jetstream_api import NO_JETSTREAM
from todoku.broker.jetstream_messages import StreamInfo
from todoku.broker.nats_link import Link
from todoku.broker.permissions import READER
from todoku.broker.port import BrokerError, BrokerUnavailable, BrokerUnsuitable
from todoku.cli.client import client
from todoku.cli.databases import file_of
from todoku.cli.errors import CommandFailed
from todoku.cli.formatting import counted, printable
from todoku.database import Database, DatabaseError
from todoku.diagnosis import CheckResult, CheckStatus, ok, warning, wrong
from todoku.local.claims import Port, refusal_of
from todoku.local.holders import writer
from todoku.local.processes import command, describe, is_stopped, listener
from todoku.redaction import redact
from todoku.settings import Settings, flag_of, port_flag
from todoku.system import load_system

TIMEOUT_SECONDS = 2.0
CLOCK_SECONDS_MAX = 3.0
"""A service approaches a wall clock that was set back by up to 2.5 s for some seconds, and is healthy. The
round trip is subtracted, so a busy machine needs no allowance."""

NATS_PORT = 4222
LINE_BYTES_MAX = 2**16

Answered = TypeVar("Answered")


class ApiInfo(msgspec.Struct, frozen=True):
    """Title and version of an API."""

    title: str
    version: str


class ApiDocument(msgspec.Struct, frozen=True):
    """The part of an OpenAPI document that identifies a service."""

    info: ApiInfo


class EngineTime(msgspec.Struct, frozen=True):
    """The part of a readiness check that has the time (UTC) of the engine's clock."""

    time: datetime


class RunningService(msgspec.Struct, frozen=True):
    """A service that responds: its version, and how far its engine's clock is ahead, in seconds; None if
    it is not ready, which `not_ready` explains."""

    version: str
    ahead_seconds: float | None = None
    not_ready: str = ""


class Greeting(msgspec.Struct, frozen=True):
    """The INFO that a NATS server sends on connection."""

    version: str
    jetstream: bool = False

    @property
    def is_old(self) -> bool:
        """Whether the server is older than the oldest supported version."""
        return tuple(int(part) for part in self.version.split(".")[:2]) < VERSION_MIN


def find_services(settings: Settings) -> dict[str, RunningService]:
    """Return the services that respond at their addresses."""
    found = {service: _find(service, settings) for service in load_system(settings).names}
    return {service: running for service, running in found.items() if running}


def _find(service: str, settings: Settings) -> RunningService | None:
    try:
        service_client = client(service, None, settings, timeout_seconds=TIMEOUT_SECONDS)
        answer = service_client.request("GET", "/openapi.json")
        api = service_client.read(answer.body, ApiDocument).info
    except CommandFailed:
        return None
    if api.title != f"Todoku {service}":
        return None
    requested_at = datetime.now(UTC)
    try:
        time = service_client.read(service_client.get("/readyz"), EngineTime).time
    except CommandFailed as failure:
        return RunningService(api.version, not_ready=detail(failure))
    ahead = difference_seconds(time, requested_at, datetime.now(UTC))
    return RunningService(api.version, ahead_seconds=ahead)


def detail(failure: CommandFailed) -> str:
    """Return the detail of a problem, which is its second line, without a full stop."""
    lines = str(failure).splitlines()
    return printable(lines[1].strip() if len(lines) > 1 else lines[0]).rstrip(".")


def remedy(service: str, settings: Settings) -> str:
    """Return what to do about a service that answers that it is not ready."""
    where = settings.database(service)
    file = file_of(where)
    if file is None:
        try:
            with Database.open_read_only(where):
                return f"see the log of {service}"
        except DatabaseError as error:
            reason = " ".join(str(error).split())
            return f"start its database, or correct its address: {reason}"
    locker = writer(file)
    if locker is None or command(locker)[-2:] == ["run", service]:
        return f"see the log of {service}"
    return f"{describe(locker)} has locked {file}: let it end what it writes, or end it with `kill {locker}`"


def difference_seconds(time: datetime, earliest: datetime, latest: datetime) -> float:
    """Return by how much a clock differs at least that was read between two times of this one."""
    nearest = min(max(time, earliest), latest)
    return (time - nearest).total_seconds()


def ports(
    settings: Settings, running: Mapping[str, RunningService], *, up: int | None
) -> Iterator[CheckResult]:
    """Check each service's port: served by it, free, or in use by another program. `up` is the process of the
    `todoku up` that runs here."""
    for service in load_system(settings).names:
        check, number = f"{service} port", settings.port(service)
        if service in running:
            yield _served(check, service, settings, running[service])
            continue
        flag = port_flag(service)
        result = _port_without_service(check, Port(settings.host, number, service, flag), up=up)
        if result.verdict is CheckStatus.OK and (running or up is not None):
            result = unanswered(service, settings, up=up)
            if up is None:  # It may run on another machine.
                result = warning(check, result.found, fix=result.fix)
        yield result
    if (
        not running
        and up is None
        and any(_exists(name, settings) for name in load_system(settings).names)
    ):
        yield warning(
            "services",
            "none answers: no order is accepted, and none goes on",
            fix="start them with `todoku up`",
        )


def _served(check: str, service: str, settings: Settings, running: RunningService) -> CheckResult:
    found = f"{settings.port(service)}, served by todoku {running.version}"
    if not running.not_ready:
        return ok(check, found)
    fix = remedy(service, settings)
    return wrong(check, f"{found}, which is not ready: {running.not_ready}", fix=fix)


def _exists(service: str, settings: Settings) -> bool:
    """Return whether a service has run before: its file exists, or its database is a server's."""
    file = file_of(settings.database(service))
    return file is None or file.exists()


def unanswered(service: str, settings: Settings, *, up: int | None) -> CheckResult:
    """Return why a service does not answer at its address, as far as this machine shows it."""
    check, number = f"{service} port", settings.port(service)
    port = Port(settings.host, number, service, port_flag(service))
    result = _port_without_service(check, port, up=up)
    if result.verdict is not CheckStatus.OK:
        return result
    found = f"nothing listens at {settings.http_url(service)}"
    if up is None:
        return wrong(check, found, fix=f"start it with `todoku up` or `todoku run {service}`")
    return _ended(check, found, up)


def _ended(check: str, found: str, up: int) -> CheckResult:
    """Return what to do about a program that has ended, where `todoku up` runs."""
    if is_stopped(up):
        return wrong(
            check,
            f"{found}, and `todoku up` is stopped (process {up})",
            fix=f"continue that with `kill -CONT {up}`: it restarts what has ended",
        )
    fix = f"wait: `todoku up` (process {up}) restarts it; if it does not, see what that prints"
    return wrong(check, found, fix=fix)


def _port_without_service(
    check: str,
    port: Port,
    is_own: Callable[[Sequence[str]], bool] | None = None,
    *,
    up: int | None,
) -> CheckResult:
    refusal = refusal_of(port)
    if refusal is None:
        return ok(check, f"{port.number}, free")
    if refusal.errno == errno.EADDRINUSE:
        return _occupied(
            check, port, is_own or (lambda words: words[-2:] == ["run", port.wanted_by]), up=up
        )
    return wrong(
        check,
        f"{port.number} on {port.host} cannot be used: {refusal.strerror}",
        fix=f"choose another port with {port.flag}, or address with --host",
    )


def _occupied(
    check: str, port: Port, is_own: Callable[[Sequence[str]], bool], *, up: int | None
) -> CheckResult:
    """Return what is wrong with a port that is in use and at which the service does not respond. `is_own`
    tells by its command line whether it is the service that uses it."""
    user = listener(port.number)
    if user is None:
        found, fix = "in use by another program", "stop that program"
    elif not is_own(command(user)):
        found, fix = f"in use by {describe(user)}", "stop that program"
    elif is_stopped(user):
        found = f"{port.wanted_by} does not respond (process {user} is stopped)"
        wait = "" if up is None else ", or wait until `todoku up` restarts it"
        fix = f"continue it with `kill -CONT {user}`{wait}"
        return wrong(check, f"{port.number}, {found}", fix=fix)
    else:
        found = f"{port.wanted_by} does not respond ({describe(user)})"
        fix = "check its log, and restart it"
        if up is not None:
            fix = f"wait: `todoku up` (process {up}) restarts it if that lasts"
        return wrong(check, f"{port.number}, {found}", fix=fix)
    return wrong(
        check, f"{port.number}, {found}", fix=f"{fix}, or choose another port with {port.flag}"
    )


def clocks(running: Mapping[str, RunningService]) -> Iterator[CheckResult]:
    """Compare the clocks of the services' engines with this machine's."""
    for service, found in running.items():
        check = f"{service} clock"
        ahead = found.ahead_seconds
        if ahead is None:
            continue
        if abs(ahead) > CLOCK_SECONDS_MAX:
            yield warning(
                check,
                f"differs by {ahead:+,.0f} s from this machine's",
                fix="synchronise both with a time service (chrony, systemd-timesyncd)",
            )
        else:
            yield ok(check, f"within {CLOCK_SECONDS_MAX:g} s of this machine's")


def broker(settings: Settings, *, running: bool, up: int | None) -> Iterator[CheckResult]:
    """Check the broker and its stream; `running` is whether any service runs, `up` the process of the
    `todoku up` that runs here."""
    greeting = _greeting(settings.broker_url)
    yield _broker(settings, greeting, running=running, up=up)
    if greeting and greeting.jetstream and not greeting.is_old:
        yield asyncio.run(_stream(settings, running=running))
        yield from asyncio.run(_configuration(settings, running=running))
        yield asyncio.run(_credentials(settings))


def _broker(
    settings: Settings, greeting: Greeting | None, *, running: bool, up: int | None
) -> CheckResult:
    address = redact(settings.broker_url)
    if greeting is None:
        return _without_broker(settings, address, running=running, up=up)
    found = f"nats-server {greeting.version} at {address}"
    if greeting.is_old:
        wanted = ".".join(map(str, VERSION_MIN))
        return wrong("broker", found, fix=f"run nats-server {wanted} or newer")
    if not greeting.jetstream:
        return wrong("broker", f"{found}, without JetStream", fix=NO_JETSTREAM)
    return ok("broker", found)


def _without_broker(
    settings: Settings, address: str, *, running: bool, up: int | None
) -> CheckResult:
    if settings.nats_url:
        fix = "start it, or correct --nats-url; until then, orders are accepted but not processed"
        return wrong("broker", f"no NATS server answers at {address}", fix=fix)
    port = Port("127.0.0.1", settings.nats_port, "the broker", flag_of("nats_port"))
    configuration = str(settings.data_dir.absolute() / "broker")

    def is_broker(words: Sequence[str]) -> bool:
        return any(word.startswith(configuration) for word in words)

    result = _port_without_service("broker port", port, is_broker, up=up)
    if result.verdict is CheckStatus.OK and up is not None:
        return _ended("broker", f"no NATS server answers at {address}", up)
    if result.verdict is CheckStatus.OK and running:
        fix = (
            "run `todoku up`, or give a broker with --nats-url; until then, orders are accepted but"
            " not processed"
        )
        return wrong("broker", f"no NATS server answers at {address}", fix=fix)
    return result


def _greeting(urls: str) -> Greeting | None:
    """Return the greeting of the first server that responds; `urls` are joined by commas."""
    for url in urls.split(","):
        try:
            parts = urlsplit(url)
            place = (parts.hostname or "", parts.port or NATS_PORT)
            with socket.create_connection(place, TIMEOUT_SECONDS) as connection:
                line = connection.makefile("rb").readline(LINE_BYTES_MAX)
            if line.startswith(b"INFO "):
                return msgspec.json.decode(line.removeprefix(b"INFO "), type=Greeting)
        except (OSError, ValueError):
            continue
    return None


async def _stream(settings: Settings, *, running: bool) -> CheckResult:
    name = settings.stream_name
    try:
        info = await stream_info(settings)
    except BrokerUnsuitable as error:
        return wrong("stream", f"{name} cannot be inspected", fix=str(error))
    except BrokerError as error:
        found = f"{name} cannot be inspected: {error}"
        return warning("stream", found, fix="check the broker's log")
    if info is not None:
        count = info.state.last_seq - info.state.first_seq + 1
        return ok(
            "stream", f"{name}, {counted(count, 'message')}, including those of health checks"
        )
    if running:
        fix = "check the services' log: they create it when they reach the broker"
        return warning("stream", f"{name} does not exist", fix=fix)
    return ok("stream", f"{name} does not exist yet; the services create it")


async def stream_info(settings: Settings, user: str = READER) -> StreamInfo | None:
    """Return the stream, or None if there is none. Raises `BrokerError`, also if no server responds."""
    return await _ask_broker(settings, _jetstream(settings).info, user)


async def _credentials(settings: Settings) -> CheckResult:
    """Check that the broker knows the credential of each service."""

    async def connected(link: Link) -> bool:
        return link.admits_anybody

    anybody = False
    names = load_system(settings).names
    for name in names:
        try:
            anybody |= await _ask_broker(settings, connected, name)
        except BrokerUnsuitable as error:
            fix = (
                "run `todoku up` again: it makes them and configures its broker"
                if settings.nats_url is None
                else "correct the credentials of the service, or the server's users; until then, orders are"
                " accepted but not processed"
            )
            return wrong("broker credentials", f"{name}: {error}", fix=fix)
        except BrokerError as error:
            return warning("broker credentials", f"{name}: {error}", fix="check the broker's log")
    if anybody:
        return warning(
            "broker credentials",
            "the broker admits anybody: whoever reaches it can publish events in the name of a service",
            fix="give it users; `todoku broker-config` writes its configuration and their keys",
        )
    return ok("broker credentials", f"the broker knows {', '.join(names)}")


async def _configuration(settings: Settings, *, running: bool) -> list[CheckResult]:
    """Compare the configuration of the stream and its durables with what the services rely on."""
    stream = _jetstream(settings)
    try:
        names = load_system(settings).names
        found = await _ask_broker(settings, lambda link: stream.misconfigurations(link, names))
    except BrokerError:
        return []  # The check of the stream itself says why.
    fix = (
        "the services correct what JetStream lets them change; if this stays, see"
        " `broker_misconfigured` in their log"
        if running
        else "the services correct this when they start"
    )
    return [
        warning("broker configuration", f"{place}: {fields}", fix=fix)
        for place, fields in found.items()
    ]


def _jetstream(settings: Settings) -> JetStream:
    prefix = f"{settings.subject_prefix}." if settings.subject_prefix else ""
    return JetStream(
        settings.stream_name,
        prefix=prefix,
        subjects=[*(f"{service}.>" for service in load_system(settings).names), PROBE_SUBJECT],
        max_age_seconds=settings.stream_max_age_seconds,
        max_bytes=settings.stream_max_bytes,
        replicas=settings.stream_replicas,
        ack_wait_seconds=TIMEOUT_SECONDS,
    )


async def _ask_broker(
    settings: Settings,
    question: Callable[[Link], Coroutine[Any, Any, Answered]],
    user: str = READER,
) -> Answered:
    """Return the broker's answer to a user. Raises `BrokerError`, also if no server responds."""
    problems: list[BrokerError] = []
    link = Link(problems.append, settings.nats_api_prefix)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            options = {**connection_options(settings, user), "name": "todoku doctor"}
            await link.open(settings.broker_url.split(","), options)
            return await question(link)
    except TimeoutError:
        raise problems[-1] if problems else BrokerUnavailable("timeout") from None
    finally:
        await link.close()
