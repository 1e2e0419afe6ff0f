"""HTTP operations of holds."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection
from uuid_utils import uuid7

from todoku.contracts import Personal
from todoku.identity import scopes
from todoku.orders.domain import Order
from todoku.orders.holding import HoldOrder, NewHold, ReleaseHold
from todoku.orders.holds import HOLDS_MAX, Hold, HoldState, find_hold
from todoku.orders.ownership import require_own_order
from todoku.orders.problems import (
    INVALID_HOLD,
    TOO_LATE_TO_HOLD,
    TOO_MANY_HOLDS,
    UNKNOWN_HOLD,
    UNKNOWN_HOLDER,
    UNKNOWN_ORDER,
    unknown_order,
)
from todoku.orders.store import find_order
from todoku.web import Backend, Body, Call, Operation, Problem, Reply, SuccessResponse
from todoku.web.fields import Expiry, Holder, Reason, Uuid
from todoku.web.problems import DATABASE_UNAVAILABLE

HOLD_PROBLEMS: Final = (UNKNOWN_HOLDER, INVALID_HOLD, TOO_MANY_HOLDS)
"""What may be wrong with a hold, also in the request that places its order."""


class RequestedHold(Body, frozen=True, kw_only=True):
    """A hold: who holds the order, why, and until when; without `expiresAt`, until it is released."""

    holder: Holder
    reason: Reason
    expires_at: Expiry | None = None


RequestedHolds = Annotated[
    tuple[RequestedHold, ...],
    Meta(max_length=HOLDS_MAX, description="The carrier is not called while one of these is open."),
]


class HoldView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A hold of an order: `requested`; `confirmed` or `refused` by shipping at `decidedAt`; or `released` or
    `expired` at `releasedAt`. `by` asked for it and `releasedBy` released it (`ending`: the order has
    ended), null if that is unknown. `refusal` says why it was refused."""

    id: str
    holder: str
    reason: str
    state: HoldState
    by: Annotated[str | None, Personal]
    requested_at: datetime
    expires_at: datetime | None
    decided_at: datetime | None
    refusal: str | None
    released_at: datetime | None
    released_by: Annotated[str | None, Personal]


class Holds(msgspec.Struct, frozen=True):
    """The holds of an order, in the sequence in which they were requested."""

    items: list[HoldView]


def hold_view(hold: Hold) -> HoldView:
    """Return a hold as it is shown."""
    return HoldView(**{name: getattr(hold, name) for name in HoldView.__struct_fields__})


def wanted_holds(holds: Sequence[RequestedHold]) -> tuple[NewHold, ...]:
    """Return the holds of a request, as the domain has them."""
    return tuple(
        NewHold(holder=hold.holder, reason=hold.reason, expires_at=hold.expires_at)
        for hold in holds
    )


def hold_operations(backend: Backend) -> list[Operation]:
    """Return the operations of holds."""
    routes = HoldRoutes(backend)
    order_id = {"orderId": Annotated[Uuid, Meta(description="The id of an order.")]}
    hold_id = {"holdId": Annotated[Uuid, Meta(description="The id of a hold.")]}
    return [
        Operation(
            id="holdOrder",
            method="POST",
            scope=scopes.HOLDS_WRITE,
            path="/orders/{orderId}/holds",
            path_parameters=order_id,
            summary="Hold an order",
            description=ABOUT_HOLDING,
            handle=routes.hold,
            body=RequestedHold,
            examples={
                "a fraud review": {"holder": "fraud-review", "reason": "Three orders in an hour."}
            },
            responses=[
                SuccessResponse(
                    status=202, description="The hold is requested and stored.", content=HoldView
                )
            ],
            problems=[UNKNOWN_ORDER, TOO_LATE_TO_HOLD, *HOLD_PROBLEMS],
        ),
        Operation(
            id="releaseHold",
            method="POST",
            scope=scopes.HOLDS_WRITE,
            path="/orders/{orderId}/holds/{holdId}/release",
            path_parameters=order_id | hold_id,
            summary="Release a hold",
            description=ABOUT_RELEASING,
            handle=routes.release,
            responses=[
                SuccessResponse(status=202, description="The release is stored.", content=HoldView)
            ],
            problems=[UNKNOWN_ORDER, UNKNOWN_HOLD],
        ),
        Operation(
            id="listHolds",
            method="GET",
            scope=scopes.ORDERS_READ,
            own=True,
            path="/orders/{orderId}/holds",
            path_parameters=order_id,
            summary="List the holds of an order",
            handle=routes.list,
            responses=[SuccessResponse(status=200, description="The holds.", content=Holds)],
            problems=[UNKNOWN_ORDER, DATABASE_UNAVAILABLE],
        ),
    ]


class HoldRoutes:
    """Handlers: parse → command → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def hold(self, call: Call) -> Reply:
        order_id = call.uuid("orderId", unknown_order)
        wish: RequestedHold = call.body
        hold_id = str(uuid7())
        (wanted,) = wanted_holds([wish])
        order: Order = await self._backend.execute(
            HoldOrder(order_id=order_id, hold_id=hold_id, hold=wanted, by=call.context.actor),
            context=call.context,
            find_out=f"See GET /orders/{order_id}/holds before you send the request again.",
        )
        # A repeated request gets the answer to the first one: the hold that was the last one then.
        return Reply(202, hold_view(find_hold(order.holds, hold_id) or order.holds[-1]))

    async def release(self, call: Call) -> Reply:
        order_id = call.uuid("orderId", unknown_order)
        hold_id = call.uuid("holdId", unknown_hold)
        order: Order = await self._backend.execute(
            ReleaseHold(order_id=order_id, hold_id=hold_id, by=call.context.actor),
            context=call.context,
            find_out=f"See GET /orders/{order_id}/holds, or send the request again.",
        )
        hold = find_hold(order.holds, hold_id)
        assert hold is not None, "a command about an unknown hold is refused"
        return Reply(202, hold_view(hold))

    async def list(self, call: Call) -> Reply:
        order_id = call.uuid("orderId", unknown_order)
        await require_own_order(self._backend, call, order_id)
        holds = await self._backend.read(_find_holds, order_id)
        if holds is None:
            raise unknown_order(order_id)
        return Reply(200, Holds([hold_view(hold) for hold in holds]))


def _find_holds(connection: Connection, order_id: str) -> tuple[Hold, ...] | None:
    order = find_order(connection, order_id)
    return None if order is None else order.holds


def unknown_hold(hold_id: str) -> Problem:
    """Return the problem that no hold has this id."""
    return Problem(
        UNKNOWN_HOLD, f"No hold has the id {hold_id!r}: see GET /orders/{{orderId}}/holds."
    )


ABOUT_HOLDING = """\
The response is sent once the request is stored on disk. The hold is `requested` until shipping has decided:
before the carrier is called it is `confirmed`, and the carrier is not called while it is open; after that it
is `refused`, and the order goes on. An order may have several holds at once. Everything before the call goes
on, the deadline too, and a held order can be cancelled. Each request is another hold: send an
`Idempotency-Key`, and repeat the request with the same key only."""

ABOUT_RELEASING = """\
The response is sent once the release is stored on disk. The carrier is called when no hold is open any more.
A hold that no longer holds its order, because it was released before, has expired, was refused or the order
has ended, stays as it is and is the answer."""
