"""Gather what tells why an order waits: the order, its shipment and dead letter, the services, the broker."""

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime

import msgspec

from todoku.cli.checks import network
from todoku.cli.client import ServiceClient, client, segment
from todoku.cli.databases import file_of
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.pausing import described, find
from todoku.cli.responses import DeadLetter, Order, Shipment
from todoku.database import Database, DatabaseError
from todoku.diagnosis import CheckResult, CheckStatus
from todoku.lab.http import HttpFailed
from todoku.lab.system_client import SystemClient
from todoku.settings import Settings
from todoku.system import load_system

LOOK_SECONDS_MAX = 2.0
"""How long each question waits for an answer: a service that is slower does not answer, for an operator."""

SHOWN = "todoku_"

AWAY = (ExitCode.UNREACHABLE, ExitCode.BUSY)
"""How a command ends whose service does not answer, or not now."""


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a service `answers`, what is `wrong` with it (nothing if it is empty) and the `fix`.

    `metrics` are its own, by name with labels; `ahead_seconds` is how far its clock differs from this
    machine's, None if it is not ready.
    """

    answers: bool = True
    wrong: str = ""
    fix: str = ""
    metrics: Mapping[str, float] = {}
    ahead_seconds: float | None = None

    def metric(self, name: str) -> float:
        """Return a metric, 0 if it is unknown."""
        return self.metrics.get(f"{SHOWN}{name}", 0.0)


class PauseSeen(msgspec.Struct, frozen=True):
    """Something that is paused: at which service, what `todoku resume` calls it, and who did it and why."""

    service: str
    what: str
    text: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at `now`. `from_database` if the orders service did not answer and its database did;
    `broker` is what is wrong with the broker.
    """

    now: datetime
    order: Order
    services: Mapping[str, ServiceState]
    from_database: bool = False
    shipment: Shipment | None = None
    letter: DeadLetter | None = None
    broker: CheckResult | None = None
    pauses: tuple[PauseSeen, ...] = ()
    free_bytes: int | None = None


def gather(
    order_id: str, settings: Settings, *, up: int | None, with_database: bool = True
) -> Evidence:
    """Ask everything that is concerned with an order; `with_database`, the database of orders if the service
    does not answer. `up` is the process of the `todoku up` that runs here. Raises `CommandFailed` if the
    order cannot be read."""
    names = load_system(settings).names
    with ThreadPoolExecutor(len(names) + 1) as pool:
        # In a copy of this context, which has the credential.
        states = [
            (name, pool.submit(copy_context().run, _state, name, settings, up)) for name in names
        ]
        broker = pool.submit(copy_context().run, _broker, settings, up)
        services = {name: state.result() for name, state in states}
    answering = [name for name, state in services.items() if state.answers]
    read = _order if with_database else _order_of_service
    try:
        order, from_database = read(order_id, settings, answers="orders" in answering)
    except CommandFailed as failure:
        state = services["orders"]
        if failure.exit_code not in AWAY or not state.wrong:
            raise
        raise CommandFailed(
            f"the order cannot be read, because the orders service does not work: {state.wrong}.\n"
            f"→ {state.fix}. `todoku doctor` checks everything on this machine.",
            exit_code=failure.exit_code,
        ) from failure
    return Evidence(
        now=datetime.now(UTC),
        order=order,
        services=services,
        from_database=from_database,
        shipment=_shipment(order, settings) if "shipping" in answering else None,
        letter=_letter(order, settings, answering),
        broker=broker.result(),
        pauses=tuple(_pauses(settings, answering)),
        free_bytes=_free_bytes(settings),
    )


def _client(service: str, settings: Settings) -> ServiceClient:
    return client(service, None, settings, timeout_seconds=LOOK_SECONDS_MAX)


def _order(order_id: str, settings: Settings, *, answers: bool) -> tuple[Order, bool]:
    """Return the order from its service, else from the database, and whether it is from there."""
    orders = _client("orders", settings)
    if not answers and (stored := _stored(order_id, settings)) is not None:
        return orders.read(stored, Order), True
    try:
        return orders.read(orders.get(f"/orders/{segment(order_id)}"), Order), False
    except CommandFailed as failure:
        if failure.exit_code not in AWAY:
            raise
        stored = _stored(order_id, settings)
        if stored is None:
            raise
        return orders.read(stored, Order), True


def _order_of_service(order_id: str, settings: Settings, *, answers: bool) -> tuple[Order, bool]:
    orders = _client("orders", settings)
    return orders.read(orders.get(f"/orders/{segment(order_id)}"), Order), False


def _stored(order_id: str, settings: Settings) -> bytes | None:
    """Return an order as the orders database has it; None if it cannot be read or has no such order."""
    from todoku.orders.views import find_view

    where = settings.database("orders")
    file = file_of(where)
    if file is not None and not file.exists():
        return None
    with suppress(DatabaseError), Database.open_read_only(where) as database:
        with database.read() as connection:
            view = find_view(connection, order_id)
        return None if view is None else msgspec.json.encode(view)
    return None


def _shipment(order: Order, settings: Settings) -> Shipment | None:
    shipping = _client("shipping", settings)
    with suppress(CommandFailed):
        for raw in shipping.list("/shipments", {"orderId": order.id}, items_max=1):
            return shipping.read(raw, Shipment)
    return None


def _letter(order: Order, settings: Settings, answering: Collection[str]) -> DeadLetter | None:
    if not order.parked or order.parked[0].service not in answering:
        return None
    parked = order.parked[0]
    service = _client(parked.service, settings)
    with suppress(CommandFailed):
        return service.read(service.get(f"/dead-letters/{segment(parked.letter_id)}"), DeadLetter)
    return None


def _pauses(settings: Settings, answering: Iterable[str]) -> Iterator[PauseSeen]:
    for name in answering:
        with suppress(CommandFailed):
            for found in find(_client(name, settings), "PAUSED"):
                yield PauseSeen(name, found.what, described(found))


def _state(service: str, settings: Settings, up: int | None) -> ServiceState:
    """Return whether a service is ready, and why not."""
    service_client = _client(service, settings)
    asked_at = datetime.now(UTC)
    try:
        ready = service_client.read(service_client.get("/readyz"), network.EngineTime)
    except CommandFailed as failure:
        if failure.problem:
            return ServiceState(
                wrong=f"it is not ready: {network.detail(failure)}",
                fix=network.remedy(service, settings),
                metrics=_metrics(service, settings),
            )
        found = network.unanswered(service, settings, up=up)
        return ServiceState(answers=False, wrong=found.found, fix=found.fix)
    ahead = network.difference_seconds(ready.time, asked_at, datetime.now(UTC))
    return ServiceState(metrics=_metrics(service, settings), ahead_seconds=ahead)


def _metrics(service: str, settings: Settings) -> Mapping[str, float]:
    with suppress(HttpFailed, ValueError):
        return SystemClient(settings, timeout_seconds=LOOK_SECONDS_MAX).metrics(service)
    return {}


def _broker(settings: Settings, up: int | None) -> CheckResult | None:
    """Return what is wrong with the broker, None if nothing is."""
    wrong: Iterator[CheckResult] = (
        result
        for result in network.broker(settings, running=True, up=up)
        if result.verdict is not CheckStatus.OK
    )
    return next(wrong, None)


def _free_bytes(settings: Settings) -> int | None:
    with suppress(OSError):
        return shutil.disk_usage(settings.data_dir).free
    return None
