"""Prometheus metrics of shipments: how many are open, and how many the carrier has not answered yet."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import Connection, func, select

from todoku.shipping.domain import ShipmentStatus
from todoku.shipping.store import shipments

COUNTED_MAX: Final = 10_000
"""How many shipments are counted at most."""

FALLING_DUE: Final = (ShipmentStatus.INITIATED, ShipmentStatus.BOOKING)
"""The statuses in which the carrier is still to be called, or to answer."""


def open_shipments(connection: Connection, now: datetime) -> Iterable[Metric]:
    """Read how many shipments wait for the carrier."""
    columns = shipments.c
    waiting = (
        select(columns.status, columns.failure_published_at)
        .where(columns.due_at.is_not(None))
        .order_by(columns.due_at)
        .limit(COUNTED_MAX)
        .subquery()
    )
    count = GaugeMetricFamily(
        "todoku_shipments_open",
        f"Shipments that the carrier has neither accepted nor rejected, by `status`, {COUNTED_MAX:,} at most;"
        " those that are held are not counted.",
        labels=["status"],
    )
    by_status = dict.fromkeys((status.value for status in FALLING_DUE), 0)
    found = select(waiting.c.status, func.count().label("number")).group_by(waiting.c.status)
    by_status |= {row.status: row.number for row in connection.execute(found)}
    for status, number in sorted(by_status.items()):
        count.add_metric([status], number)
    yield count
    failing = (
        select(func.count()).select_from(waiting).where(waiting.c.failure_published_at.is_not(None))
    )
    yield GaugeMetricFamily(
        "todoku_shipments_failing",
        "Open shipments of which a call to the carrier has failed: it is repeated with the same key.",
        value=connection.scalar(failing) or 0,
    )


READINGS: Final = (open_shipments,)
"""What is read from the shipping database."""
