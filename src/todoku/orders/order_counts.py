"""Count the orders that are accepted, and measure how long they took to end."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from prometheus_client import Counter, Histogram

from todoku.events import Envelope, Exemplars
from todoku.orders.domain import ORDER, Order, OrderStatus

Recorded: TypeAlias = Sequence[tuple[int, OrderStatus, Envelope]]
"""Events as the history of their order has them: number, status after it, and the event."""

ACCEPTED: Final = Counter("todoku_orders_accepted", "Orders accepted.", registry=None)

BUCKETS_SECONDS: Final = (
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
    1_800,
    3_600,
    21_600,
    86_400,
    604_800,
)

DURATIONS: Final = Histogram(
    "todoku_order_duration_seconds",
    "Time from the acceptance of an order to its end, by the `status` in which it ended.",
    ["status"],
    buckets=BUCKETS_SECONDS,
    registry=None,
)


_DURATIONS_BY_STATUS: Final = {
    status: DURATIONS.labels(status.value) for status in ORDER.statuses if status.terminal
}
EXEMPLARS: Final = {status: Exemplars(BUCKETS_SECONDS) for status in _DURATIONS_BY_STATUS}


def count_committed(
    before: Mapping[str, Order], after: Mapping[str, Order], recorded: Recorded = ()
) -> None:
    """Count which of the orders that were saved are new, and measure those that have ended; the exemplars
    are the traces of the events that were `recorded`."""
    traced = bool(recorded) and recorded[-1][2].traceparent is not None
    traces = {each.subject: each.traceparent for _, _, each in recorded} if traced else {}
    if accepted := len(after.keys() - before.keys()):
        ACCEPTED.inc(accepted)
    for order_id, order in after.items():
        known = before.get(order_id)
        if known is None:
            continue
        if known.status is not order.status and order.status.terminal:
            ended_at = order.status_since or order.updated_at
            seconds = (ended_at - order.created_at).total_seconds()
            traceparent = traces.get(order_id)
            _DURATIONS_BY_STATUS[order.status].observe(
                max(0.0, seconds), EXEMPLARS[order.status].of(traceparent, seconds)
            )
