"""Decide on a new order: pure functions."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from todoku.contracts import MAX_SAFE_INTEGER, Event, OrderedItem, Personal
from todoku.orders.catalogue import CatalogueEntry
from todoku.orders.domain import Order, OrderError, OrderStatus, created_event
from todoku.orders.holding import NewHold, holds_with_order
from todoku.orders.holds import hold_requested
from todoku.orders.pricing import PricePolicy, UnpricedItem, price_items

DEADLINE_AFTER_MAX: Final = timedelta(days=3_650)
"""How far ahead a deadline may be."""


NO_CATALOGUE: Final[Mapping[str, CatalogueEntry]] = {}
CATALOGUE_PRICES: Final = PricePolicy()


class InvalidOrder(OrderError):
    """The command can never become an order; the message names what to change."""


class InvalidDeadline(OrderError):
    """The deadline of a new order is in the past, or too far ahead."""


class PlaceOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Place an order. The edge generates `order_id`, a UUIDv7, so that a repeated command is one order; `by`
    is who asks for its holds. Without a `currency`, it is that of the products."""

    order_id: str
    user_id: Annotated[str, Personal]
    items: tuple[OrderedItem | UnpricedItem, ...]
    currency: str | None = None
    shipping_address: Annotated[str, Personal] = ""
    deadline: datetime | None = None
    holds: tuple[NewHold, ...] = ()
    on_shortage: str | None = None
    by: Annotated[str | None, Personal] = None


class Placement(msgspec.Struct, frozen=True, gc=False):
    """What a new order is decided with: the order, if it was placed before, and what the catalogue says about
    its products (and perhaps others)."""

    order: Order | None
    catalogue: Mapping[str, CatalogueEntry]


def place(
    placement: Placement,
    command: PlaceOrder,
    now: datetime,
    *,
    deadline_after: timedelta | None,
    holders: Collection[str],
    policy: PricePolicy,
) -> tuple[Order, list[Event]]:
    """Accept an order for the prices of the catalogue, as `place_order` does."""
    return place_order(
        placement.order,
        command,
        now,
        deadline_after=deadline_after,
        holders=holders,
        catalogue=placement.catalogue,
        policy=policy,
    )


def place_order(
    order: Order | None,
    command: PlaceOrder,
    now: datetime,
    *,
    deadline_after: timedelta | None = None,
    holders: Collection[str] = (),
    catalogue: Mapping[str, CatalogueEntry] = NO_CATALOGUE,
    policy: PricePolicy = CATALOGUE_PRICES,
) -> tuple[Order, list[Event]]:
    """Accept an order, with its own deadline or one that is `deadline_after` now, for the prices that the
    `policy` says. Placing an existing order again changes nothing."""
    if order is not None:
        return order, []
    deadline = _deadline(command, now, deadline_after)
    priced, currency = price_items(command.items, command.currency, catalogue, now, policy)
    items = merge_lines(priced)
    placed = Order(
        id=command.order_id,
        user_id=command.user_id,
        items=items,
        total_amount=total_amount(items),
        currency=currency,
        shipping_address=command.shipping_address,
        status=OrderStatus.PENDING,
        created_at=now,
        updated_at=now,
        deadline=deadline,
        due_at=deadline,
        on_shortage=command.on_shortage,
        holds=holds_with_order(
            command.order_id, command.holds, now, holders=holders, by=command.by
        ),
        status_since=now,
    )
    requests = [hold_requested(placed.id, hold) for hold in placed.holds]
    return placed, [created_event(placed), *requests]


def _deadline(
    command: PlaceOrder, now: datetime, deadline_after: timedelta | None
) -> datetime | None:
    if command.deadline is None:
        return None if deadline_after is None else now + deadline_after
    if not now < command.deadline <= now + DEADLINE_AFTER_MAX:
        when = "is in the past" if command.deadline <= now else "is more than ten years ahead"
        raise InvalidDeadline(
            f"The deadline {command.deadline.isoformat()} {when}: it is {now.isoformat()} now."
        )
    return command.deadline.astimezone(UTC)


def merge_lines(items: Sequence[OrderedItem]) -> tuple[OrderedItem, ...]:
    """Merge the lines of the same product, in the sequence in which the products first appear."""
    if not items:
        raise InvalidOrder("An order needs at least one item.")
    prices: dict[str, int] = {}
    quantities: dict[str, int] = {}
    for item in items:
        if item.quantity < 1 or item.price < 0:
            raise InvalidOrder(
                f"Product {item.product_id!r}: the quantity must be at least 1, and the price at least 0."
            )
        if prices.setdefault(item.product_id, item.price) != item.price:
            raise InvalidOrder(
                f"Product {item.product_id!r} has two prices in this order, "
                f"{prices[item.product_id]} and {item.price}: send one price for each product."
            )
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.quantity
    if len(prices) == len(items):
        return tuple(items)
    return tuple(
        OrderedItem(product_id=product_id, quantity=quantities[product_id], price=price)
        for product_id, price in prices.items()
    )


def total_amount(items: tuple[OrderedItem, ...]) -> int:
    """Return the sum of all items in minor units."""
    total = sum(item.quantity * item.price for item in items)
    if total > MAX_SAFE_INTEGER or any(item.quantity > MAX_SAFE_INTEGER for item in items):
        raise InvalidOrder(
            f"The order amounts to {total}, more than the {MAX_SAFE_INTEGER} that JSON keeps "
            "exact: split it into several orders."
        )
    return total
