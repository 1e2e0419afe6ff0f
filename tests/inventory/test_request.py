"""Tests of the events on which stock is reserved."""

import pytest

from todoku.contracts import OrderCompletedEvent, OrderCreatedEvent
from todoku.inventory.domain.request import require_passed_on


def test_event_that_loses_the_holds_of_an_order_is_refused() -> None:
    """Otherwise an order that was placed with a hold is shipped."""
    require_passed_on([OrderCreatedEvent])
    with pytest.raises(TypeError, match=r"OrderCompletedEvent has no .*holds.*OrderCreatedEvent"):
        require_passed_on([OrderCreatedEvent, OrderCompletedEvent])
