"""Run one service of a system: its database, its process and its HTTP server."""

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp
from uuid_utils import uuid7

from todoku import logs, start_paused
from todoku.bootstrap_key import ensure_bootstrap_key
from todoku.broker.connection import connection_options
from todoku.broker.embedded import PROBE_SUBJECT
from todoku.broker.nats import NatsBroker
from todoku.broker.permissions import OPERATOR
from todoku.database import Database, migrate, require_tables
from todoku.engine import (
    AuditKeeper,
    EngineConfig,
    Process,
    ProcessFailed,
    Service,
    SteadyClock,
    Topology,
    add_trace,
    failpoint_from_environment,
)
from todoku.exposure import require_protection
from todoku.service_metrics import ServiceMetrics
from todoku.settings import Settings
from todoku.system import load_system
from todoku.tls import HANDSHAKE_SECONDS_MAX, ServerCertificate
from todoku.web import Api, Backend, BoundedHttpProtocol, Limits, application, asyncapi
from todoku.web.descriptors import raise_descriptor_limit
from todoku.web.guard import Authenticate
from todoku.web.hosts import known_hosts
from todoku.web.keyring import Keyring
from todoku.web.keys import api_keys
from todoku.web.page_headers import NO_SNIFFING
from todoku.web.rate_limits import rate_limiter
from todoku.web.system import system_operation

if TYPE_CHECKING:
    from todoku.telemetry import Telemetry

LOCK_WAIT_SECONDS = 10.0
"""How long a start waits for an earlier process of the same service to let go of its database."""

READER_THREADS = 2

GIVE_UP_SECONDS = 0.5
"""How long before the server would end them, requests that wait for a commit are answered."""

LISTENERS = 8
"""How many connections can be accepted in a turn of the event loop: libuv accepts one a socket."""

CONNECTIONS_WAITING_MAX = 2048

GARBAGE_THRESHOLDS = (50_000, 20, 100)
"""How much is allocated between two looks for cycles, a generation each: hardly any arise."""


class AddressUnusable(Exception):
    """The host or the port of a service cannot be listened at."""


async def serve(name: str, settings: Settings, stop: asyncio.Event) -> None:
    """Run a service until `stop` is set, then finish what is under way.

    Raises what keeps it from starting or from going on: a `DatabaseError`, a `BrokerUnsuitable`,
    `AddressUnusable`, `TlsUnusable`, `SettingsInvalid`, or the error of a loop that failed. Whatever is
    raised, nothing that was answered is lost by it.
    """
    require_protection(settings)
    certificate = ServerCertificate.of(settings)
    logs.configure(settings.log_level, settings.log_format, name, add_trace)
    raise_descriptor_limit()
    system = load_system(settings)
    descriptor = system[name]
    with Database.open(settings.database(name), lock_wait_seconds=LOCK_WAIT_SECONDS) as database:
        migrate(database, descriptor.package)
        owner = f"{socket.gethostname()}:{os.getpid()}:{uuid7()}"
        with (
            _writer(database) as run_write,
            _threads(READER_THREADS, "reader") as run_read,
            _traced(name, settings, owner) as telemetry,
        ):
            services = system.build(settings, effects={})  # Only this one's plug-ins are needed.
            service = descriptor.build(settings)
            require_tables(database, service.store.metadata)
            broker = _broker(name, settings, services)
            if settings.nats_url is not None and await run_read(_is_new, service, database):
                await broker.refuse_wrong_credentials()
            process = _process(
                service, settings, services, database, broker, run_write, run_read, owner, telemetry
            )
            backend = Backend(process=process, database=database, run_read=run_read)
            if (pause := start_paused.from_environment()) is not None:
                await run_write(
                    process.writer.separate_commands.execute_pause, pause, None, process.clock.now()
                )
            stop_process = asyncio.Event()
            running = asyncio.create_task(process.run(stop_process))
            try:
                await process.started()
                await descriptor.started(backend, settings)
                if settings.bootstrap_key_file is not None and service.key_event is not None:
                    await ensure_bootstrap_key(settings.bootstrap_key_file, process, backend)
                events = _events(name, settings, services)
                app = _application(
                    name,
                    descriptor.build_api(backend),
                    backend,
                    settings,
                    ServiceMetrics.of(descriptor, process, backend),
                    events,
                    telemetry,
                    process.audit,
                )
                await _serve_http(
                    name, settings, app, certificate, backend, running, stop, process.give_up
                )
            except ProcessFailed:
                pass  # `running` raises why.
            finally:
                stop_process.set()
                await running


