"""Define an order and its decisions as pure functions: values in, values out.

    PENDING
    ├─ StockReservedEvent, ShipmentInitiatedEvent ─▶ AWAITING_SHIPMENT
    │     ├─ ShipmentCompletedEvent ─▶ COMPLETED
    │     ├─ cancel ─▶ CANCELLING
    │     │     ├─ StockReleasedEvent ─▶ CANCELLED
    │     │     └─ CancellationRefusedEvent ─▶ AWAITING_SHIPMENT (see above)
    │     └─ ShipmentFailedEvent ─▶ SHIPMENT_FAILED
    ├─ StockReservationFailedEvent ─▶ CANCELLED_NO_STOCK
    └─ cancel ─▶ CANCELLING (see above)

CANCELLING is a detour: a cancellation that is refused leads back. Its decisions are in `cancellation.py`.

Events about one order come from two services and may arrive in any sequence, so a status only moves
forward: a late event is kept in the history and changes nothing. Two outcomes that exclude each other
are never both true; the second one is an error and becomes a dead letter.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET

from todoku.contracts import (
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    Event,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    OrderedItem,
    OrderEvent,
    Personal,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.lifecycle import Lifecycle, Stage, Status
from todoku.orders.booking_failures import BookingFailure
from todoku.orders.changes import Change, ChangeState, cancelled_lines, without
from todoku.orders.holds import Hold, closed_by_ending, placed_holds


class OrderError(Exception):
    """A command or an event cannot be applied to an order."""


class UnknownOrder(OrderError):
    """No order has this id."""


class ContradictoryEvent(OrderError):
    """An event contradicts the status of its order."""


class OrderStatus(Status):
    """The status of an order."""

    PENDING = (
        "PENDING",
        Stage(meaning="The order is accepted.", publishes=(OrderCreatedEvent,), waits_for="stock"),
    )
    AWAITING_SHIPMENT = (
        "AWAITING_SHIPMENT",
        Stage(
            meaning="Its stock is reserved.",
            after=("PENDING",),
            on=(StockReservedEvent, ShipmentInitiatedEvent),
            implies={"reservation": ("RESERVED", "SHIPPED", "RELEASED")},
            waits_for="carrier",
        ),
    )
    COMPLETED = (
        "COMPLETED",
        Stage(
            meaning="The carrier accepted the parcel.",
            after=("AWAITING_SHIPMENT",),
            on=(ShipmentCompletedEvent,),
            publishes=(OrderCompletedEvent,),
            implies={"reservation": ("SHIPPED",), "shipment": ("COMPLETED",)},
        ),
    )
    CANCELLED_NO_STOCK = (
        "CANCELLED_NO_STOCK",
        Stage(
            meaning="Not enough stock; nothing is reserved.",
            after=("PENDING",),
            on=(StockReservationFailedEvent,),
            publishes=(OrderCancelledEvent,),
            implies={"reservation": ("REFUSED",), "shipment": (None, "EXPECTED", "CANCELLED")},
            failure=True,
        ),
    )
    CANCELLING = (
        "CANCELLING",
        Stage(
            meaning="Its cancellation is requested; it may be too late for that.",
            after=("PENDING", "AWAITING_SHIPMENT"),
            on=("cancel",),
            publishes=(CancellationRequestedEvent,),
            returns_to="AWAITING_SHIPMENT",
            returns_on=(CancellationRefusedEvent,),
            waits_for="cancellation",
        ),
    )
    CANCELLED = (
        "CANCELLED",
        Stage(
            meaning="It was cancelled before the carrier was called; nothing is reserved.",
            after=("CANCELLING",),
            on=(StockReleasedEvent,),
            publishes=(OrderCancelledEvent,),
            implies={"reservation": ("RELEASED", "CANCELLED"), "shipment": ("CANCELLED",)},
            failure=True,
        ),
    )
    SHIPMENT_FAILED = (
        "SHIPMENT_FAILED",
        Stage(
            meaning="The carrier rejected the parcel; the stock is released.",
            after=("AWAITING_SHIPMENT",),
            on=(ShipmentFailedEvent,),
            publishes=(OrderCancelledEvent,),
            implies={"reservation": ("RELEASED",), "shipment": ("FAILED",)},
            failure=True,
        ),
    )


ORDER: Final = Lifecycle("order", OrderStatus)

BEHIND_PIVOT: Final = (OrderStatus.COMPLETED, OrderStatus.SHIPMENT_FAILED)
"""The endings behind the pivot: no order with a confirmed cancellation has one of them."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an order. `total_amount` is in minor units of `currency`; times are UTC.

    `saga_version` is the version of the saga in which it was accepted. `changes` and `holds` are in
    the sequence in which they were requested, and only grow. At its `deadline` its cancellation is
    requested; it is also `due_at` as long as that may happen. An order from before
    version 0.2 has none until a process of a later version has started.

    With `on_shortage` it waits for missing stock, since `stock_awaited_at`; None if it is cancelled then.
    `status_since` is when it got its status; None for one that got it before this was kept.
    `booking_failure` tells why its parcel is not booked yet, if shipping has published that.
    """

    id: str
    user_id: Annotated[str, Personal]
    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str
    shipping_address: Annotated[str, Personal]
    status: OrderStatus
    created_at: datetime
    updated_at: datetime
    reason: str | None = None
    shipment_id: str | None = None
    tracking_number: str | None = None
    saga_version: int = 1
    changes: tuple[Change, ...] = ()
    deadline: datetime | None = None
    due_at: datetime | None = None
    holds: tuple[Hold, ...] = ()
    status_since: datetime | None = None
    on_shortage: str | None = None
    stock_awaited_at: datetime | None = None
    booking_failure: BookingFailure | None = None

    @property
    def held(self) -> bool:
        """Return whether a hold is open."""
        return any(hold.is_open for hold in self.holds)

    @property
    def cancellation(self) -> Change | None:
        """Return the cancellation of the whole order; None if nobody asked for it."""
        if not self.changes:  # As in most orders.
            return None
        return next((change for change in reversed(self.changes) if change.whole), None)

    @property
    def left(self) -> Mapping[str, int]:
        """Return by product how many pieces nobody has asked to cancel, or were refused."""
        return self._without(each for each in self.changes if each.state is not ChangeState.REFUSED)

    @property
    def wanted(self) -> Mapping[str, int]:
        """Return by product how many pieces are not cancelled as single lines."""
        return self._without(cancelled_lines(self.changes))

    def _without(self, changes: Iterable[Change]) -> Mapping[str, int]:
        pieces = {item.product_id: item.quantity for item in self.items}
        if not self.changes:
            return pieces
        left = without(pieces, changes)
        return {product_id: quantity for product_id, quantity in left.items() if quantity > 0}


def saga_version_of(state: object) -> int | None:
    """Return the version of an order's saga; None for what is no order."""
    return state.saga_version if isinstance(state, Order) else None


