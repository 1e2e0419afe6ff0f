"""`todoku mcp`: offer tools to agents, over the Model Context Protocol."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter, validators

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_of_running
from todoku.cli.options import Flag

if TYPE_CHECKING:
    from todoku.cli.agents.tool import Services
    from todoku.cli.agents.toolbox import Toolbox

MISSING = "the MCP server needs its SDK: pip install 'todoku[mcp]' ({error})."
NOT_A_NAME = "--agent takes a name of one line, without control or other invisible characters."

PortNumber = Annotated[
    int | None, Parameter(show_default=False, validator=validators.Number(gte=1, lte=65_535))
]


def mcp(
    *,
    write: Flag = False,
    http: PortNumber = None,
    agent: str = "mcp-agent",
    flags: Flags = None,
) -> ExitCode:
    """Offer tools to an agent, over the Model Context Protocol (MCP).

    The tools read: states, orders, dead letters, documentation. With --write there
    are some that change something. Each of these is called twice: the first call
    is a dry run, whose token the second one needs.

    Over stdio, the credential is that in TODOKU_KEY or TODOKU_KEY_FILE. Over HTTP
    it is the caller's own, in the header Authorization.

    For example:

        todoku mcp
        todoku mcp --write --agent night-watch
        todoku mcp --http 8086

    Parameters
    ----------
    write
        Offer tools that change something, too.
    http
        Listen on this port, and answer at /mcp, instead of stdin and stdout.
    agent
        The name of the agent where no credential says who acts.
    """
    try:
        from todoku.cli.agents.server import serve_stdio
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise CommandFailed(MISSING.format(error=error), exit_code=ExitCode.CANNOT_START) from error
    from todoku import logs
    from todoku.cli.agents.answers import is_visible
    from todoku.cli.agents.tool import Services
    from todoku.cli.agents.toolbox import Toolbox
    from todoku.cli.signals import end_at_interrupt
    from todoku.exposure import require_protection
    from todoku.settings import SettingsInvalid

    if not agent or not all(map(is_visible, agent)):
        raise CommandFailed(NOT_A_NAME, exit_code=ExitCode.USAGE)
    loaded, _ = settings_of_running(flags)
    settings = loaded.settings
    services = Services(settings, agent=agent, is_remote=http is not None)
    try:
        if http is not None:
            require_protection(settings)
        logs.configure(settings.log_level, settings.log_format, "mcp")
        toolbox = Toolbox(services, writes=write)
        if http is None:
            end_at_interrupt()
            asyncio.run(serve_stdio(toolbox))
        else:
            asyncio.run(_serve(toolbox, services, http))
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid
    return ExitCode.OK


async def _serve(toolbox: "Toolbox", services: "Services", port: int) -> None:
    from todoku.cli.agents.http import serve_http
    from todoku.cli.signals import on_stop_signals
    from todoku.host import AddressUnusable
    from todoku.tls import TlsUnusable

    stop = asyncio.Event()
    on_stop_signals(stop, again=lambda: os._exit(ExitCode.INTERRUPTED))
    settings = msgspec.structs.replace(services.settings, console_port=port)
    try:
        await serve_http(toolbox, services, settings, stop)
    except (AddressUnusable, TlsUnusable) as error:
        raise CommandFailed(str(error), exit_code=ExitCode.CANNOT_START) from error
