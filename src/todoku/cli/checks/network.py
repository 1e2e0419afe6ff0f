"""The network: the ports, the services behind them and their clocks, and the broker."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import msgspec

from todoku.broker.embedded import VERSION_MIN
from todoku.broker.jetstream import NO_JETSTREAM, JetStream, StreamInfo
from todoku.broker.nats_link import Link
from todoku.broker.port import BrokerError, BrokerUnsuitable
from todoku.cli.checks import Finding, ok, warning, wrong
from todoku.cli.claims import Port, refusal_of
from todoku.cli.client import Answer, Client
from todoku.cli.errors import CommandFailed
from todoku.settings import SERVICES, SETTINGS, ServiceName, Settings, without_password

ASK_SECONDS_MAX = 2.0
CLOCK_SECONDS_MAX = 2.0
"""A Date header counts whole seconds, and the answer took a moment."""

NATS_PORT = 4222


class ApiInfo(msgspec.Struct, frozen=True):
    """What an API says that it is."""

    title: str
    version: str


class ApiDocument(msgspec.Struct, frozen=True):
    """The part of an OpenAPI document that tells one service from another."""

    info: ApiInfo


class Greeting(msgspec.Struct, frozen=True):
    """What a NATS server says when one connects."""

    version: str
    jetstream: bool = False

    @property
    def old(self) -> bool:
        """Whether it is older than Todoku needs."""
        return tuple(int(part) for part in self.version.split(".")[:2]) < VERSION_MIN


def services(settings: Settings) -> Iterator[Finding]:
    """Each service's port: served by it, free, or in other hands; and its clock."""
    for service in SERVICES:
        yield from _service(service, settings)


def any_service_answers(settings: Settings) -> bool:
    """Whether Todoku runs here, at least in part."""
    return any(_asked(service, settings) is not None for service in SERVICES)


def _service(service: ServiceName, settings: Settings) -> Iterator[Finding]:
    check = f"{service} port"
    answer = _asked(service, settings)
    if answer is None:
        yield _without_service(check, service, settings)
        return
    api = msgspec.json.decode(answer.body, type=ApiDocument).info
    yield ok(check, f"{settings.port(service)}, served by {api.title} {api.version}")
    yield from _clock(service, answer)
