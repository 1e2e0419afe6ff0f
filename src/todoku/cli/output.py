"""Where a command writes: data on stdout, talk on stderr.

Tables are as wide as the terminal, or as `COLUMNS` says; into a file or a pipe nothing is cut off.
Colours follow NO_COLOR and FORCE_COLOR. What comes from outside is made `printable` first.
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

from todoku.cli.words import printable

UNCUT = 10_000
"""Columns of an output that has no width of its own."""


class _Console(Console):
    """A console that leaves it to `main` what a reader who went away means."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def console() -> Console:
    """Stdout, for data that is drawn."""
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    return _Console(
        file=sys.stdout,
        width=None if has_width else UNCUT,
        markup=False,
        emoji=False,
        highlight=False,
    )


def write_object(raw: bytes) -> None:
    """One JSON value as the data of a command, laid out for reading."""
    sys.stdout.write(msgspec.json.format(raw).decode() + "\n")


def write_line(raw: bytes) -> None:
    """One JSON value as a line of many (NDJSON), for a reader who is waiting for it."""
    sys.stdout.write(msgspec.json.format(raw, indent=-1).decode() + "\n")
    sys.stdout.flush()


def write_lines(values: Iterable[bytes]) -> None:
    """JSON values as lines (NDJSON)."""
    for value in values:
        write_line(value)


def say(text: str) -> None:
    """Talk to whoever typed the command."""
    print(f"todoku: {text}", file=sys.stderr)


def suggest(command: str, purpose: str) -> None:
    """The next sensible command: said to a person at a terminal, and to nobody else."""
    if sys.stderr.isatty():
        print(f"\nNext, {purpose}:\n  {printable(command)}", file=sys.stderr)


def grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and their values, below each other."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, printable(value))
    return table


KEY = partial(Column, no_wrap=True)
NUMBER = partial(Column, no_wrap=True, justify="right")
TEXT = Column
"""Columns: what is never shortened before the others are, numbers, and what is shortened."""


def ids(header: str, values: Iterable[str]) -> Column:
    """The column of these ids, which are whole at any width: half an id leads nowhere."""
    longest = max((len(printable(value)) for value in values), default=0)
    return Column(header, no_wrap=True, min_width=longest)


def table(*columns: Column, gap: int = 2) -> Table:
    """An empty table, without lines; `gap` spaces are between its columns."""
    return Table(*columns, box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")


def cells(*values: str) -> Sequence[Text]:
    """A row of such a table: each value on one line, with an ellipsis where it has no room."""
    return [Text(printable(value), no_wrap=True, overflow="ellipsis") for value in values]
