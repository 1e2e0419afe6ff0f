"""`todoku run`: run one service in this process."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, ProgramName, settings_from
from todoku.cli.signals import on_stop_signals
from todoku.local.claims import Port, make_data_folder, require_free
from todoku.settings import CONSOLE, Settings, SettingsInvalid, port_flag


def run(service: ProgramName, *, flags: Flags = None) -> ExitCode:
    """Run one service in the foreground, until Ctrl-C, SIGTERM or SIGHUP.

    Needs a broker: --nats-url, or the one that `todoku up` runs on this machine.
    Without it, orders are accepted but not processed. A second signal kills the
    service at once, without losing data.

    For example:

        todoku run orders --nats-url nats://broker.example:4222

    Parameters
    ----------
    service
        The service to run, or `console`: the page that shows the system in a browser.
    """
    loaded = settings_from(flags)
    if service == CONSOLE:
        from todoku.cli.console_process import run_console

        return run_console(loaded)
    settings = loaded.settings
    make_data_folder(settings.data_dir, [service])
    flag = port_flag(service)
    require_free([Port(settings.host, settings.port(service), service, flag)])

    import uvloop

    from todoku import host
    from todoku.broker.port import BrokerUnsuitable
    from todoku.cli.databases import user_of
    from todoku.database import DatabaseError
    from todoku.database.sqlite_memory import count_no_memory
    from todoku.tls import TlsUnusable

    count_no_memory()
    if user := user_of(settings.database(service)):
        from todoku.cli.output import note  # It imports rich, which a service does not need.

        note(f"{service}: its database is in use by {user}; waiting {host.LOCK_WAIT_SECONDS:g} s")
    try:
        uvloop.run(_serve(host.serve, service, settings))
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid
    except (BrokerUnsuitable, DatabaseError, host.AddressUnusable, TlsUnusable) as error:
        raise CommandFailed(f"{service}: {error}", exit_code=_exit_code(error)) from error
    return ExitCode.OK


def _exit_code(error: Exception) -> ExitCode:
    from todoku.database import DatabaseInUse, DatabaseUnavailable

    match error:
        case DatabaseInUse():
            return ExitCode.IN_USE
        case DatabaseUnavailable():
            return ExitCode.BUSY  # Temporary: the next start may succeed.
        case _:
            return ExitCode.CANNOT_START


async def _serve(
    serve: Callable[[str, Settings, asyncio.Event], Coroutine[Any, Any, None]],
    service: str,
    settings: Settings,
) -> None:
    stop = asyncio.Event()
    on_stop_signals(stop, again=lambda: os._exit(ExitCode.INTERRUPTED))
    await serve(service, settings, stop)
