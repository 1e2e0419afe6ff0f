"""Format amounts, times, counts and lists of items for people."""

import unicodedata
from datetime import datetime

from todoku.narration import item_list, money

__all__ = [
    "age",
    "clock_time",
    "counted",
    "day_and_time",
    "item_list",
    "later",
    "money",
    "printable",
]


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Format a count with its noun: `1 dead letter`, `2 dead letters`, `1,000 entries`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


def age(since: datetime, now: datetime) -> str:
    """Format a duration until `now` in one unit: `12s`, `3m`, `2h`, `5d`."""
    seconds = max(0, int((now - since).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def day_and_time(instant: datetime) -> str:
    """Format an instant in the local time zone."""
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def clock_time(instant: datetime) -> str:
    """Format the local time of day, with milliseconds."""
    local = instant.astimezone()
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03}"


def later(start: datetime, instant: datetime) -> str:
    """Format the time since `start`: `+15 ms`, from 100 seconds on `+101 s`."""
    milliseconds = round((instant - start).total_seconds() * 1_000)
    if abs(milliseconds) < 100_000:
        return f"{milliseconds:+} ms"
    return f"{milliseconds // 1_000:+} s"


def printable(text: str) -> str:
    """Replace control and reordering characters, so that a text stays on one line of a terminal."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if _is_control(character) else character for character in text
    )


def _is_control(character: str) -> bool:
    """Return whether a character controls or reorders output, or ends a line."""
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")
