"""The output of `todoku up`: its own messages on stdout, its programs' lines on stderr."""

import os
from collections.abc import Mapping
from typing import TextIO

import msgspec

from todoku.broker.embedded import read_log
from todoku.local.log_files import LogFiles
from todoku.redaction import redact
from todoku.settings import Settings
from todoku.system import load_system

NAME_WIDTH = 9
ANSI_COLOURS: Mapping[str, int] = {
    "red": 31,
    "green": 32,
    "yellow": 33,
    "blue": 34,
    "magenta": 35,
    "cyan": 36,
    "white": 37,
}
"""Foreground colours (ECMA-48, SGR)."""

ROUTINE_LEVELS = frozenset({"debug", "info"})


class Console:
    """Prints messages of `up` to stdout, and the programs' lines to stderr.

    In the console format each line is prefixed with its program's name; in JSON each line is an
    object, also if the program wrote plain text. The broker's routine lines are omitted unless
    `log_level` is `debug`. The `files` get the same lines. If the reader closes the pipe, further output
    is discarded.
    """

    def __init__(
        self, settings: Settings, *, out: TextIO, err: TextIO, files: LogFiles | None = None
    ) -> None:
        self._files = files
        self._out = out
        self._err = err
        self._colours = {each.name: ANSI_COLOURS[each.colour] for each in load_system(settings)}
        self._colours["broker"] = ANSI_COLOURS["blue"]
        self._broker_in_full = settings.log_level == "debug"
        self.log_format = log_format(settings, err)
        self.coloured = err.isatty() and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """Print a message to stdout."""
        _write(self._out, text)

    def show(self, program: str, line: bytes) -> None:
        """Print a line of a program to stderr."""
        text = line.decode(errors="replace").rstrip("\r")
        if not text.startswith("{"):  # Not from a logger, which redacts: such as a traceback.
            text = redact(text)
        if program == "broker" and self._is_routine(text):
            return
        if self._files is not None:
            self._files.write(program, text)
        _write(
            self._err,
            _as_json(program, text) if self.log_format == "json" else self._prefixed(program, text),
        )

    def _is_routine(self, text: str) -> bool:
        entry = read_log(text)
        return entry is not None and entry.level in ROUTINE_LEVELS and not self._broker_in_full

    def _prefixed(self, program: str, text: str) -> str:
        name = f"{program:<{NAME_WIDTH}} |"
        if self.coloured:
            name = f"\x1b[{self._colours.get(program, 0)}m{name}\x1b[0m"
        return f"{name} {text}"


def log_format(settings: Settings, err: TextIO) -> str:
    """Return the log format; for `auto`, depending on whether `err` is a terminal."""
    if settings.log_format != "auto":
        return settings.log_format
    return "console" if err.isatty() else "json"


def _as_json(program: str, text: str) -> str:
    if text.startswith("{"):
        return text
    entry = read_log(text) if program == "broker" else None
    return msgspec.json.encode(entry or {"service": program, "event": text}).decode()


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError:
        # The pipe or the terminal is closed. Otherwise flushing the buffer at exit fails again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
