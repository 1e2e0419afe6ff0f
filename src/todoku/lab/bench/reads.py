"""How long reading takes: single things, and the first page of every list.

Each kind is asked for many times, one after the other, on a connection that stays open. Which orders
and users it is about is drawn by chance from all that there are.
"""

import http.client
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from sqlalchemy import Connection, func, select

from todoku.database import Database
from todoku.lab.bench.report import Latency
from todoku.lab.bench.run import SEED
from todoku.lab.bench.services import ANSWER_SECONDS_MAX, ServiceRefused
from todoku.orders.domain import OrderStatus
from todoku.orders.store import orders
from todoku.settings import Settings
from todoku.system import system


class NothingToRead(Exception):
    """There are no orders in the database."""


class Drawn(msgspec.Struct, frozen=True):
    """An order drawn by chance, and who has placed it."""

    order_id: str
    user_id: str


class ReadReport(msgspec.Struct, frozen=True, rename="camel"):
    """How long each kind of reading took, and among how many orders."""

    orders: int
    cold: bool
    latencies: Mapping[str, Latency]


Address = Callable[[Drawn], str]


def _orders_of(drawn: Drawn, **more: str) -> str:
    return "/orders?" + urlencode({"userId": drawn.user_id, **more})


def _orders_in(status: OrderStatus) -> Address:
    return lambda _: f"/orders?status={status.value}"


READS: Mapping[str, tuple[str, Address]] = {
    "an order": ("orders", lambda it: f"/orders/{it.order_id}"),
    "an order's history": ("orders", lambda it: f"/orders/{it.order_id}/events"),
    "orders": ("orders", lambda _: "/orders"),
    **{f"orders, {status.value}": ("orders", _orders_in(status)) for status in OrderStatus},
    "orders of a user": ("orders", _orders_of),
    "orders of a user, COMPLETED": ("orders", lambda it: _orders_of(it, status="COMPLETED")),
    "products": ("inventory", lambda _: "/products"),
    "shipments": ("shipping", lambda _: "/shipments"),
    "shipments of an order": ("shipping", lambda it: f"/shipments?orderId={it.order_id}"),
    **{
        f"dead letters, {service}": (service, lambda _: "/dead-letters") for service in system.names
    },
}
"""What is read: at which service, and the address for an order drawn."""


def measure_reads(settings: Settings, count: int, *, cold: Sequence[Path] = ()) -> ReadReport:
    """Read `count` times of each kind. What of the files `cold` is in the system's memory goes from it
    before each kind, but for what is not on the disk yet.

    Raises `ServiceRefused`, and `NothingToRead`.
    """
    with (
        Database.open_read_only(settings.database("orders")) as database,
        database.read() as connection,
    ):
        there = connection.scalar(select(func.count()).select_from(orders)) or 0
        drawn = {kind: draw(connection, Random(f"{SEED} {kind}"), count) for kind in READS}
    latencies = {}
    for kind, (service, path) in READS.items():
        for file in cold:
            _let_go_of(file)
        seconds = _read(settings, service, [path(each) for each in drawn[kind]])
        if (latency := Latency.of(seconds)) is not None:
            latencies[kind] = latency
    return ReadReport(there, bool(cold), latencies)


def draw(connection: Connection, random: Random, count: int) -> list[Drawn]:
    """Orders by chance: those that come next after instants between the first one and the last."""
    first, last = connection.execute(select(func.min(orders.c.id), func.max(orders.c.id))).one()
    if first is None:
        raise NothingToRead
    found = []
    for _ in range(count):
        instant = str(UUID(int=random.randint(UUID(first).int, UUID(last).int)))
        row = connection.execute(
            select(orders.c.id, orders.c.user_id)
            .where(orders.c.id >= instant)
            .order_by(orders.c.id)
            .limit(1)
        ).one()
        found.append(Drawn(*row))
    return found


def _read(settings: Settings, service: str, paths: Sequence[str]) -> Iterator[float]:
    """How many seconds each answer took."""
    connection = http.client.HTTPConnection(
        settings.own_host, settings.port(service), timeout=ANSWER_SECONDS_MAX
    )
    try:
        for path in paths:
            begun = time.perf_counter()
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            yield time.perf_counter() - begun
            if response.status != 200:
                raise ServiceRefused(f"{service} answers {response.status} to GET {path}")
    except (OSError, http.client.HTTPException) as error:
        raise ServiceRefused(f"the {service} service does not answer: {error}") from error
    finally:
        connection.close()


def _let_go_of(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
