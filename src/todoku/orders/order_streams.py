"""HTTP operations that stream events: of one order, and of all that match filters."""

from collections.abc import AsyncGenerator
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.responses import Response
from starlette.types import ASGIApp

from todoku.identity import scopes
from todoku.orders.domain import OrderStatus
from todoku.orders.feed_cursor import FeedCursor, FeedRestarted
from todoku.orders.feed_http import After, read_cursor
from todoku.orders.feed_pages import FeedEventView, read_head, read_page
from todoku.orders.following import FeedFollower
from todoku.orders.list_query import Statuses
from todoku.orders.live import LiveEvent, LiveFeed
from todoku.orders.ownership import require_own_order, require_own_user
from todoku.orders.problems import FEED_RESTARTED, UNKNOWN_ORDER, unknown_order
from todoku.orders.store import HistoryEntry, history
from todoku.orders.views import OrderEventView, event_view
from todoku.web import (
    Backend,
    Call,
    EventStream,
    Operation,
    Problem,
    ServerSentEvent,
    SuccessResponse,
)
from todoku.web.event_streams import HEADER, MEDIA_TYPE, StreamSlots
from todoku.web.fields import ProductId, UserId, Uuid, canonical_uuid
from todoku.web.problems import DATABASE_UNAVAILABLE
from todoku.web.query import invalid_parameter

STREAMS_MAX: Final = 500
"""How many streams a process has at the same time at most."""

SKIPPED_MAX: Final = 500
"""After how many events that do not match a client is told where the stream is."""


