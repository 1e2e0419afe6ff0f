"""Show orders and their histories over HTTP."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from todoku.contracts import ActivePause, CancelledItem, OrderedItem, Personal
from todoku.engine import PauseState
from todoku.orders.changes import Change, ChangeState
from todoku.orders.domain import Order, OrderStatus
from todoku.orders.holds_http import HoldView, hold_view
from todoku.orders.parking import ParkedMessage
from todoku.orders.pausing import INVENTORY, ORDERS, SHIPPING, Pauses
from todoku.orders.store import HistoryEntry, OrdersStore, find_order, find_parked, pauses_elsewhere
from todoku.orders.waiting_for import NOTHING_PAUSED, WaitingView, waiting_view

V = TypeVar("V", bound=msgspec.Struct)


class CancellationView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The cancellation of an order: `requested`, or `confirmed` or `refused` at `decidedAt`. `by` is who
    asked for it, null if that is unknown; `refusal` says why it was refused."""

    state: ChangeState
    by: Annotated[str | None, Personal]
    reason: str | None
    requested_at: datetime
    decided_at: datetime | None
    refusal: str | None


class ChangeView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change of an order: these `items` were to be cancelled; `whole` if nothing was left without them.
    The other fields are those of a cancellation."""

    id: str
    items: tuple[CancelledItem, ...]
    whole: bool
    state: ChangeState
    by: Annotated[str | None, Personal]
    reason: str | None
    requested_at: datetime
    decided_at: datetime | None
    refusal: str | None


class LineView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The pieces of one product: how many were ordered, are reserved, were shipped, and were cancelled."""

    product_id: str
    ordered: int
    reserved: int
    shipped: int
    cancelled: int


class ParkedView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A parked message about the order: it needs manual action, `since` when, because of an error of
    this class. GET /dead-letters/{letterId} of that service shows the details."""

    service: str
    letter_id: str
    event_type: str
    error: str
    since: datetime


class OrderView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An order. `totalAmount` and prices are in minor units of `currency`; `waitingFor` is null once it
    has ended."""

    id: str
    user_id: Annotated[str, Personal]
    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str
    shipping_address: Annotated[str, Personal]
    status: OrderStatus
    reason: str | None
    shipment_id: str | None
    tracking_number: str | None
    created_at: datetime
    updated_at: datetime
    parked: list[ParkedView]
    cancellation: CancellationView | None
    deadline: datetime | None
    on_shortage: str
    lines: list[LineView]
    changes: list[ChangeView]
    waiting_for: WaitingView | None
    holds: list[HoldView]


class OrderEventView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An event about an order: it occurred at `time`, was published by `source` and recorded here at
    `recordedAt`. `actor` asked for it, and `cause` is the id of the event that led to it; null if nobody
    is known, or if a request did. `status` is the order's status after it, `data` the event."""

    sequence: int
    id: str
    type: str
    source: str
    actor: str | None
    cause: str | None
    time: datetime
    recorded_at: datetime
    status: OrderStatus
    data: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]


def find_view(connection: Connection, order_id: str) -> OrderView | None:
    """Return the order with this id as it is shown; None if there is none."""
    order = find_order(connection, order_id)
    return None if order is None else views_of(connection, [order])[0]


def views_of(connection: Connection, orders: Sequence[Order]) -> list[OrderView]:
    """Return these orders as they are shown, with the parked messages about them."""
    parked = find_parked(connection, [order.id for order in orders])
    pauses = find_pauses(connection, orders)
    return [view_of(order, parked.get(order.id, []), pauses) for order in orders]


def view_of(
    order: Order, parked: Sequence[ParkedMessage], pauses: Pauses = NOTHING_PAUSED
) -> OrderView:
    """Return an order as it is shown, with these parked messages about it, where this is paused."""
    cancellation = order.cancellation
    return OrderView(
        id=order.id,
        user_id=order.user_id,
        items=order.items,
        total_amount=order.total_amount,
        currency=order.currency,
        shipping_address=order.shipping_address,
        status=order.status,
        reason=order.reason,
        shipment_id=order.shipment_id,
        tracking_number=order.tracking_number,
        created_at=order.created_at,
        updated_at=order.updated_at,
        parked=[_parked_view(message) for message in parked],
        cancellation=None if cancellation is None else _as(cancellation, CancellationView),
        deadline=order.deadline,
        on_shortage=order.on_shortage or "cancel",
        lines=_lines(order),
        changes=[_as(change, ChangeView) for change in order.changes],
        waiting_for=waiting_view(order, parked, pauses),
        holds=[hold_view(hold) for hold in order.holds],
    )


def find_pauses(connection: Connection, orders: Sequence[Order]) -> Pauses:
    """Return what is paused here and at the services that these orders wait for."""
    if all(order.status.terminal for order in orders):
        return NOTHING_PAUSED
    own = [
        ActivePause(
            id=each.id,
            target=each.target,
            paused_at=each.paused_at,
            paused_by=each.paused_by,
            reason=each.reason,
        )
        for each in OrdersStore.tables.pauses.open(connection)
        if each.state is PauseState.PAUSED
    ]
    return {**pauses_elsewhere.find(connection, (INVENTORY, SHIPPING)), ORDERS: own}


def _lines(order: Order) -> list[LineView]:
    wanted = {} if order.status is OrderStatus.CANCELLED else order.wanted
    reserved = wanted if order.status is OrderStatus.AWAITING_SHIPMENT else {}
    shipped = wanted if order.status is OrderStatus.COMPLETED else {}
    return [
        LineView(
            product_id=item.product_id,
            ordered=item.quantity,
            reserved=reserved.get(item.product_id, 0),
            shipped=shipped.get(item.product_id, 0),
            cancelled=item.quantity - wanted.get(item.product_id, 0),
        )
        for item in order.items
    ]


def _as(change: Change, view: type[V]) -> V:
    """Return the fields of a change that a view has."""
    return view(**{name: getattr(change, name) for name in view.__struct_fields__})


def _parked_view(message: ParkedMessage) -> ParkedView:
    return ParkedView(
        service=message.service,
        letter_id=message.letter_id,
        event_type=message.message_type,
        error=message.error,
        since=message.parked_at,
    )


def event_view(entry: HistoryEntry) -> OrderEventView:
    """Return an event of a history as it is shown."""
    return OrderEventView(
        sequence=entry.sequence,
        id=entry.event_id,
        type=entry.type,
        source=entry.source,
        actor=entry.actor,
        cause=entry.cause,
        time=entry.said_at,
        recorded_at=entry.recorded_at,
        status=OrderStatus.stored(entry.status),
        data=entry.data,
    )
