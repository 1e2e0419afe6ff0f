"""The `todoku` command line: one module for each command, imported when that command is called."""

import errno
import os
import sys
from typing import TYPE_CHECKING, Any

from todoku.cli import streams
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.local.errors import Contradictory, InUse, LocalError, Unavailable

if TYPE_CHECKING:
    from types import TracebackType

    from cyclopts import App, CycloptsError
    from rich.panel import Panel

COMMANDS = {
    "up": "Start the broker and all services on this machine, and restart what fails.",
    "order": "Place, list, show, explain, watch, hold and cancel orders.",
    "product": "List, show, create, change and archive products; adjust their stock.",
    "shipment": "List and show shipments.",
    "events": "Export and follow the events of all orders.",
    "dead": "Handle dead letters: messages that a service could not process.",
    "pause": "Pause the system, a service, or one thing that it does.",
    "resume": "Let what is paused go on.",
    "pauses": "List what is paused.",
    "audit": "List who has asked for what, and what came of it.",
    "logs": "Show what the services have logged, also about one order.",
    "person": "Export and erase everything about a person.",
    "key": "Create, list and revoke API keys.",
    "login": "Keep an API key or an access token for later commands.",
    "logout": "Delete the credential that `todoku login` has kept.",
    "whoami": "Say who the services take you for, and what you may do.",
    "docs": "Read the documentation, and search it.",
    "doctor": "Diagnose problems and suggest fixes.",
    "verify": "Check the databases for broken invariants.",
    "bench": "Measure throughput, latency and cost under load.",
    "simulate": "Simulate the whole system with injected faults, and check its invariants.",
    "chaos": "Break a real system under load, and check its invariants.",
    "backup": "Copy all databases as of one instant, while the services run.",
    "config": "Show every setting, its value and its source.",
    "run": "Run one service in the foreground.",
    "mcp": "Offer tools to agents, over the Model Context Protocol.",
    "migrate": "Migrate the databases to the schema of this version.",
    "broker-config": "Write the configuration and the credentials of your own NATS servers.",
}
"""Each command and its line in the list. The command is the function or app of that name in the module
of that name, with _ for -."""

LOCAL_EXIT_CODES = {
    Unavailable: ExitCode.CANNOT_START,
    InUse: ExitCode.IN_USE,
    Contradictory: ExitCode.USAGE,
}

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _version() -> str:
    from todoku import __version__

    return f"todoku {__version__}"


def _usage_error(error: "CycloptsError") -> "Panel":
    """Return what is wrong with what was typed."""
    from cyclopts import CycloptsPanel, MissingArgumentError

    absent = isinstance(error, MissingArgumentError) and error.keyword is None
    # The library has one text for an option without its value and for one that is not there.
    text = str(error).replace(" requires an argument.", " is missing.") if absent else error
    return CycloptsPanel(text)


def application(typed: str | None = None) -> "App":
    """Build the command line, with no command imported yet.

    The help of the command in `typed` is its docstring, that of the others their line in the list.
    """
    # Imported here, where Ctrl-C is already handled: the import takes a noticeable time.
    from cyclopts import App

    app = App(
        name="todoku",
        help="Process orders reliably: an event-driven backend of three services.",
        help_epilogue="" if typed in COMMANDS else ExitCode.explained(),
        help_format="plaintext",
        version=_version,
        result_action="return_value",
        error_formatter=_usage_error,
    )
    for position, (name, summary) in enumerate(COMMANDS.items()):
        module = name.replace("-", "_")
        app.command(
            f"todoku.cli.{module}:{module}",
            name=name,
            help=None if name == typed else summary,
            sort_key=position,
        )
    app.command(
        "todoku.cli.completion:install_completion",
        name="--install-completion",
        help="Install completion for bash, zsh or fish.",
    )
    return app


def _print_unexpected(
    kind: type[BaseException], error: BaseException, trace: "TracebackType | None"
) -> None:
    """Print an error that no command expects, without the secrets in its text."""
    import traceback

    from todoku.redaction import redact

    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def main() -> None:
    """Run the command in `sys.argv`, and exit with its exit code."""
    sys.excepthook = _print_unexpected
    streams.prepare()
    # Orders hold personal data: only the owner may read what is created here.
    os.umask(0o077)
    if not all(map(streams.is_text, sys.argv)):
        print(
            f"todoku: an argument is not valid {sys.getfilesystemencoding()}, the encoding of this"
            " terminal. Use that, or set LC_ALL to a locale with another encoding.",
            file=sys.stderr,
        )
        sys.exit(ExitCode.USAGE)
    try:
        outcome: Any = application(next(iter(sys.argv[1:]), None))()
        sys.stdout.flush()
    except CommandFailed as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_code)
    except LocalError as error:
        from todoku.redaction import redact

        print(f"todoku: {redact(str(error))}", file=sys.stderr)
        sys.exit(LOCAL_EXIT_CODES[type(error)])
    except BrokenPipeError:
        streams.discard_output()
        sys.exit(ExitCode.OUTPUT_CLOSED)
    except SystemExit as end:
        # rich, which prints the help, exits with a code of its own when the pipe is closed.
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(ExitCode.OUTPUT_CLOSED)
        raise
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        streams.discard_output()
        what = error.filename or "the output"
        print(f"todoku: cannot write {what}: {error.strerror}.", file=sys.stderr)
        sys.exit(ExitCode.FAILED)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(outcome)
