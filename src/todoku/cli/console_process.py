"""The console as a process: under `todoku up`, and in the foreground."""

import asyncio
import functools
import os
import sys
from collections.abc import Mapping

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.readiness import is_ready, unresponsive
from todoku.cli.signals import on_stop_signals
from todoku.local.claims import Port, refusal_of, require_free
from todoku.local.processes import describe, listener
from todoku.local.supervisor import Checkup, Program
from todoku.settings import CONSOLE, Loaded, Settings, SettingsInvalid, port_flag
from todoku.system import load_system
from todoku.tls import TlsUnusable, own_context

PORTS_TRIED_MAX = 100


def with_free_port(settings: Settings) -> tuple[Settings, str | None]:
    """Return the settings with a port for the console that is free, and what to say if it is another one."""
    wanted = settings.console_port
    reserved = {*map(settings.port, load_system(settings).names), settings.nats_port}
    for number in range(wanted, min(wanted + PORTS_TRIED_MAX, 65_536)):
        port = Port(settings.host, number, CONSOLE, port_flag(CONSOLE))
        if number not in reserved and refusal_of(port) is None:
            moved = msgspec.structs.replace(settings, console_port=number)
            return moved, None if number == wanted else _moved(wanted, number, wanted in reserved)
    return settings, f"the console finds no free port from {wanted} on: set {port_flag(CONSOLE)}"


def _moved(wanted: int, number: int, is_reserved: bool) -> str:
    user = None if is_reserved else listener(wanted)
    by = "this system" if is_reserved else describe(user) if user else "another program"
    return f"port {wanted} is in use by {by}, so the console gets port {number}"


def program(settings: Settings, environment: Mapping[str, str]) -> Program:
    """Return the console as a program that `up` keeps running, and does not wait for."""
    where = (settings.own_host, settings.port(CONSOLE), functools.partial(own_context, settings))
    return Program(
        name=CONSOLE,
        argv=(sys.executable, "-P", "-m", "todoku", "run", CONSOLE),
        environment=environment,
        is_ready=functools.partial(is_ready, *where),
        checkup=Checkup(diagnosis=functools.partial(unresponsive, *where)),
        awaited=False,
    )


def run_console(loaded: Loaded) -> ExitCode:
    """Run the console until it is told to stop. Raises `CommandFailed`."""
    settings = loaded.settings
    if loaded.origins["console_port"].kind == "default":
        settings, moved = with_free_port(settings)
        if moved:
            print(f"todoku: {moved}", file=sys.stderr)
    require_free([Port(settings.host, settings.console_port, CONSOLE, port_flag(CONSOLE))])

    import uvloop

    from todoku.host import AddressUnusable

    try:
        uvloop.run(_serve(settings))
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid
    except (AddressUnusable, TlsUnusable) as error:
        raise CommandFailed(f"console: {error}", exit_code=ExitCode.CANNOT_START) from error
    return ExitCode.OK


async def _serve(settings: Settings) -> None:
    from todoku.console.host import serve

    stop = asyncio.Event()
    on_stop_signals(stop, again=lambda: os._exit(ExitCode.INTERRUPTED))
    await serve(settings, stop)
