"""Publish the catalogue: pure functions.

Each change of a product publishes it. A publication publishes every product once more, in pages: for a
subscriber that has none of them yet, or no longer.
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import UNSET

from todoku.contracts import Event, ProductChangedEvent, fact_id
from todoku.inventory.domain.stock import (
    LedgerEntry,
    LedgerReason,
    Product,
    Publication,
    Stock,
)

PAGE: Final = 200
"""How many products one batch publishes at most."""

PAUSE: Final = timedelta(milliseconds=50)
"""How long other work comes first between two pages."""


class PublishCatalogue(msgspec.Struct, frozen=True):
    """Publish every product again. One that is still going on begins anew."""


def changed_event(product: Product, opening_stock: int | None = None) -> ProductChangedEvent:
    """Return the event that tells of a product as it is now."""
    return ProductChangedEvent(
        product_id=product.id,
        version=product.version,
        name=product.name,
        price=product.price,
        currency=product.currency,
        changed_at=product.changed_at or product.created_at,
        archived=product.archived,
        opening_stock=UNSET if opening_stock is None else opening_stock,
    )


def next_version(product: Product | None, now: datetime) -> int:
    """Return the version of a product that is changed now.

    It is the time in milliseconds, or one more than the version before. So it also grows where the database
    has lost the versions before: subscribers keep what has the highest version.
    """
    milliseconds = int(now.timestamp() * 1000)
    return milliseconds if product is None else max(product.version + 1, milliseconds)


def publish_catalogue(
    stock: Stock, command: PublishCatalogue, now: datetime
) -> tuple[Stock, list[Event]]:
    """Begin to publish every product."""
    return Stock(products={}, publication=Publication(due_at=now + PAUSE)), []


def publish_page(stock: Stock, now: datetime) -> tuple[Stock, list[Event]]:
    """Publish the next products, which are those of the state in the sequence of the database."""
    assert stock.publication is not None
    page = list(stock.products)
    ended = len(page) < PAGE
    publication = Publication(
        after=page[-1] if page else stock.publication.after,
        due_at=None if ended else now + PAUSE,
    )
    return Stock(products={}, publication=publication), [
        changed_event(stock.products[key]) for key in page
    ]


def replay_product(
    stock: Stock, event: ProductChangedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Restore a product, or a change of it, that the database has lost from its event. The stock with which
    it was created is entered once, also if the event that has it arrives after those of later versions."""
    entries = _lost_opening(stock, event, time)
    before = stock.products.get(event.product_id)
    after = _lost(event, time) if before is None else _replayed(before, event, time)
    for entry in entries:
        after = after.moved(after.updated_at, on_hand=entry.quantity)
    if after == before and not entries:
        return stock, []
    return Stock(products={after.id: after}, entries=entries), []


def opening_id(product_id: str) -> str:
    """Return the id of the ledger entry with the stock with which a product was created."""
    return fact_id(product_id, "opening")


def opening_entry(product_id: str, quantity: int, at: datetime) -> LedgerEntry:
    """Return the ledger entry with the stock with which a product was created."""
    return LedgerEntry(
        product_id=product_id,
        quantity=quantity,
        reason=LedgerReason.OPENING,
        at=at,
        adjustment_id=opening_id(product_id),
    )


def _lost_opening(
    stock: Stock, event: ProductChangedEvent, time: datetime
) -> tuple[LedgerEntry, ...]:
    if event.opening_stock is UNSET or opening_id(event.product_id) in stock.adjusted:
        return ()
    return (opening_entry(event.product_id, event.opening_stock, time),)


def _replayed(product: Product, event: ProductChangedEvent, time: datetime) -> Product:
    """Return the product as the event has it. Of two changes with the same version, subscribers know the
    one that was published."""
    if product.version > event.version:
        return product
    return msgspec.structs.replace(
        product,
        name=event.name,
        price=event.price,
        currency=event.currency,
        version=event.version,
        changed_at=event.changed_at,
        archived=event.archived,
        updated_at=max(product.updated_at, time),
    )


def _lost(event: ProductChangedEvent, time: datetime) -> Product:
    """Return a product that the database does not have."""
    return Product(
        id=event.product_id,
        name=event.name,
        price=event.price,
        currency=event.currency,
        on_hand=0,
        reserved=0,
        created_at=time,
        updated_at=time,
        version=event.version,
        changed_at=event.changed_at,
        archived=event.archived,
    )
