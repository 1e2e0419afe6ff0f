"""How a service's events read on a terminal: in `todoku order watch`, `order show` and its history."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from todoku.currencies import DECIMALS

Colour = Literal["red", "green", "yellow", "blue", "magenta", "cyan", "white"]


class Detail(msgspec.Struct, frozen=True):
    """A line below an event; `mark` says whether it undoes something or needs a person."""

    text: str
    mark: Literal["plain", "compensation", "parked"] = "plain"


class Narration(msgspec.Struct, frozen=True, kw_only=True):
    """What a service contributes to an order's history.

    details: by type of its own events, the lines to print below one.
    awaited: by type of event, what this service does next about it.
    """

    details: Mapping[type[Any], Callable[[Any], Iterable[Detail]]] = {}
    awaited: Mapping[type[Any], str] = {}


class Parked(Protocol):
    """An event about a dead letter."""

    @property
    def message_type(self) -> str:
        """The type of the message that is parked."""

    @property
    def error(self) -> str:
        """The class of the error."""


def parked_details(event: Parked) -> Iterable[Detail]:
    """Describe that a message was parked."""
    yield Detail(f"{event.message_type} failed ({event.error}) and needs manual action", "parked")


def resolved_details(event: Parked) -> Iterable[Detail]:
    """Describe that a parked message is resolved."""
    yield Detail(f"the parked {event.message_type} is resolved")


ITEMS_NAMED_MAX = 8


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
