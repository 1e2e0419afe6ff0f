"""Having a service say again what others may have lost, alike on every service."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import MetaData

from todoku.contracts import Event
from todoku.engine import Outbox, RepublishOrder
from todoku.web.backend import Backend
from todoku.web.exchange import Body, Call, Reply
from todoku.web.fields import PAGE_MAX, Uuid, canonical_uuid
from todoku.web.operations import Answer, Operation
from todoku.web.problems import DATABASE_UNAVAILABLE

outbox = Outbox(MetaData())
"""The table as every service has it."""


class SendAgain(Body, frozen=True, kw_only=True):
    """What is wanted again: all that is still owed, or what was decided about these orders."""

    order_ids: (
        Annotated[
            list[Annotated[Uuid, Meta(description="The id of an order.")]],
            Meta(min_length=1, max_length=PAGE_MAX),
        ]
        | None
    ) = None


class SaidAgain(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The types of the events that were said again about an order; none if this service has nothing
    to say about it that would be safe to hear again."""

    order_id: str
    event_types: list[str]


class SentAgain(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out again: `owed` counts the receipts that are awaited for it, if all of it was asked
    for; `orders` are those that were named."""

    owed: int
    orders: list[SaidAgain]


def send_again_operations(backend: Backend) -> list[Operation]:
    """What every service offers to whoever has found that something was lost."""

    async def send_again(call: Call) -> Reply:
        wanted: SendAgain = call.body
        if wanted.order_ids is None:
            owed = await backend.read(outbox.backlog)
            backend.process.resend_all()
            return Reply(202, SentAgain(owed=owed, orders=[]))
        orders = await asyncio.gather(*(say_again(call, key) for key in wanted.order_ids))
        return Reply(202, SentAgain(owed=0, orders=orders))

    async def say_again(call: Call, order_id: str) -> SaidAgain:
        command = RepublishOrder(order_id=canonical_uuid(order_id) or order_id)
        events: Sequence[Event] = await backend.ask(
            command, traceparent=call.traceparent, find_out="It may be asked for at any time."
        )
        return SaidAgain(
            order_id=command.order_id, event_types=[type(event).__name__ for event in events]
        )

    return [
        Operation(
            id="sendEventsAgain",
            method="POST",
            path="/events/send-again",
            summary="Send again what others may have lost",
            description=ABOUT,
            handle=send_again,
            body=SendAgain,
            examples={
                "all that is owed": {},
                "what was decided about an order": {
                    "orderIds": ["0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"]
                },
            },
            answers=[Answer(status=202, meaning="It is on its way.", content=SentAgain)],
            problems=[DATABASE_UNAVAILABLE],
        )
    ]


ABOUT = """\
Without `orderIds`, every event that still waits for a receipt is sent once more; of several replicas,
the one that answers sends its own. With them, the service says once more what it has decided about
these orders, from its own tables. An event that is said again has the id that it had: who knows it
passes over it. What a reader that has lost everything could not hear again without harm is left out,
as far as this service alone can tell: `todoku verify --repair` looks at all of them, and asks only
where it is safe."""
