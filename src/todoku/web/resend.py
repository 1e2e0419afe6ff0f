"""Publish events again that other services may have lost."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import MetaData

from todoku.contracts import Event
from todoku.engine import Outbox, RepublishEvents
from todoku.identity import scopes
from todoku.web.backend import Backend
from todoku.web.body import Body
from todoku.web.call import Call
from todoku.web.fields import PAGE_MAX, Uuid, canonical_uuid
from todoku.web.operations import Operation, SuccessResponse
from todoku.web.problems import DATABASE_UNAVAILABLE
from todoku.web.reply import Reply

outbox = Outbox(MetaData())
"""The table as every service has it."""


class ResendRequest(Body, frozen=True, kw_only=True):
    """Which events to publish again: all pending deliveries, or those about these orders."""

    order_ids: (
        Annotated[
            list[Annotated[Uuid, Meta(description="The id of an order.")]],
            Meta(min_length=1, max_length=PAGE_MAX),
        ]
        | None
    ) = None


class RepublishedEvents(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The types of the events about an order that were published again; empty if there are none that
    can safely be consumed again."""

    order_id: str
    event_types: list[str]


class ResendResult(msgspec.Struct, frozen=True, kw_only=True):
    """What is published again: `owed` counts the pending deliveries if all were requested; `orders`
    are those that were named."""

    owed: int
    orders: list[RepublishedEvents]


def resend_operations(backend: Backend) -> list[Operation]:
    """Return the operation that publishes events again."""

    async def resend(call: Call) -> Reply:
        wanted: ResendRequest = call.body
        if wanted.order_ids is None:
            owed = await backend.read(outbox.backlog)
            backend.process.resend_all()
            return Reply(202, ResendResult(owed=owed, orders=[]))
        orders = await asyncio.gather(*(republish(call, key) for key in wanted.order_ids))
        return Reply(202, ResendResult(owed=0, orders=orders))

    async def republish(call: Call, order_id: str) -> RepublishedEvents:
        command = RepublishEvents(key=canonical_uuid(order_id) or order_id)
        events: Sequence[Event] = await backend.execute(
            command, context=call.context, find_out="The request can safely be repeated."
        )
        return RepublishedEvents(
            order_id=command.key, event_types=[type(event).__name__ for event in events]
        )

    return [
        Operation(
            id="sendEventsAgain",
            method="POST",
            scope=scopes.REPAIR,
            path="/events/send-again",
            costly=True,
            summary="Publish events again",
            description=ABOUT,
            handle=resend,
            body=ResendRequest,
            examples={
                "all pending deliveries": {},
                "the events about an order": {"orderIds": ["0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"]},
            },
            responses=[
                SuccessResponse(
                    status=202, description="The events are being published.", content=ResendResult
                )
            ],
            problems=[DATABASE_UNAVAILABLE],
        )
    ]


ABOUT = """\
Without `orderIds`, every event that has no receipt yet is published again; of several replicas, the
one that responds does so for all. With `orderIds`, the service publishes the events about these orders
again, from its own tables. Each has its original id, so consumers that know it ignore it. Events that
a consumer with a lost database could not safely process again are left out, as far as this service
can tell: `todoku verify --repair` checks all services and requests only what is safe."""
