"""`todoku up`: run the broker and all services on this machine, each in its own process."""

import asyncio
import functools
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping

import msgspec

from todoku import start_paused
from todoku.broker import embedded
from todoku.broker.credentials import SeedUnusable
from todoku.cli import catalogue_copy, console_process
from todoku.cli.console import Console
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.cli.options import Flag, login_name
from todoku.cli.pausing import described, paused_now
from todoku.cli.readiness import is_ready, unresponsive
from todoku.cli.signals import on_stop_signals
from todoku.local import running
from todoku.local.claims import Port, data_folder, require_free
from todoku.local.log_files import LogFiles
from todoku.local.supervisor import Checkup, NotPrepared, Program, Supervisor
from todoku.redaction import redact
from todoku.settings import (
    CONSOLE,
    Loaded,
    Settings,
    flag_of,
    port_flag,
    to_environment,
    to_text,
    values_of,
)
from todoku.system import load_system
from todoku.tls import own_context

CATALOGUE_PAUSE_SECONDS = 0.1
"""How often it is looked whether orders has the catalogue."""

PROGRESS_SECONDS = 10.0
"""How often to print what is not ready yet."""


def up(
    *,
    paused: Flag = False,
    flags: Flags = None,
) -> int:
    """Start the broker and all services on this machine, and run them until Ctrl-C.

    With --nats-url, that broker is used and none is started. A process that fails
    is restarted, and so is a broker that runs but stores nothing. If a service
    cannot start, `up` exits with its code. If `up` is killed, its processes end
    too.

    For example:

        todoku up
        todoku up --data-dir ~/todoku --carrier-success-rate 0.5
        todoku up --nats-url nats://broker.example:4222
        todoku up --data-dir /tmp/rehearsal --paused

    Parameters
    ----------
    paused
        Start with every service paused, until `todoku resume`: orders are taken, and
        nothing is sent to other systems.
    """
    started = time.monotonic()
    loaded = settings_from(flags, on_this_machine=True)
    settings = loaded.settings
    start = start_paused.to_environment(login_name()) if paused else {}
    with data_folder(settings.data_dir, load_system(settings).names):
        server = None if settings.nats_url else _find_server(settings)
        require_free(list(_ports(settings)))
        if server:
            _write_broker_config(settings)
        if settings.console:
            settings, moved = console_process.with_free_port(settings)
            loaded = msgspec.structs.replace(loaded, settings=settings)
            if moved:
                print(f"todoku: {moved}", file=sys.stderr)
        if settings.nats_url:
            _require_suitable_broker(settings)
        running.publish(settings.data_dir, _described(loaded))
        try:
            return asyncio.run(_keep_up(settings, server, started, start))
        finally:
            running.withdraw(settings.data_dir)


def _described(loaded: Loaded) -> running.RunningUp:
    """Return what other commands may know of this process: no secrets."""
    from todoku import __version__

    return running.RunningUp(
        os.getpid(),
        __version__,
        {
            name: None if value is None else redact(to_text(value))
            for name, value in values_of(loaded.settings).items()
        },
        {name: str(origin) for name, origin in loaded.origins.items()},
    )


def _find_server(settings: Settings) -> embedded.ServerProgram:
    try:
        return embedded.find_server(settings.nats_server)
    except embedded.ServerNotFound as error:
        raise CommandFailed(str(error), exit_code=ExitCode.CANNOT_START) from error


def _write_broker_config(settings: Settings) -> None:
    """Make the credentials, and raise `CommandFailed` if one that is there cannot be used."""
    try:
        embedded.write_config(settings, load_system(settings).names)
    except (SeedUnusable, OSError) as error:
        raise CommandFailed(
            f"the broker cannot be configured: {error}", exit_code=ExitCode.CANNOT_START
        ) from error


def _prepare_broker(settings: Settings) -> None:
    """Do the same before a restart, when what runs goes on without the broker."""
    try:
        _write_broker_config(settings)
    except CommandFailed as failed:
        raise NotPrepared(str(failed)) from failed


def _require_suitable_broker(settings: Settings) -> None:
    """Raise `CommandFailed` for an unsuitable broker; warn if it is unavailable."""
    from todoku.broker.nats_link import Refused
    from todoku.broker.port import BrokerError, BrokerUnsuitable
    from todoku.cli.checks.network import stream_info

    address = redact(settings.broker_url)
    try:
        # As a service: it may look, and who runs `up` has its credential.
        asyncio.run(stream_info(settings, load_system(settings).names[0]))
    except Refused as error:
        # A service that has never reached the broker ends with this reason; the others take orders.
        print(f"todoku: {error}.", file=sys.stderr)
    except BrokerUnsuitable as error:
        raise CommandFailed(
            f"the broker at {address} is unsuitable: {error}.", exit_code=ExitCode.CANNOT_START
        ) from error
    except BrokerError as error:
        print(
            f"todoku: {error}. Until {address} responds, orders are accepted but not processed.",
            file=sys.stderr,
        )


def _ports(settings: Settings) -> Iterator[Port]:
    for service in load_system(settings).names:
        flag = port_flag(service)
        yield Port(settings.host, settings.port(service), service, flag)
    if settings.nats_url is None:
        yield Port("127.0.0.1", settings.nats_port, "the broker", flag_of("nats_port"))


