"""Print data to stdout and notes to stderr.

Tables are as wide as the terminal or `COLUMNS`; in files and pipes nothing is truncated. Colours
follow NO_COLOR and FORCE_COLOR. Text from outside is made `printable` first.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NoReturn

import msgspec
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from todoku.cli.formatting import printable
from todoku.cli.streams import write_json
from todoku.redaction import redact

UNCUT = 10_000
"""The width, in columns, for an output that is not a terminal."""


class _Console(Console):
    """A console that leaves the handling of a closed pipe to `main`."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def console() -> Console:
    """Return a console on stdout, for tables and styled text."""
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    return _Console(
        file=sys.stdout,
        width=None if has_width else UNCUT,
        markup=False,
        emoji=False,
        highlight=False,
    )


def write_object(raw: bytes) -> None:
    """Print one JSON value to stdout, indented."""
    write_json(msgspec.json.format(raw))


def write_line(raw: bytes) -> None:
    """Print one JSON value as a line (NDJSON), and flush it."""
    write_json(msgspec.json.format(raw, indent=-1))
    sys.stdout.flush()


def write_lines(values: Iterable[bytes]) -> None:
    """Print JSON values as lines (NDJSON)."""
    for value in values:
        write_line(value)


def note(text: str) -> None:
    """Print a note to stderr."""
    print(f"todoku: {redact(text)}", file=sys.stderr)


def suggest(command: str, purpose: str) -> None:
    """Print the next useful command to stderr, if that is a terminal."""
    if sys.stderr.isatty():
        print(f"\nNext, {purpose}:\n  {printable(command)}", file=sys.stderr)


def grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Return a table of names and values, one pair a row."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, printable(value))
    return table


KEY = partial(Column, no_wrap=True)
NUMBER = partial(Column, no_wrap=True, justify="right")
TEXT = Column
"""Kinds of columns: keys (shortened last), numbers (right-aligned) and text (shortened first)."""


def ids(header: str, values: Iterable[str]) -> Column:
    """Return a column for these ids, which are never shortened."""
    longest = max((len(printable(value)) for value in values), default=0)
    return Column(header, no_wrap=True, min_width=longest)


def table(*columns: Column, gap: int = 2) -> Table:
    """Return an empty table without lines, with `gap` spaces between its columns."""
    return Table(*columns, box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")


def cells(*values: str) -> Sequence[Text]:
    """Return a row of such a table: each value on one line, shortened with an ellipsis."""
    return [Text(printable(value), no_wrap=True, overflow="ellipsis") for value in values]