def _process(
    service: Service,
    settings: Settings,
    services: tuple[Service, ...],
    database: Database,
    broker: NatsBroker,
    run_write: Any,
    run_read: Any,
    owner: str,
    telemetry: "Telemetry | None",
) -> Process:
    return Process(
        service,
        database,
        broker,
        Topology(services),
        owner=owner,
        clock=SteadyClock(),
        run_write=run_write,
        run_read=run_read,
        config=EngineConfig(
            batch_max=settings.batch_messages_max,
            credit=settings.mailbox_messages_max,
            commands_max=settings.mailbox_commands_max,
            backlog_max=settings.outbox_backlog_max,
            inbox_retention_seconds=settings.inbox_retention_seconds,
            key_retention_seconds=settings.idempotency_key_retention_seconds,
            partitions=settings.partitions,
            audit=settings.writes_audit_log,
            erasure_file=settings.data_dir / "erasures" / f"{service.name}.ndjson",
        ),
        failpoint=failpoint_from_environment(service.name),
        tracer=None if telemetry is None else telemetry.tracer,
    )


def _is_new(service: Service, database: Database) -> bool:
    """Return whether this database has never handled a message: then a wrong credential ends the start."""
    with database.read() as connection:
        return service.store.tables.positions.is_new(connection)


@contextmanager
def _traced(name: str, settings: Settings, owner: str) -> "Iterator[Telemetry | None]":
    """The traces of a service, None if they are off: nothing of OpenTelemetry is imported then."""
    if settings.traces == "off" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield None
        return
    from todoku import __version__
    from todoku.telemetry import Telemetry

    with Telemetry(name, settings, __version__, owner).running() as telemetry:
        yield telemetry


def _broker(name: str, settings: Settings, services: tuple[Service, ...]) -> NatsBroker:
    return NatsBroker(
        settings.broker_url.split(","),
        stream=settings.stream_name,
        subjects=[*(f"{service.name}.>" for service in services), PROBE_SUBJECT],
        prefix=settings.subject_prefix,
        name=f"todoku {name}",
        max_age_seconds=settings.stream_max_age_seconds,
        max_bytes=settings.stream_max_bytes,
        replicas=settings.stream_replicas,
        disposable=settings.nats_url is None,
        options=partial(connection_options, settings, name),
        # The seed of `todoku up` lies beside this service's own.
        operator=partial(connection_options, settings, OPERATOR)
        if settings.nats_url is None
        else None,
        marks_roll_backs=name == services[0].name,
        api_prefix=settings.nats_api_prefix,
    )


def _events(name: str, settings: Settings, services: tuple[Service, ...]) -> Mapping[str, Any]:
    """Return the AsyncAPI document of one service."""
    return asyncapi.document(
        services,
        of=name,
        prefix=settings.subject_prefix,
        broker_url=settings.broker_url,
        examples=load_system(settings).examples(),
    )


def _application(
    name: str,
    api: Api,
    backend: Backend,
    settings: Settings,
    metrics: ServiceMetrics,
    events: Mapping[str, Any],
    telemetry: "Telemetry | None",
    audit: AuditKeeper | None,
) -> ASGIApp:
    authenticate = _authenticate(backend, settings) if settings.auth == "required" else None
    return application(
        api,
        backend,
        limits=Limits(body_bytes_max=settings.request_body_bytes_max),
        collectors=[*metrics.collectors, *([] if telemetry is None else [telemetry])],
        refresh=metrics.refresh,
        events=events,
        outermost=[] if telemetry is None else [telemetry.middleware],
        trust_forwarded_prefix=settings.trust_forwarded_prefix,
        hosts=known_hosts(settings.host, settings.public_hosts),
        behind_proxy=settings.behind_proxy,
        cors_origins=settings.allowed_origins,
        limiter=rate_limiter(settings, accounts=authenticate is not None),
        audit=audit,
        authenticate=authenticate,
        more=[system_operation(name, settings, backend)],
    )


