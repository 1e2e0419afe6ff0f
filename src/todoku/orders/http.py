"""HTTP operations of the orders service."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection
from uuid_utils import uuid7

from todoku.contracts import WAIT, CancelledItem, Personal
from todoku.identity import scopes
from todoku.orders.cancellation import CancelOrder, InvalidCancellation, TooLateToCancel
from todoku.orders.catalogue_http import catalogue_operations
from todoku.orders.domain import Order, UnknownOrder
from todoku.orders.feed_cursor import FeedRestarted
from todoku.orders.feed_http import feed_operations
from todoku.orders.holding import (
    InvalidHold,
    TooLateToHold,
    TooManyHolds,
    UnknownHold,
    UnknownHolder,
)
from todoku.orders.holds_http import (
    HOLD_PROBLEMS,
    RequestedHolds,
    hold_operations,
    wanted_holds,
)
from todoku.orders.list_query import OrderQuery
from todoku.orders.listing import OrderFilter, Part, count_orders, find_orders
from todoku.orders.order_streams import stream_operations
from todoku.orders.ownership import require_own_order, require_own_user
from todoku.orders.persons import ORDERS_PERSONS
from todoku.orders.placing import InvalidDeadline, InvalidOrder, PlaceOrder
from todoku.orders.pricing import PriceChanged
from todoku.orders.pricing_http import PRICE_REFUSALS, NewItem, price_changed, wanted_item
from todoku.orders.problems import (
    FEED_RESTARTED,
    INVALID_CANCELLATION,
    INVALID_DEADLINE,
    INVALID_HOLD,
    INVALID_ORDER,
    TOO_LATE_TO_CANCEL,
    TOO_LATE_TO_HOLD,
    TOO_MANY_HOLDS,
    UNKNOWN_HOLD,
    UNKNOWN_HOLDER,
    UNKNOWN_ORDER,
    unknown_order,
)
from todoku.orders.store import has_ended, history
from todoku.orders.views import OrderEventView, OrderView, event_view, find_view, view_of, views_of
from todoku.web import Api, Backend, Body, Call, Operation, Reply, SuccessResponse
from todoku.web.fields import (
    ITEMS_MAX,
    Address,
    Currency,
    Deadline,
    ProductId,
    Quantity,
    Reason,
    UserId,
    Uuid,
    canonical_uuid,
)
from todoku.web.keys import key_changing_operations
from todoku.web.paging import from_cursor, next_page, page_response
from todoku.web.persons import person_operations
from todoku.web.problems import DATABASE_UNAVAILABLE

OnShortage = Annotated[
    Literal["cancel", "wait"],
    Meta(
        description="What becomes of the order if there is not enough stock: it is cancelled, or it waits for"
        " stock until its deadline."
    ),
]


class NewOrder(Body, frozen=True, kw_only=True):
    """A new order. Lines with the same product are added up. Without a `currency`, it is that of the
    products, and JPY if the catalogue has none of them."""

    user_id: Annotated[UserId, Personal]
    items: Annotated[tuple[NewItem, ...], Meta(min_length=1, max_length=ITEMS_MAX)]
    shipping_address: Annotated[Address, Personal] = ""
    currency: Currency | None = None
    deadline: Deadline | None = None
    on_shortage: OnShortage = "cancel"
    holds: RequestedHolds = ()


class CancelledPieces(Body, frozen=True, kw_only=True, gc=False):
    """A number of pieces of one product."""

    product_id: ProductId
    quantity: Quantity


class Cancellation(Body, frozen=True, kw_only=True):
    """What is to be cancelled, and why; without `items`, everything that is left of the order."""

    reason: Reason | None = None
    items: (
        Annotated[tuple[CancelledPieces, ...], Meta(min_length=1, max_length=ITEMS_MAX)] | UnsetType
    ) = UNSET


class OrderPage(msgspec.Struct, frozen=True, rename="camel"):
    """Orders; `nextCursor` is null on the last page. `total` is there if it is asked for: how many orders
    match on all pages together, or a text such as `1000+`, which means at least so many."""

    items: list[OrderView]
    next_cursor: str | None
    total: int | str | UnsetType = UNSET


class OrderHistory(msgspec.Struct, frozen=True):
    """The history of an order, in the sequence in which this service recorded it."""

    items: list[OrderEventView]


def orders_api(backend: Backend) -> Api:
    """Return the API of the orders service."""
    routes = OrderRoutes(backend)
    order_id = {"orderId": Annotated[Uuid, Meta(description="The id of an order.")]}
    return Api(
        title="Todoku orders",
        description=ABOUT,
        refusals={
            InvalidOrder: INVALID_ORDER,
            **PRICE_REFUSALS,
            InvalidDeadline: INVALID_DEADLINE,
            UnknownOrder: UNKNOWN_ORDER,
            TooLateToCancel: TOO_LATE_TO_CANCEL,
            InvalidCancellation: INVALID_CANCELLATION,
            FeedRestarted: FEED_RESTARTED,
            UnknownHold: UNKNOWN_HOLD,
            UnknownHolder: UNKNOWN_HOLDER,
            InvalidHold: INVALID_HOLD,
            TooManyHolds: TOO_MANY_HOLDS,
            TooLateToHold: TOO_LATE_TO_HOLD,
        },
        operations=[
            *person_operations(backend, ORDERS_PERSONS),
            Operation(
                id="placeOrder",
                method="POST",
                scope=scopes.ORDERS_CREATE,
                own=True,
                path="/orders",
                summary="Place an order",
                description=ABOUT_PLACING,
                handle=routes.place,
                body=NewOrder,
                examples={"two products": EXAMPLE_ORDER},
                responses=[
                    SuccessResponse(
                        status=201,
                        description="The order is accepted and stored.",
                        content=OrderView,
                        headers={
                            "Location": "The path of the order.",
                            "Preference-Applied": "`wait=N`, if the request asked for it with Prefer.",
                        },
                    )
                ],
                problems=[
                    *PRICE_REFUSALS.values(),
                    INVALID_ORDER,
                    INVALID_DEADLINE,
                    *HOLD_PROBLEMS,
                ],
                waits=True,
            ),
            Operation(
                id="cancelOrder",
                method="POST",
                scope=scopes.ORDERS_CANCEL,
                own=True,
                path="/orders/{orderId}/cancel",
                path_parameters=order_id,
                summary="Cancel an order",
                description=ABOUT_CANCELLING,
                handle=routes.cancel,
                body=Cancellation,
                examples={
                    "a cancellation": {"reason": "Ordered twice."},
                    "one piece": {"items": [{"productId": "prod001", "quantity": 1}]},
                },
                responses=[
                    SuccessResponse(
                        status=202,
                        description="The cancellation is requested and stored.",
                        content=OrderView,
                    )
                ],
                problems=[UNKNOWN_ORDER, TOO_LATE_TO_CANCEL, INVALID_CANCELLATION],
            ),
            *hold_operations(backend),
            Operation(
                id="listOrders",
                method="GET",
                scope=scopes.ORDERS_READ,
                own=True,
                path="/orders",
                summary="List orders, the newest first",
                description=ABOUT_LISTING,
                handle=routes.list,
                query=OrderQuery,
                responses=[
                    page_response(
                        "A page of orders. New orders do not move its boundaries.", OrderPage
                    )
                ],
                problems=[DATABASE_UNAVAILABLE],
            ),
            *stream_operations(backend),
            Operation(
                id="getOrder",
                method="GET",
                scope=scopes.ORDERS_READ,
                own=True,
                path="/orders/{orderId}",
                path_parameters=order_id,
                summary="Get an order",
                handle=routes.show,
                responses=[
                    SuccessResponse(status=200, description="The order.", content=OrderView)
                ],
                problems=[UNKNOWN_ORDER, DATABASE_UNAVAILABLE],
            ),
            Operation(
                id="getOrderEvents",
                method="GET",
                scope=scopes.ORDERS_READ,
                own=True,
                path="/orders/{orderId}/events",
                path_parameters=order_id,
                summary="Get an order's history",
                handle=routes.history,
                responses=[
                    SuccessResponse(status=200, description="The history.", content=OrderHistory)
                ],
                problems=[UNKNOWN_ORDER, DATABASE_UNAVAILABLE],
            ),
            *feed_operations(backend),
            *catalogue_operations(backend),
            *key_changing_operations(backend),
        ],
    )


class OrderRoutes:
    """Handlers: parse → command → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def place(self, call: Call) -> Reply:
        new: NewOrder = call.body
        require_own_user(call, new.user_id, scopes.ORDERS_CREATE)
        order_id = str(uuid7())
        command = PlaceOrder(
            order_id=order_id,
            user_id=new.user_id,
            items=tuple(map(wanted_item, new.items)),
            currency=new.currency,
            shipping_address=new.shipping_address,
            deadline=new.deadline,
            on_shortage=WAIT if new.on_shortage == WAIT else None,
            holds=wanted_holds(new.holds),
            by=call.context.actor if new.holds else None,
        )
        try:
            order: Order = await self._backend.execute(
                command,
                context=call.context,
                find_out=f"GET /orders/{order_id} returns the order if it was accepted.",
            )
        except PriceChanged as refusal:
            raise price_changed(new.items, refusal) from None
        # A repeated request gets the order that the first one placed.
        headers = {"Location": f"/orders/{order.id}"}
        if call.wait is None or not await self._backend.wait_until_ended(
            order.id, call.wait, has_ended
        ):
            return Reply(201, view_of(order, []), headers)
        view = await self._backend.read(find_view, order.id) or view_of(order, [])
        return Reply(201, view, headers | call.wait.applied)

    async def cancel(self, call: Call) -> Reply:
        order_id = call.uuid("orderId", unknown_order)
        await require_own_order(self._backend, call, order_id)
        wish: Cancellation = call.body
        order: Order = await self._backend.execute(
            CancelOrder(
                order_id=order_id,
                change_id=str(uuid7()),
                items=tuple(
                    CancelledItem(product_id=item.product_id, quantity=item.quantity)
                    for item in (() if wish.items is UNSET else wish.items)
                ),
                reason=wish.reason,
                by=call.context.actor,
            ),
            context=call.context,
            find_out=f"See `changes` in GET /orders/{order_id} before you send the request again.",
        )
        return Reply(202, (await self._backend.read(views_of, [order]))[0])

    async def show(self, call: Call) -> Reply:
        order_id = call.uuid("orderId", unknown_order)
        await require_own_order(self._backend, call, order_id)
        view = await self._backend.read(find_view, order_id)
        if view is None:
            raise unknown_order(order_id)
        return Reply(200, view)

    async def history(self, call: Call) -> Reply:
        order_id = call.uuid("orderId", unknown_order)
        await require_own_order(self._backend, call, order_id)
        entries = await self._backend.read(history, order_id)
        if not entries:  # an order and the first entry of its history are committed together
            raise unknown_order(order_id)
        return Reply(200, OrderHistory([event_view(entry) for entry in entries]))

    async def list(self, call: Call) -> Reply:
        query: OrderQuery = call.query
        part = Part(query.limit, from_cursor(query, canonical_uuid), query.sort == "createdAt")
        wanted = query.filter(self._backend.process.clock.now())
        if call.owner is not None:
            require_own_user(call, query.user_id or call.owner, scopes.ORDERS_READ)
            wanted = msgspec.structs.replace(wanted, user_id=call.owner)
        page = await self._backend.read(_page, query, wanted, part)
        return Reply(200, *page)


