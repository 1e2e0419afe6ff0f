"""Publish the catalogue: pure functions.

Each change of a product publishes it. A publication publishes every product once more, in pages: for a
subscriber that has none of them yet, or no longer.
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import UNSET

from todoku.contracts import Event, ProductChangedEvent
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
    """Restore a product, or a change of it, that the database has lost from its event."""
    product = stock.products.get(event.product_id)
    if product is not None and product.version > event.version:
        return stock, []
    opening = 0 if event.opening_stock is UNSET else event.opening_stock
    if product is None:
        entries = (
            LedgerEntry(
                product_id=event.product_id, quantity=opening, reason=LedgerReason.OPENING, at=time
            ),
        )
        return Stock(products={event.product_id: _lost(event, opening, time)}, entries=entries), []
    restored = msgspec.structs.replace(
        product,
        name=event.name,
        price=event.price,
        currency=event.currency,
        version=event.version,
        changed_at=event.changed_at,
        archived=event.archived,
        updated_at=max(product.updated_at, time),
    )
    # Of two changes with the same version, subscribers know the one that was published.
    return (stock if restored == product else Stock(products={product.id: restored})), []


def _lost(event: ProductChangedEvent, on_hand: int, time: datetime) -> Product:
    """Return a product that the database does not have."""
    return Product(
        id=event.product_id,
        name=event.name,
        price=event.price,
        currency=event.currency,
        on_hand=on_hand,
        reserved=0,
        created_at=time,
        updated_at=time,
        version=event.version,
        changed_at=event.changed_at,
        archived=event.archived,
    )
