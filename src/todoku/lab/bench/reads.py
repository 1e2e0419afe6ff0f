"""Measures the latency of reads: single resources, and the first page of every list.

Each kind is read many times, one after the other, on a connection that stays open. Orders and users
are drawn at random from all that exist.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from sqlalchemy import Connection, func, select

from todoku.database import Database
from todoku.lab.bench.orders import SEED
from todoku.lab.bench.report import Latency
from todoku.lab.system_client import SystemClient
from todoku.orders.domain import OrderStatus
from todoku.orders.store import orders
from todoku.settings import Settings
from todoku.system import system


class NothingToRead(Exception):
    """There are no orders in the database."""


class Drawn(msgspec.Struct, frozen=True):
    """An order drawn at random, its user, and when it was created."""

    order_id: str
    user_id: str
    created_at: datetime


class ReadReport(msgspec.Struct, frozen=True, rename="camel"):
    """The latency of each kind of read, among how many orders, and whether files were cold."""

    orders: int
    cold: bool
    latencies: Mapping[str, Latency]


Address = Callable[[Drawn], str]


def _orders_of(drawn: Drawn, **more: str) -> str:
    return "/orders?" + urlencode({"userId": drawn.user_id, **more})


def _orders_in(*statuses: OrderStatus, **more: str) -> Address:
    query = urlencode({"status": statuses, **more}, doseq=True)
    return lambda _: f"/orders?{query}"


def _created(after: str, **more: str) -> Address:
    """Return the path to the orders that were created `after` or before the drawn one."""
    return lambda it: "/orders?" + urlencode({after: it.created_at.isoformat(), **more})


PRODUCT = {"productId": "bench-0007"}
FAILED = {"status": OrderStatus.SHIPMENT_FAILED.value}


READS: Mapping[str, tuple[str, Address]] = {
    "an order": ("orders", lambda it: f"/orders/{it.order_id}"),
    "an order's history": ("orders", lambda it: f"/orders/{it.order_id}/events"),
    "orders": ("orders", lambda _: "/orders"),
    **{f"orders, {status.value}": ("orders", _orders_in(status)) for status in OrderStatus},
    "orders of a user": ("orders", _orders_of),
    "orders of a user, COMPLETED": ("orders", lambda it: _orders_of(it, status="COMPLETED")),
    "orders, SHIPMENT_FAILED or PENDING": (
        "orders",
        _orders_in(OrderStatus.SHIPMENT_FAILED, OrderStatus.PENDING),
    ),
    "orders, the oldest first": ("orders", lambda _: "/orders?sort=createdAt"),
    "orders, counted": ("orders", lambda _: "/orders?count=true"),
    "orders of a product": ("orders", lambda _: f"/orders?{urlencode(PRODUCT)}"),
    "orders of a product, SHIPMENT_FAILED": (
        "orders",
        lambda _: f"/orders?{urlencode(PRODUCT | FAILED)}",
    ),
    "orders from a time on": ("orders", _created("createdFrom", sort="createdAt")),
    "orders until a time": ("orders", _created("createdTo")),
    "orders until a time, SHIPMENT_FAILED": ("orders", _created("createdTo", **FAILED)),
    "orders, parked": ("orders", lambda _: "/orders?parked=true"),
    "orders, parked, SHIPMENT_FAILED": (
        "orders",
        _orders_in(OrderStatus.SHIPMENT_FAILED, parked="true"),
    ),
    "orders, overdue": ("orders", lambda _: "/orders?overdue=true"),
    "orders, overdue, PENDING": ("orders", _orders_in(OrderStatus.PENDING, overdue="true")),
    "products": ("inventory", lambda _: "/products"),
    "shipments": ("shipping", lambda _: "/shipments"),
    "shipments of an order": ("shipping", lambda it: f"/shipments?orderId={it.order_id}"),
    **{
        f"dead letters, {service}": (service, lambda _: "/dead-letters") for service in system.names
    },
}
"""Each kind of read: its service, and its path for an order that was drawn."""


def measure_reads(
    settings: Settings, count: int, *, cold: Sequence[Path] = (), credential: str | None = None
) -> ReadReport:
    """Read each kind `count` times. The files `cold` are dropped from the page cache before each kind,
    except for pages that are not on disk yet. `credential` is as in `SystemClient`.

    Raises `HttpFailed`, and `NothingToRead`.
    """
    with (
        Database.open_read_only(settings.database("orders")) as database,
        database.read() as connection,
    ):
        there = connection.scalar(select(func.count()).select_from(orders)) or 0
        drawn = {kind: draw(connection, Random(f"{SEED} {kind}"), count) for kind in READS}
    client = SystemClient(settings, credential=credential)
    client.await_credential()
    latencies = {}
    for kind, (service, path) in READS.items():
        for file in cold:
            _drop_from_page_cache(file)
        seconds = _read(client, service, [path(each) for each in drawn[kind]])
        if (latency := Latency.of(seconds)) is not None:
            latencies[kind] = latency
    return ReadReport(there, bool(cold), latencies)


def draw(connection: Connection, random: Random, count: int) -> list[Drawn]:
    """Return random orders: those after random times between the first order and the last."""
    first, last = connection.execute(select(func.min(orders.c.id), func.max(orders.c.id))).one()
    if first is None:
        raise NothingToRead
    found = []
    for _ in range(count):
        instant = str(UUID(int=random.randint(UUID(first).int, UUID(last).int)))
        row = connection.execute(
            select(orders.c.id, orders.c.user_id, orders.c.created_at)
            .where(orders.c.id >= instant)
            .order_by(orders.c.id)
            .limit(1)
        ).one()
        found.append(Drawn(*row))
    return found


def _read(system: SystemClient, service: str, paths: Sequence[str]) -> Iterator[float]:
    """Yield how many seconds each request took."""
    with system.service(service, keep_open=True) as client:
        for path in paths:
            begun = time.perf_counter()
            client.get(path)
            yield time.perf_counter() - begun


def _drop_from_page_cache(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