def _page(
    connection: Connection, query: OrderQuery, wanted: OrderFilter, part: Part
) -> tuple[OrderPage, Mapping[str, str]]:
    found = find_orders(connection, wanted, part)
    cursor, headers = next_page("/orders", query, found.next_key)
    total = UNSET if query.count is UNSET else count_orders(connection, wanted)
    return OrderPage(views_of(connection, found.orders), cursor, total), headers


ABOUT = """\
Accepts orders and tracks them until they end.

Money is in minor units of an ISO 4217 currency, times are UTC. Every error is an RFC 9457 problem
whose `type` is the address of a page about it. Unknown parameters and fields are refused. Lists are
paginated: follow `nextCursor`, or the Link header."""

ABOUT_PLACING = """\
The response is sent once the order is stored on disk; stock and shipment follow asynchronously. An
order with not enough stock or an unknown product is accepted, and becomes `CANCELLED_NO_STOCK` with
a reason. A `price` is what the customer saw: if that of the catalogue is another one, and did not replace
it less than 10 s ago, the order is refused. Left out, it is that of the catalogue. (The settings `prices` and
`unknown_products` change that.) Lines with the same product must have one price and are added up. An order
that is still open at its `deadline` is cancelled, if that is still possible then; without one, the deadline
follows from the setting `order_deadline_seconds`. With `onShortage` `wait` it waits for missing stock until
then, in the queues of its products, the oldest order first. Its `holds` are never too late: the carrier is
not called before all of them are released or have expired."""

ABOUT_LISTING = """\
An order is in the list if it matches all filters. The sequence is that of the ids, which begin with the
time of the request. The work for a page is bounded: if few of many orders match, a page has fewer than
`limit` orders, perhaps none, although there are more; follow `nextCursor` until it is null. A cursor is
valid with the same filters and the same `sort` only."""

ABOUT_CANCELLING = """\
The response is sent once the request is stored on disk; the order is `CANCELLING` until shipping has
decided. Before the carrier is called, the cancellation is confirmed: the order becomes `CANCELLED`, or
`CANCELLED_NO_STOCK` if its stock was refused before. After that it is refused, and the order goes on.
Asking again has no further effect and gets the same answer. With `items`, only these pieces are cancelled,
and the order goes on without them; cancelling the last piece is cancelling the order. Asking for pieces
again cancels further ones: send an `Idempotency-Key`, and repeat the request with the same key only."""

EXAMPLE_ORDER: dict[str, Any] = {
    "userId": "user123",
    "items": [
        {"productId": "prod001", "quantity": 2, "price": 5000},
        {"productId": "prod002", "quantity": 1, "price": 3000},
    ],
    "shippingAddress": "1-1 Chiyoda, Tokyo",
}
