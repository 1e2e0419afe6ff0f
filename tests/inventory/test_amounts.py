"""When a batch may leave products unlocked, because their exact amounts change none of its decisions."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from todoku.contracts import Event, OrderCreatedEvent, OrderedItem, ShipmentFailedEvent, ShippedItem
from todoku.database import ConstraintViolated
from todoku.inventory.amounts import require_only_moved
from todoku.inventory.domain import Product, Restock
from todoku.inventory.domain.queue import Queue
from todoku.inventory.store import amounts

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PRODUCT = Product(
    id="p",
    name="n",
    price=1,
    currency="JPY",
    on_hand=10,
    reserved=2,
    created_at=NOW,
    updated_at=NOW,
)


def order(quantity: int) -> Event:
    items = (OrderedItem(product_id="p", quantity=quantity, price=1),)
    return OrderCreatedEvent(order_id="o", user_id="u", items=items, total_amount=quantity)


def failure() -> Event:
    return ShipmentFailedEvent(
        order_id="o",
        shipment_id="s",
        reason="none",
        items=(ShippedItem(product_id="p", quantity=1),),
    )


@pytest.mark.parametrize(
    ("changes", "subjects", "floor"),
    [
        ({}, [order(3), order(5)], 8),
        ({}, [order(3), order(6)], None),  # One of them is refused.
        ({}, [failure()], 0),
        ({"low_stock_threshold": 4}, [order(3)], 8),
        ({"low_stock_threshold": 5}, [order(3)], None),  # It may become low.
        ({"low_stock_threshold": 9}, [order(1)], None),
        ({"low_stock_threshold": 9}, [failure()], 0),
        ({"queue": Queue(pieces=1)}, [order(1)], None),
        ({"queue": Queue(pieces=1)}, [failure()], None),
    ],
)
def test_floor_is_what_all_orders_of_the_batch_leave_unaffected(
    changes: dict[str, Any], subjects: list[Event], floor: int | None
) -> None:
    product = msgspec.structs.replace(PRODUCT, **changes)
    found = amounts.floors(subjects, {"p": product})
    assert found == (None if floor is None else {"p": floor})


def test_batch_that_does_more_than_move_stock_needs_locks() -> None:
    assert amounts.only_move([order(1), failure()])
    assert not amounts.only_move([order(1), Restock(product_id="p", quantity=1, adjustment_id="a")])


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"threshold_version": 1}, {"queue": Queue()}, {"archived": True}]
)
def test_other_changes_of_an_unlocked_product_are_refused(changes: dict[str, Any]) -> None:
    moved = PRODUCT.moved(NOW, reserved=1)
    require_only_moved({"p": PRODUCT}, {"p": moved})
    with pytest.raises(ConstraintViolated, match="is not locked"):
        require_only_moved({"p": PRODUCT}, {"p": msgspec.structs.replace(moved, **changes)})


def test_new_product_is_not_written_as_a_movement() -> None:
    with pytest.raises(ConstraintViolated, match="is not locked"):
        require_only_moved({}, {"p": PRODUCT})
