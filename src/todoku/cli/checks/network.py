"""The network: the ports, the services behind them and their clocks, and the broker."""

import asyncio
import errno
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import msgspec

from todoku.broker.embedded import VERSION_MIN
from todoku.broker.jetstream import NO_JETSTREAM, JetStream, StreamInfo
from todoku.broker.nats_link import Link
from todoku.broker.port import BrokerError, BrokerUnavailable, BrokerUnsuitable
from todoku.cli.checks import Finding, Verdict, ok, warning, wrong
from todoku.cli.client import Client
from todoku.cli.errors import CommandFailed
from todoku.local.claims import Port, refusal_of
from todoku.settings import SERVICES, SETTINGS, ServiceName, Settings, without_password

ASK_SECONDS_MAX = 2.0
CLOCK_SECONDS_MAX = 2.0
"""A Date header counts whole seconds, and the answer took a moment."""

NATS_PORT = 4222
LINE_BYTES_MAX = 2**16


class ApiInfo(msgspec.Struct, frozen=True):
    """What an API says that it is."""

    title: str
    version: str


class ApiDocument(msgspec.Struct, frozen=True):
    """The part of an OpenAPI document that tells one service from another."""

    info: ApiInfo


class Present(msgspec.Struct, frozen=True):
    """A service that answers: its version, and the time on its clock, in whole seconds."""

    version: str
    time: datetime | None


class Greeting(msgspec.Struct, frozen=True):
    """What a NATS server says when one connects."""

    version: str
    jetstream: bool = False

    @property
    def is_old(self) -> bool:
        """Whether it is older than Todoku needs."""
        return tuple(int(part) for part in self.version.split(".")[:2]) < VERSION_MIN


def find_services(settings: Settings) -> dict[ServiceName, Present]:
    """The services that answer at their addresses."""
    found = {service: _find(service, settings) for service in SERVICES}
    return {service: present for service, present in found.items() if present}


def _find(service: ServiceName, settings: Settings) -> Present | None:
    client = Client(service, settings.http_url(service), timeout_seconds=ASK_SECONDS_MAX)
    try:
        answer = client.ask("GET", "/openapi.json")
        api = client.read(answer.body, ApiDocument).info
    except CommandFailed:
        return None
    date = answer.headers.get("date")
    if api.title != f"Todoku {service}":
        return None
    return Present(api.version, parsedate_to_datetime(date) if date else None)


def ports(settings: Settings, present: Mapping[ServiceName, Present]) -> Iterator[Finding]:
    """Each service's port: served by it, free, or in other hands."""
    for service in SERVICES:
        check, number = f"{service} port", settings.port(service)
        if service in present:
            yield ok(check, f"{number}, served by todoku {present[service].version}")
        else:
            flag = SETTINGS[f"{service}_port"].flag
            yield _port_without_service(check, Port(settings.host, number, service, flag))


def _port_without_service(check: str, port: Port) -> Finding:
    refusal = refusal_of(port)
    if refusal is None:
        return ok(check, f"{port.number}, free")
    if refusal.errno == errno.EADDRINUSE:
        return wrong(
            check,
            f"{port.number}, taken by another program",
            fix=f"stop that program, or choose another port with {port.flag}",
        )
    return wrong(
        check,
        f"{port.number} on {port.host} cannot be listened on: {refusal.strerror}",
        fix=f"choose another port with {port.flag}, or address with --host",
    )


def clocks(present: Mapping[ServiceName, Present]) -> Iterator[Finding]:
    """The services' clocks against this machine's."""
    now = datetime.now(UTC)
    for service, found in present.items():
        check = f"{service} clock"
        if found.time is None:
            continue
        ahead = (found.time - now).total_seconds()
        if abs(ahead) > CLOCK_SECONDS_MAX:
            yield warning(
                check,
                f"{ahead:+,.0f} s against this machine's",
                fix="keep both by one time service (chrony, systemd-timesyncd)",
            )
        else:
            yield ok(check, "as this machine's, to the second")


def broker(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """The broker and its stream; `running` says whether any service is."""
    greeting = _greeting(settings.broker_url)
    yield _broker(settings, greeting, running=running)
    if greeting and greeting.jetstream and not greeting.is_old:
        yield asyncio.run(_stream(settings, running=running))


def _broker(settings: Settings, greeting: Greeting | None, *, running: bool) -> Finding:
    address = without_password(settings.broker_url)
    if greeting is None:
        return _without_broker(settings, address, running=running)
    found = f"nats-server {greeting.version} at {address}"
    if greeting.is_old:
        wanted = ".".join(map(str, VERSION_MIN))
        return wrong("broker", found, fix=f"run nats-server {wanted} or newer")
    if not greeting.jetstream:
        return wrong("broker", f"{found}, without JetStream", fix=NO_JETSTREAM)
    return ok("broker", found)


def _without_broker(settings: Settings, address: str, *, running: bool) -> Finding:
    if settings.nats_url:
        fix = "start it, or correct --nats-url; until then, orders are taken and wait"
        return wrong("broker", f"no NATS server answers at {address}", fix=fix)
    port = Port("127.0.0.1", settings.nats_port, "the broker", SETTINGS["nats_port"].flag)
    finding = _port_without_service("broker port", port)
    if finding.verdict is Verdict.OK and running:
        fix = "run `todoku up`, or name a broker with --nats-url; until then, orders are taken and wait"
        return wrong("broker", f"no NATS server answers at {address}", fix=fix)
    return finding


def _greeting(urls: str) -> Greeting | None:
    """What the first server that answers says; servers of a cluster are joined by commas."""
    for url in urls.split(","):
        parts = urlsplit(url)
        place = (parts.hostname or "", parts.port or NATS_PORT)
        try:
            with socket.create_connection(place, ASK_SECONDS_MAX) as connection:
                line = connection.makefile("rb").readline(LINE_BYTES_MAX)
            if line.startswith(b"INFO "):
                return msgspec.json.decode(line.removeprefix(b"INFO "), type=Greeting)
        except (OSError, ValueError):
            continue
    return None


async def _stream(settings: Settings, *, running: bool) -> Finding:
    name = settings.stream_name
    try:
        info = await stream_info(settings)
    except BrokerUnsuitable as error:
        return wrong("stream", f"{name} cannot be looked at", fix=str(error))
    except BrokerError as error:
        found = f"{name} cannot be looked at: {error}"
        return warning("stream", found, fix="look into the broker's log")
    if info is not None:
        count = info.state.last_seq - info.state.first_seq + 1
        return ok("stream", f"{name}, {count:,} messages, those of health checks among them")
    if running:
        fix = "look into the services' log: they make it when they reach the broker"
        return warning("stream", f"{name} is not there", fix=fix)
    return ok("stream", f"{name} is not there yet; the services make it")


async def stream_info(settings: Settings) -> StreamInfo | None:
    """The stream, or None if there is none. Raises `BrokerError`, also when no server answers."""
    stream = JetStream(
        settings.stream_name,
        prefix="",
        subjects=(),
        max_age_seconds=settings.stream_max_age_seconds,
        max_bytes=settings.stream_max_bytes,
        replicas=1,
        ack_wait_seconds=ASK_SECONDS_MAX,
    )
    problems: list[BrokerError] = []
    link = Link(problems.append)
    try:
        async with asyncio.timeout(ASK_SECONDS_MAX):
            await link.open(settings.broker_url.split(","), {"name": "todoku doctor"})
            return await stream.info(link)
    except TimeoutError:
        raise problems[-1] if problems else BrokerUnavailable("no answer in time") from None
    finally:
        await link.close()