def _authenticate(backend: Backend, settings: Settings) -> Authenticate:
    """Return how credentials are verified."""
    keyring = Keyring(backend, api_keys)
    if settings.oidc_issuer is None:
        return keyring
    from todoku.web.access_tokens import access_tokens, keys_or_tokens

    tokens = access_tokens(settings, backend.process.clock.now)
    if tokens is not None:
        tokens.begin()
    return keys_or_tokens(keyring, tokens)


async def _serve_http(
    name: str,
    settings: Settings,
    app: ASGIApp,
    certificate: ServerCertificate | None,
    backend: Backend,
    running: asyncio.Task[None],
    stop: asyncio.Event,
    give_up: Callable[[], None],
) -> None:
    """Answer HTTP until `stop` is set and the service is drained, or the process has failed. What still waits
    for a commit at the end is told by `give_up` that its result is unknown."""
    server = HttpServer(server_config(name, settings, app, certificate))
    _collect_less_garbage()
    sockets = listen(settings.host, settings.port(name))
    serving = asyncio.create_task(server.serve(sockets))
    stopping = asyncio.create_task(stop.wait())
    watching = asyncio.create_task(certificate.watch()) if certificate else None
    try:
        await asyncio.wait((serving, running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set() and settings.drain_seconds:
            backend.draining = True
            server.close_connections_after_answers()
            await asyncio.wait(
                (serving, running),
                timeout=settings.drain_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
    finally:
        server.should_exit = True
        # Then the server would cancel the requests that wait for a commit, as if they were faulty.
        await asyncio.wait((serving,), timeout=_answer_seconds(settings) - GIVE_UP_SECONDS)
        if not serving.done():
            give_up()
        await serving
        stopping.cancel()
        if watching is not None:
            watching.cancel()


def server_config(
    name: str, settings: Settings, app: ASGIApp, certificate: ServerCertificate | None = None
) -> uvicorn.Config:
    """Return how the HTTP server of a service runs."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port(name),
        http=BoundedHttpProtocol,
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        server_header=False,
        headers=[NO_SNIFFING],
        ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
        timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # any number
        timeout_graceful_shutdown=_answer_seconds(settings),
    )


def _answer_seconds(settings: Settings) -> int:
    """Return how long requests may still take once the server ends."""
    return max(1, int(settings.shutdown_grace_seconds / 2))


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen at every address of `host`, each of them several times. Raises
    `AddressUnusable`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listeners = [
            socket.create_server(address, family=family, backlog=CONNECTIONS_WAITING_MAX)
            for family, address in sorted({(entry[0], entry[4][:2]) for entry in found})
        ]
    except OSError as error:
        raise AddressUnusable(f"nothing can listen at {host}:{port} ({error})") from error
    return [listener.dup() for listener in listeners for _ in range(LISTENERS - 1)] + listeners


def _collect_less_garbage() -> None:
    """Leave alone what the program itself is made of: looking through it, again and again, for
    garbage took a seventh of a service's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


class HttpServer(uvicorn.Server):
    """A server that leaves signals to whoever runs it, and can be drained."""

    def close_connections_after_answers(self) -> None:
        """Answer with `Connection: close` from now on (within a second: uvicorn looks once a second), and end
        the streams."""
        self.config.encoded_headers.append((b"connection", b"close"))
        for connection in self.server_state.connections:
            assert isinstance(connection, BoundedHttpProtocol)
            connection.end_stream()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; with TLS, bound how long a handshake may take, which uvicorn does not."""
        if self.config.ssl is None or sockets is None:
            await super().startup(sockets)
            return
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._protocol,
                sock=listener,
                ssl=self.config.ssl,
                backlog=CONNECTIONS_WAITING_MAX,
                ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX,
            )
            for listener in sockets
        ]
        self.started = True

    def _protocol(self) -> BoundedHttpProtocol:
        return BoundedHttpProtocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _writer(database: Database) -> Iterator[Any]:
    """What runs the writer: on SQLite the event loop itself (decision 10), else a thread, since then a
    commit is a wait for another machine."""
    if database.exclusive:
        yield _in_turn
    else:
        with _threads(1, "writer") as run:
            yield run


async def _in_turn(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a plain function once everything else has had its turn."""
    await asyncio.sleep(0)
    return function(*arguments)


@contextmanager
def _threads(threads: int, name: str) -> Iterator[Any]:
    """Threads that run plain functions for the event loop: `await run(function, *arguments)`."""
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:

        async def run(function: Callable[..., Any], *arguments: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(
                pool, partial(function, *arguments)
            )

        yield run
