"""Prometheus metrics of the orders service: what is read from its database, and the list of the others."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import Connection, func, select

from todoku.orders.domain import ORDER
from todoku.orders.feed_metrics import FeedMetrics
from todoku.orders.listing import COUNTED_MAX, OrderFilter, count_orders
from todoku.orders.order_counts import ACCEPTED, DURATIONS
from todoku.orders.store import orders

OPEN_COUNTED_MAX: Final = 100_000
"""How many open orders of each status are counted at most."""

HOLDS_COUNTED_MAX: Final = 10_000


def open_orders(connection: Connection, now: datetime) -> Iterable[Metric]:
    """Read how many orders of each status are open, and the age of the oldest."""
    count = GaugeMetricFamily(
        "todoku_orders_open",
        f"Orders that have not ended, by `status`, {OPEN_COUNTED_MAX:,} of each at most.",
        labels=["status"],
    )
    oldest = GaugeMetricFamily(
        "todoku_orders_oldest_open_seconds",
        "Age of the oldest order that has not ended, by `status`; 0 if there is none. Held orders, and those"
        " that wait for stock, are among them.",
        labels=["status"],
    )
    for status in ORDER.statuses:
        if not status.terminal:
            of_status = select(orders.c.id).where(orders.c.status == status.value)
            found = of_status.limit(OPEN_COUNTED_MAX).subquery()
            count.add_metric(
                [status.value], connection.scalar(select(func.count()).select_from(found)) or 0
            )
            # Ids are UUIDv7: the smallest is the oldest.
            first = of_status.order_by(orders.c.id).limit(1).scalar_subquery()
            created_at = connection.scalar(select(orders.c.created_at).where(orders.c.id == first))
            age = 0.0 if created_at is None else (now - created_at).total_seconds()
            oldest.add_metric([status.value], max(0.0, age))
    yield from (count, oldest)


def overdue_orders(connection: Connection, now: datetime) -> Iterable[Metric]:
    """Read how many orders should have ended."""
    found = str(count_orders(connection, OrderFilter(overdue_at=now)))
    yield GaugeMetricFamily(
        "todoku_orders_overdue",
        "Orders that should have ended, as `todoku order list --overdue` shows them, of"
        f" {COUNTED_MAX:,} open ones at most.",
        value=int(found.removesuffix("+")),
    )


def held_orders(connection: Connection, now: datetime) -> Iterable[Metric]:
    """Read how many orders are held, and for how long."""
    since = orders.c.held_since
    held = select(since).where(since.is_not(None)).limit(HOLDS_COUNTED_MAX).subquery()
    count, first = connection.execute(select(func.count(), func.min(held.c.held_since))).one()
    yield GaugeMetricFamily(
        "todoku_orders_held",
        f"Orders with an open hold, {HOLDS_COUNTED_MAX:,} at most.",
        value=count,
    )
    yield GaugeMetricFamily(
        "todoku_orders_oldest_hold_seconds",
        "How long the order that was held first has been held; 0 if none is.",
        value=0.0 if first is None else max(0.0, (now - first).total_seconds()),
    )


COLLECTORS: Final = (FeedMetrics(), ACCEPTED, DURATIONS)
"""What this process has counted."""

READINGS: Final = (open_orders, overdue_orders, held_orders)
"""What is read from the orders database."""
