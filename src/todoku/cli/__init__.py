"""The commands a person types: one file each, imported when it is the one that was typed."""

import errno
import os
import sys
from typing import TYPE_CHECKING, Any

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.local.errors import Contradictory, InUse, LocalError, Unavailable

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS = {
    "up": "Start the broker and all services here, and keep them running.",
    "order": "Place orders, look at them, and watch them to their end.",
    "product": "Look at products and their stock, set them up, restock them.",
    "shipment": "Look at the parcels.",
    "dead": "See to the messages that a service could not deal with.",
    "doctor": "Look for what keeps Todoku from working, and say what to do.",
    "verify": "Hold the databases against the promise.",
    "bench": "Measure throughput, latency and cost under load.",
    "simulate": "Simulate the whole system with injected faults, and check its invariants.",
    "chaos": "Break a real system under load, and check its invariants.",
    "backup": "Copy the databases as they were at one instant, while everything runs.",
    "config": "Show every setting, its value and where that came from.",
    "run": "Run one service.",
    "migrate": "Bring the databases to this version.",
}
"""Each command and its line in the list: what has that name in the module of that name."""

LOCAL_EXIT_CODES = {
    Unavailable: ExitCode.CANNOT_START,
    InUse: ExitCode.IN_USE,
    Contradictory: ExitCode.USAGE,
}

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _version() -> str:
    from todoku import __version__

    return f"todoku {__version__}"


def application(typed: str | None = None) -> "App":
    """The command line, with every command still unloaded.

    The one that was `typed` is explained by its docstring, the others by their line in the list.
    """
    # Here, where Ctrl-C is already answered: it takes a noticeable moment.
    from cyclopts import App

    app = App(
        name="todoku",
        help="Order fulfilment that never loses an order.",
        help_epilogue=ExitCode.explained(),
        help_format="plaintext",
        version=_version,
        result_action="return_value",
    )
    for position, (name, meaning) in enumerate(COMMANDS.items()):
        app.command(
            f"todoku.cli.{name}:{name}",
            name=name,
            help=None if name == typed else meaning,
            sort_key=position,
        )
    app.command(
        "todoku.cli.completion:install_completion",
        name="--install-completion",
        help="Let bash, zsh or fish complete what is typed.",
    )
    return app


def main() -> None:
    """Run the command that was typed, and leave with its exit code."""
    if sys.stdout is None:  # It was closed by whoever started us: `todoku … >&-`.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the end
    if not all(map(_is_text, sys.argv)):
        print("todoku: the command line is not UTF-8: type it in UTF-8.", file=sys.stderr)
        sys.exit(ExitCode.USAGE)
    try:
        outcome: Any = application(next(iter(sys.argv[1:]), None))()
        sys.stdout.flush()
    except CommandFailed as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_code)
    except LocalError as error:
        print(f"todoku: {error}", file=sys.stderr)
        sys.exit(LOCAL_EXIT_CODES[type(error)])
    except BrokenPipeError:
        _write_no_more()
        sys.exit(ExitCode.OUTPUT_CLOSED)
    except SystemExit as end:
        # rich, which draws the help, has an exit code of its own for a reader who went away.
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(ExitCode.OUTPUT_CLOSED)
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _write_no_more()
        print(f"todoku: the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(ExitCode.FAILED)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(outcome)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write_no_more() -> None:
    # What is still buffered would fail again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