async def _keep_up(
    settings: Settings,
    server: embedded.ServerProgram | None,
    started: float,
    start: Mapping[str, str],
) -> int:
    files = LogFiles(settings.data_dir)
    console = Console(settings, out=sys.stdout, err=sys.stderr, files=files)
    supervisor = Supervisor(
        # Stopped from the last stage to the first: the services before their broker.
        [[_broker(settings, server)] if server else [], _services(settings, console, start)],
        grace_seconds=settings.drain_seconds + settings.shutdown_grace_seconds,
        say=console.say,
        show=console.show,
    )
    stop = asyncio.Event()
    on_stop_signals(stop, again=supervisor.hurry)
    console.say(f"starting; data in {settings.data_dir}")
    async with asyncio.TaskGroup() as tasks:
        ready_announcement = tasks.create_task(
            _announce_ready(settings, server, supervisor, console, started)
        )
        stop_announcement = tasks.create_task(_announce_stop(stop, ready_announcement, console))
        clean = await supervisor.run(stop)
        await stop_announcement
    console.say("stopped")
    if supervisor.final_code is not None:
        return supervisor.final_code
    return ExitCode.OK if clean else ExitCode.FAILED


def _broker(settings: Settings, server: embedded.ServerProgram) -> Program:
    return Program(
        name="broker",
        argv=embedded.argv(server, settings),
        environment=os.environ,
        is_ready=functools.partial(embedded.is_ready, settings.nats_port),
        prepare=functools.partial(_prepare_broker, settings),
        checkup=Checkup(
            diagnosis=functools.partial(embedded.diagnosis, settings),
            remedy=functools.partial(embedded.move_files_aside, settings),
        ),
    )


def _services(settings: Settings, console: Console, start: Mapping[str, str]) -> list[Program]:
    environment = {**_environment(settings, console), **start}
    services = [_service(name, settings, environment) for name in load_system(settings).names]
    if settings.console:
        services.append(console_process.program(settings, environment))
    return services


def _service(name: str, settings: Settings, environment: Mapping[str, str]) -> Program:
    place = settings.own_host, settings.port(name), functools.partial(own_context, settings)
    return Program(
        name=name,
        # -P: do not import modules from the working directory.
        argv=(sys.executable, "-P", "-m", "todoku", "run", name),
        environment=environment,
        is_ready=functools.partial(is_ready, *place),
        checkup=Checkup(diagnosis=functools.partial(unresponsive, *place)),
        final_codes=(ExitCode.USAGE, ExitCode.CANNOT_START, ExitCode.IN_USE),
    )


def _environment(settings: Settings, console: Console) -> dict[str, str]:
    """Return the services' environment: exactly the settings of `up`, also for later restarts."""
    settings = msgspec.structs.replace(settings, log_format=console.log_format)
    colour = {"FORCE_COLOR": "1"} if console.coloured else {"NO_COLOR": "1"}
    return {**os.environ, **to_environment(settings), **colour}


async def _announce_ready(
    settings: Settings,
    server: embedded.ServerProgram | None,
    supervisor: Supervisor,
    console: Console,
    started: float,
) -> None:
    """Print the addresses once all is ready; until then, regularly what is not ready."""
    ready = asyncio.create_task(_all_ready(settings, supervisor))
    while not (await asyncio.wait([ready], timeout=PROGRESS_SECONDS))[0]:
        console.say(f"waiting for {', '.join(supervisor.not_ready) or 'the catalogue at orders'}")
    console.say(f"todoku is ready in {time.monotonic() - started:.1f} s; press Ctrl-C to stop\n")
    console.say(_directory(settings, server))
    paused = await asyncio.to_thread(paused_now, settings)
    for found in paused:
        console.say(described(found))
    if paused:
        console.say(
            "nothing else leaves this system before `todoku resume`; `todoku pauses` lists it"
        )


async def _all_ready(settings: Settings, supervisor: Supervisor) -> None:
    """Wait until all processes are ready, and orders has the catalogue that inventory began with."""
    await supervisor.all_ready()
    if not set(load_system(settings).names) >= catalogue_copy.SERVICES:
        return
    while True:
        if await asyncio.to_thread(catalogue_copy.has_arrived, settings):
            return
        await asyncio.sleep(CATALOGUE_PAUSE_SECONDS)


async def _announce_stop(
    stop: asyncio.Event, ready_announcement: "asyncio.Task[None]", console: Console
) -> None:
    await stop.wait()
    ready_announcement.cancel()
    console.say("stopping; press Ctrl-C again to stop at once")


def _directory(settings: Settings, server: embedded.ServerProgram | None) -> str:
    broker = redact(settings.broker_url)
    if server:
        broker += f"  (nats-server {'.'.join(map(str, server.version))}, started here)"
    names = load_system(settings).names
    places: dict[str, str] = {CONSOLE: settings.http_url(CONSOLE)} if settings.console else {}
    places |= {name: settings.http_url(name) for name in names}
    places |= {
        "docs": f"{settings.http_url(names[0])}/docs",
        "broker": broker,
        "data": str(settings.data_dir),
    }
    return "\n".join(
        [
            *(f"  {name:<10} {place}" for name, place in places.items()),
            "",
            *_how_to_order(settings),
            f"  curl -s {settings.http_url('orders')}/orders"
            + (' -H "Authorization: Bearer $TODOKU_KEY"' if settings.auth == "required" else "")
            + " -H 'content-type: application/json' -d '"
            '{"userId": "user123", "items":'
            ' [{"productId": "prod001", "quantity": 2, "price": 5000}]}\'',
            "",
        ]
    )


def _how_to_order(settings: Settings) -> list[str]:
    """Return what comes before the command that places an order: where its credential is from."""
    if settings.auth != "required":
        return ["Place an order:", ""]
    file = settings.bootstrap_key_file
    if file is None:
        return [
            "Place an order, with a key of `todoku key create` in TODOKU_KEY (--bootstrap-key-file FILE"
            " makes the first one):",
            "",
        ]
    return [
        "Place an order, with the first key or another of `todoku key create`:",
        "",
        f'  export TODOKU_KEY="$(cat {shlex.quote(str(file))})"',
    ]