def with_saga_version(order: Order, version: int) -> Order:
    """Return the order in this version of the saga."""
    return msgspec.structs.replace(order, saga_version=version)


def confirm_reservation(
    order: Order | None, event: StockReservedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Wait for the shipment of the reserved stock."""
    return advance(known(order, event), event, now), []


def cancel_for_lack_of_stock(
    order: Order | None, event: StockReservationFailedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """End the order as CANCELLED_NO_STOCK: there is not enough stock."""
    order = known(order, event)
    cancelled = advance(order, event, now, reason=event.reason)
    if cancelled is order:
        return order, []
    return cancelled, [cancelled_event(cancelled)]


def note_shipment(
    order: Order | None, event: ShipmentInitiatedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Record the shipment. An open shipment implies reserved stock, even if that event is still to come."""
    advanced = advance(known(order, event), event, now, shipment_id=event.shipment_id)
    if advanced.shipment_id == event.shipment_id:
        return advanced, []  # Late: a repeat, or the outcome of the shipment arrived first.
    # An ended order keeps the time at which it ended.
    updated_at = advanced.updated_at if advanced.status.terminal else now
    noted = msgspec.structs.replace(advanced, shipment_id=event.shipment_id, updated_at=updated_at)
    return noted, []


def complete(
    order: Order | None, event: ShipmentCompletedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Complete the order: the carrier accepted the parcel."""
    order = known(order, event)
    completed = advance(
        order,
        event,
        now,
        shipment_id=event.shipment_id,
        tracking_number=event.tracking_number,
    )
    if completed is order:
        return order, []
    if not completed.changes:
        return completed, [completed_event(completed)]
    # What was shipped, also where the confirmation of a change is still to come.
    shipped = {item.product_id: item.quantity for item in event.items}
    return completed, [completed_event(completed, shipped)]


def fail(
    order: Order | None, event: ShipmentFailedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Fail the order: the carrier rejected the parcel."""
    order = known(order, event)
    failed = advance(order, event, now, shipment_id=event.shipment_id, reason=event.reason)
    if failed is order:
        return order, []
    return failed, [cancelled_event(failed)]


def created_event(order: Order) -> OrderCreatedEvent:
    return OrderCreatedEvent(
        order_id=order.id,
        user_id=order.user_id,
        items=order.items,
        total_amount=order.total_amount,
        currency=order.currency,
        shipping_address=order.shipping_address,
        deadline=UNSET if order.deadline is None else order.deadline,
        holds=placed_holds(order.holds) or UNSET,
        on_shortage=UNSET if order.on_shortage is None else order.on_shortage,
        created_at=UNSET if order.on_shortage is None else order.created_at,
    )


def advance(order: Order, event: Event, now: datetime, **changes: Any) -> Order:
    """Return the order in the status that the event leads to, with these changes; the same order if the
    event is late.

    Raises `ContradictoryEvent` if that status excludes the current one.
    """
    status = ORDER.next_status(order.status, type(event))
    if status is None or (status in BEHIND_PIVOT and _cancelled(order)):
        raise contradiction(order, event)
    if status is order.status:
        return order  # Late: a later event of the saga arrived before this one.
    if status.terminal:
        changes["due_at"] = None
        if order.holds:
            changes["holds"] = closed_by_ending(order.holds, now)
    return in_status(order, status, now, **changes)


def in_status(order: Order, status: OrderStatus, now: datetime, **changes: Any) -> Order:
    """Return the order in another status from now on, with these changes."""
    return msgspec.structs.replace(
        order, status=status, status_since=now, updated_at=now, **changes
    )


def _cancelled(order: Order) -> bool:
    """Return whether shipping has confirmed that nothing will be shipped."""
    cancellation = order.cancellation
    return cancellation is not None and cancellation.state is ChangeState.CONFIRMED


def completed_event(order: Order, shipped: Mapping[str, int] | None = None) -> OrderCompletedEvent:
    items, amount = order.items, order.total_amount
    if order.changes:
        pieces = order.wanted if shipped is None else shipped
        items = tuple(
            msgspec.structs.replace(item, quantity=pieces[item.product_id])
            for item in order.items
            if item.product_id in pieces
        )
        amount = sum(item.quantity * item.price for item in items)
    return OrderCompletedEvent(
        order_id=order.id,
        user_id=order.user_id,
        items=items,
        total_amount=amount,
        currency=order.currency,
        shipment_id=order.shipment_id,
        tracking_number=order.tracking_number,
    )


def cancelled_event(order: Order) -> OrderCancelledEvent:
    return OrderCancelledEvent(
        order_id=order.id,
        user_id=order.user_id,
        status=order.status.value,
        reason=order.reason or "",
        items=order.items,
        total_amount=order.total_amount,
        currency=order.currency,
        shipment_id=order.shipment_id,
    )


def known(order: Order | None, event: OrderEvent) -> Order:
    if order is None:
        raise UnknownOrder(
            f"{type(event).__name__} for order {event.order_id}: the orders database has no such "
            "order. If it was restored from a backup, retry this message after the recovery."
        )
    return order


def contradiction(order: Order, event: Event) -> ContradictoryEvent:
    return ContradictoryEvent(
        f"{type(event).__name__} for order {order.id} contradicts its status {order.status}"
    )
