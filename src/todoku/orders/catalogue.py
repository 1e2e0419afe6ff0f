"""Keep a copy of inventory's catalogue, for the prices of new orders: pure functions."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from todoku.contracts import Event, ProductChangedEvent

GRACE: Final = timedelta(seconds=10)
"""How long a price that was replaced still counts: a customer may have seen it."""

REPLACED_MAX: Final = 20
"""How many replaced prices are kept of a product at most."""


class ReplacedPrice(msgspec.Struct, frozen=True):
    """A price in minor units of `currency` that another has replaced, `at` this time (UTC)."""

    price: int
    currency: str
    at: datetime


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalogue says about a product since `changed_at` (UTC), as the event of this `version` told.

    `price` is that of one piece in minor units of `currency`. `replaced` are its last prices.
    """

    product_id: str
    version: int
    name: str
    price: int
    currency: str
    archived: bool
    changed_at: datetime
    replaced: tuple[ReplacedPrice, ...] = ()

    def was(self, price: int, currency: str, now: datetime) -> bool:
        """Return whether this was the price of the product until less than `GRACE` ago."""
        return any(
            (each.price, each.currency) == (price, currency) and _is_recent(each, now)
            for each in self.replaced
        )


def note_product(
    entry: CatalogueEntry | None, event: ProductChangedEvent, now: datetime
) -> tuple[CatalogueEntry, list[Event]]:
    """Keep what the event says about a product. Late if a later version is known."""
    if entry is not None and event.version <= entry.version:
        return entry, []
    return CatalogueEntry(
        product_id=event.product_id,
        version=event.version,
        name=event.name,
        price=event.price,
        currency=event.currency,
        archived=event.archived,
        changed_at=event.changed_at,
        replaced=() if entry is None else _replaced(entry, event, now),
    ), []


def _replaced(
    entry: CatalogueEntry, event: ProductChangedEvent, now: datetime
) -> tuple[ReplacedPrice, ...]:
    """Return the recent prices of a product that is changed by the event.

    The clock of inventory may be ahead, and its event late: the price counts until the earlier of the two.
    """
    kept = tuple(each for each in entry.replaced if _is_recent(each, now))
    if (entry.price, entry.currency) != (event.price, event.currency):
        last = ReplacedPrice(entry.price, entry.currency, min(event.changed_at, now))
        kept = (*kept, last)
    return kept[-REPLACED_MAX:]


def _is_recent(replaced: ReplacedPrice, now: datetime) -> bool:
    # The clock may have been set back since: no longer than that either.
    return abs(now - replaced.at) < GRACE
