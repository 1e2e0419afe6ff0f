"""HTTP operations of the shipping service."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from todoku.contracts import Personal, ShippedItem
from todoku.identity import scopes
from todoku.shipping.domain import Shipment, ShipmentStatus
from todoku.shipping.persons import SHIPPING_PERSONS
from todoku.shipping.problems import UNKNOWN_SHIPMENT
from todoku.shipping.store import find_shipment, list_shipments
from todoku.web import Api, Backend, Call, Operation, Problem, Reply, SuccessResponse
from todoku.web.fields import Uuid, canonical_uuid
from todoku.web.paging import PageQuery, from_cursor, page_reply, page_response
from todoku.web.persons import person_operations
from todoku.web.problems import DATABASE_UNAVAILABLE


class ShipmentView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A parcel for an order. `attempts` counts the calls to the carrier. While the shipment is open,
    `lastError` says why the last call was neither accepted nor rejected, and `nextAttemptAt` when the
    next one is due."""

    id: str
    order_id: str
    items: tuple[ShippedItem, ...]
    shipping_address: Annotated[str, Personal]
    status: ShipmentStatus
    attempts: int
    tracking_number: str | None
    reason: str | None
    last_error: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime


class ShipmentPage(msgspec.Struct, frozen=True, rename="camel"):
    """Shipments, the newest order first; `nextCursor` is null on the last page."""

    items: list[ShipmentView]
    next_cursor: str | None


class ShipmentQuery(PageQuery, frozen=True, kw_only=True):
    """Filter and page of a list of shipments."""

    order_id: Annotated[Uuid, Meta(description="The id of an order.")] | UnsetType = UNSET


def shipping_api(backend: Backend) -> Api:
    """Return the API of the shipping service."""
    routes = ShipmentRoutes(backend)
    return Api(
        title="Todoku shipping",
        description=ABOUT,
        operations=[
            *person_operations(backend, SHIPPING_PERSONS),
            Operation(
                id="listShipments",
                method="GET",
                scope=scopes.SHIPMENTS_READ,
                path="/shipments",
                summary="List shipments, the newest order first",
                handle=routes.list,
                query=ShipmentQuery,
                responses=[page_response("A page of shipments.", ShipmentPage)],
                problems=[DATABASE_UNAVAILABLE],
            ),
            Operation(
                id="getShipment",
                method="GET",
                scope=scopes.SHIPMENTS_READ,
                path="/shipments/{shipmentId}",
                path_parameters={
                    "shipmentId": Annotated[Uuid, Meta(description="The id of a shipment.")]
                },
                summary="Get a shipment",
                handle=routes.show,
                responses=[
                    SuccessResponse(status=200, description="The shipment.", content=ShipmentView)
                ],
                problems=[UNKNOWN_SHIPMENT, DATABASE_UNAVAILABLE],
            ),
        ],
    )


class ShipmentRoutes:
    """Handlers: parse → query → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, call: Call) -> Reply:
        query: ShipmentQuery = call.query
        shipments = await self._backend.read(
            list_shipments,
            order_id=canonical_uuid(query.order_id) if query.order_id else None,
            before=from_cursor(query, canonical_uuid),
            limit=query.rows_max,
        )
        return page_reply(
            ShipmentPage,
            "/shipments",
            query,
            shipments,
            key=lambda shipment: shipment.id,
            view=shipment_view,
        )

    async def show(self, call: Call) -> Reply:
        shipment_id = call.uuid("shipmentId", _unknown_shipment)
        shipment = await self._backend.read(find_shipment, shipment_id)
        if shipment is None:
            raise _unknown_shipment(shipment_id)
        return Reply(200, shipment_view(shipment))


def _unknown_shipment(shipment_id: str) -> Problem:
    return Problem(
        UNKNOWN_SHIPMENT,
        f"No shipment has the id {shipment_id!r}: see GET /shipments?orderId=….",
    )


def shipment_view(shipment: Shipment) -> ShipmentView:
    return ShipmentView(
        id=shipment.id,
        order_id=shipment.order_id,
        items=shipment.items,
        shipping_address=shipment.shipping_address,
        status=shipment.status,
        attempts=shipment.attempts,
        tracking_number=shipment.tracking_number,
        reason=shipment.reason,
        last_error=None if shipment.status.terminal else shipment.reason,
        next_attempt_at=shipment.due_at,
        created_at=shipment.created_at,
        updated_at=shipment.updated_at,
    )


ABOUT = """\
Books shipments with a carrier.

A shipment is created when an order's stock is reserved. Times are UTC. Every error is an
RFC 9457 problem whose `type` is the address of a page about it. Unknown parameters are refused."""
