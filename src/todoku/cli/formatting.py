"""Format amounts, times, counts and lists of items for people."""

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

ITEMS_NAMED_MAX = 8

DECIMALS = {
    currency: places
    for places, currencies in {
        0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
        3: "BHD IQD JOD KWD LYD OMR TND",
        4: "CLF UYW",
    }.items()
    for currency in currencies.split()
}
"""Decimal places of the currencies that do not have two. Source: ISO 4217, list one."""


class Line(Protocol):
    """A product and its quantity."""

    @property
    def product_id(self) -> str:
        """The product's id."""

    @property
    def quantity(self) -> int:
        """The number of units."""


def money(minor_units: int, currency: str) -> str:
    """Format an amount in the currency's major units: 13000 of JPY is `13,000 JPY`, of EUR `130.00 EUR`."""
    decimals = DECIMALS.get(currency, 2)
    whole, fraction = divmod(minor_units, 10**decimals)
    return f"{whole:,}{f'.{fraction:0{decimals}}' if decimals else ''} {currency}"


def item_list(items: Sequence[Line]) -> str:
    """Format items on one line: `prod001 ×2, prod002 ×1`; of a long list, the first few."""
    named = ", ".join(f"{item.product_id} ×{item.quantity:,}" for item in items[:ITEMS_NAMED_MAX])
    more = len(items) - ITEMS_NAMED_MAX
    return f"{named} and {more:,} more" if more > 0 else named


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