class StreamQuery(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Which events are wanted, and behind which one a stream begins."""

    user_id: UserId | UnsetType = UNSET
    status: Statuses = ()
    product_id: ProductId | UnsetType = UNSET
    after: After | UnsetType = UNSET

    def wants(self, event: LiveEvent) -> bool:
        """Return whether an event matches all filters."""
        return (
            (not self.status or event.status in self.status)
            and (self.user_id is UNSET or self.user_id == event.facts.user_id)
            and (self.product_id is UNSET or self.product_id in event.facts.product_ids)
        )


def stream_operations(backend: Backend) -> list[Operation]:
    """Return the operations that stream events of orders."""
    routes = StreamRoutes(backend)
    return [
        Operation(
            id="streamOrders",
            method="GET",
            scope=scopes.ORDERS_READ,
            own=True,
            path="/orders/stream",
            summary="Stream the events of orders",
            description=ABOUT_STREAM,
            handle=routes.orders,
            query=StreamQuery,
            responses=[
                SuccessResponse(
                    status=200,
                    description="Server-sent events; the `data` of each is an event of an order.",
                    content=FeedEventView,
                    media_type=MEDIA_TYPE,
                )
            ],
            problems=[FEED_RESTARTED, DATABASE_UNAVAILABLE],
            streams=True,
        ),
        Operation(
            id="streamOrder",
            method="GET",
            scope=scopes.ORDERS_READ,
            own=True,
            path="/orders/{orderId}/stream",
            path_parameters={"orderId": Annotated[Uuid, Meta(description="The id of an order.")]},
            summary="Stream the events of an order until it has ended",
            description=ABOUT_ORDER_STREAM,
            handle=routes.order,
            responses=[
                SuccessResponse(
                    status=200,
                    description="Server-sent events; the `data` of each is an event of the history.",
                    content=OrderEventView,
                    media_type=MEDIA_TYPE,
                ),
                SuccessResponse(
                    status=204, description="The order has ended, and nothing is new.", content=None
                ),
            ],
            problems=[UNKNOWN_ORDER, FEED_RESTARTED, DATABASE_UNAVAILABLE],
            streams=True,
        ),
    ]


class StreamRoutes:
    """Handlers of the streams."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._live = LiveFeed(backend, FeedFollower(backend))
        self._slots = StreamSlots(STREAMS_MAX)

    async def orders(self, call: Call) -> ASGIApp:
        query: StreamQuery = call.query
        if call.owner is not None:
            require_own_user(call, query.user_id or call.owner, scopes.ORDERS_READ)
            query = msgspec.structs.replace(query, user_id=call.owner)
        after = await self._beginning(call.last_event_id, query)
        self._slots.require_free()
        return EventStream(self._events(query, after), self._slots)

    async def order(self, call: Call) -> ASGIApp:
        order_id = call.uuid("orderId", unknown_order)
        await require_own_order(self._backend, call, order_id)
        entries = await self._backend.read(history, order_id)
        if not entries:
            raise unknown_order(order_id)
        sequence = _sequence(entries, call.last_event_id)
        if _has_ended(entries[-1]) and sequence == entries[-1].sequence:
            return Response(status_code=204)
        self._slots.require_free()
        return EventStream(self._events_of(order_id, sequence), self._slots)

    async def _beginning(self, last_event_id: str | None, query: StreamQuery) -> FeedCursor:
        """Return the cursor behind which the stream begins; without one, the end of the feed."""
        if last_event_id is not None:
            after = read_cursor(HEADER, last_event_id)
        elif query.after is not UNSET:
            after = read_cursor("after", query.after)
        else:
            return await self._backend.read(read_head)
        await self._backend.read(read_page, after, 0)
        return after

    async def _events(
        self, query: StreamQuery, after: FeedCursor
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield the events that match, and from time to time where the stream is."""
        skipped = 0
        try:
            async with self._live.open():
                async for events in self._live.follow(after):
                    for event in events:
                        skipped = 0 if query.wants(event) else skipped + 1
                        if not skipped:
                            yield ServerSentEvent(id=str(event.cursor), data=event.data)
                        elif skipped % SKIPPED_MAX == 0:
                            yield ServerSentEvent(id=str(event.cursor))
        except FeedRestarted as error:
            yield _restarted(error)

    async def _events_of(
        self, order_id: str, sequence: int
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield the events of an order behind that one, until it has ended; what was recorded together with
        its end, too."""
        try:
            async with self._live.open() as end:
                entries = await self._backend.read(history, order_id)
                for entry in entries:
                    if entry.sequence > sequence:
                        yield _event(entry)
                        sequence = entry.sequence
                if _has_ended(entries[-1]):
                    return
                async for events in self._live.follow(end):
                    entry = entries[-1]
                    for event in events:
                        if event.order_id == order_id and event.event.sequence > sequence:
                            entry = event.event
                            yield _event(entry)
                            sequence = entry.sequence
                    if _has_ended(entry):
                        return
        except FeedRestarted as error:
            yield _restarted(error)


def _event(entry: HistoryEntry) -> ServerSentEvent:
    return ServerSentEvent(id=entry.event_id, data=event_view(entry))


def _restarted(error: FeedRestarted) -> ServerSentEvent:
    return ServerSentEvent(event="restarted", data=Problem(FEED_RESTARTED, str(error)).details())


def _has_ended(entry: HistoryEntry) -> bool:
    return OrderStatus.stored(entry.status).terminal


def _sequence(entries: list[HistoryEntry], last_event_id: str | None) -> int:
    """Return the sequence of the last event that a client has; 0 if it has none."""
    if last_event_id is None:
        return 0
    event_id = canonical_uuid(last_event_id)
    if event_id is None:
        raise invalid_parameter(HEADER, "Not the id of an event of this order.")
    found = next((entry.sequence for entry in entries if entry.event_id == event_id), None)
    if found is None:
        raise FeedRestarted(
            f"The order has no event with the id {event_id}, perhaps because the orders database was "
            "restored since: connect again without an id."
        )
    return found


ABOUT_STREAM = """\
Server-sent events: what happens to orders, from now on, or behind the event that `Last-Event-ID` or `after`
names (a cursor of GET /changes too). Each event is that of GET /changes; `status` is the order's status after
it. The `id` of an event is a cursor, which an EventSource sends when it connects again, also to another
process: no event is missed or repeated. A comment comes every 15 s. The stream ends when the service stops:
connect again. A client that reads nothing for 30 s is disconnected, and goes on where it was. After a restore
of the database an event `restarted` comes, and a cursor from before is answered with 410."""

ABOUT_ORDER_STREAM = """\
Server-sent events: the history of the order so far, or what is behind `Last-Event-ID`, and then what happens
to it. The stream ends with the events that the order ended with. A client that connects again then gets 204,
at which an EventSource stops."""
