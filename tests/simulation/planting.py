"""Registers bugs, and the seams at which they are planted: what is handed to a process is wrapped."""

import asyncio
import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import msgspec

from todoku.broker.port import Delivery
from todoku.engine import ReceiptMessage
from todoku.events import Event
from todoku.lab.simulation.wiring import Parts, Wire


class Mutant(msgspec.Struct, frozen=True):
    """A bug: its name, what it does wrong, how it is planted into one run, how many replicas the services
    have in it (0 lets the seed decide), how many orders are placed, and in how many partitions is read."""

    name: str
    meaning: str
    plant: Callable[[], Wire]
    replicas: int
    orders: int
    partitions: int


MUTANTS: list[Mutant] = []


def mutant(
    plant: Callable[[], Wire], *, replicas: int = 1, orders: int = 5, partitions: int = 1
) -> Callable[[], Wire]:
    """Register a bug: the function's name is its name, the docstring what it does wrong."""
    name = plant.__name__.replace("_", "-")
    meaning = " ".join((plant.__doc__ or "").split())
    MUTANTS.append(Mutant(name, meaning, plant, replicas, orders, partitions))
    return plant


mutant_of_replicas = partial(mutant, replicas=0)
"""Registers a bug that needs several processes of a service."""

mutant_of_pairs = partial(mutant, replicas=2)
"""Registers a bug that is found faster if every service has two processes."""

mutant_of_partitions = partial(mutant, replicas=3, partitions=3)
"""Registers a bug that needs processes that divide what they read."""

mutant_of_crowds = partial(mutant, orders=60)
"""Registers a bug that a few orders do not show."""

mutant_of_crowds_at_replicas = partial(mutant, replicas=3, orders=60)
"""Registers a bug that needs several processes that decide about the same product at the same time."""


class Wrapped:
    """Does what the inner object does; a subclass changes a method of its public protocol."""

    def __init__(self, inner: Any, parts: Parts) -> None:
        self.inner = inner
        self.parts = parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class WrappedBroker(Wrapped):
    """A connection to the broker that hands its deliveries to `arrive`."""

    async def subscribe(
        self, durable: str, subjects: Sequence[str], deliver: Callable[..., None], **start: Any
    ) -> Any:
        self.subscription = await self.inner.subscribe(
            durable, subjects, lambda deliveries: self.arrive(deliveries, deliver), **start
        )
        return self.subscription

    def arrive(self, deliveries: Sequence[Delivery], deliver: Callable[..., None]) -> None:
        """Deliver."""
        deliver(deliveries)


class Receipts(WrappedBroker):
    """Sends only those receipts that `keep` keeps."""

    def notify(self, subject: str, body: bytes) -> None:
        if subject.startswith("receipts."):
            receipt = msgspec.json.decode(body, type=ReceiptMessage)
            kept = tuple(event_id for event_id in receipt.ids if self.keep(event_id))
            if not kept:
                return
            body = msgspec.json.encode(msgspec.structs.replace(receipt, ids=kept))
        self.inner.notify(subject, body)

    def keep(self, event_id: str) -> bool:
        raise NotImplementedError


def broker(wrapped: Callable[[Any, Parts], Wrapped]) -> Wire:
    """Wrap the connection to the broker."""
    return lambda parts: msgspec.structs.replace(parts, broker=wrapped(parts.broker, parts))


def late(service: str, event: type[Event], seconds: float) -> Wire:
    """Deliver each event of a type some seconds late to a service, as a network may."""

    class Broker(WrappedBroker):
        def arrive(self, deliveries: Sequence[Delivery], deliver: Callable[..., None]) -> None:
            for delivery in deliveries:
                if delivery.subject != event.subject or self.parts.service.name != service:
                    deliver([delivery])
                else:
                    asyncio.get_running_loop().call_later(seconds, deliver, [delivery])

    return broker(Broker)


def together(*wires: Wire) -> Wire:
    """Plant one after the other."""
    return lambda parts: reduce(lambda changed, wire: wire(changed), wires, parts)


def database(wrapped: Callable[[Any, Parts], Wrapped]) -> Wire:
    """Wrap the database."""
    return lambda parts: msgspec.structs.replace(parts, database=wrapped(parts.database, parts))


def tables(name: str, wrapped: Callable[[Any, Parts], Wrapped]) -> Wire:
    """Wrap one of the engine's tables."""

    def wire(parts: Parts) -> Parts:
        store = parts.service.store
        changed = copy.copy(store.tables)
        setattr(changed, name, wrapped(getattr(store.tables, name), parts))
        return _with(parts, store=_StoreWithTables(store, changed))

    return wire


class _StoreWithTables:
    """A store whose engine tables are others."""

    def __init__(self, inner: Any, tables: Any) -> None:
        self._inner = inner
        self.tables = tables

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def store(wrapped: Callable[[Any, Parts], Wrapped], *services: str) -> Wire:
    """Wrap the store of these services, or of all."""

    def wire(parts: Parts) -> Parts:
        if services and parts.service.name not in services:
            return parts
        return _with(parts, store=wrapped(parts.service.store, parts))

    return wire


def events(service: str, event: type[Any], decide: Callable[..., Any]) -> Wire:
    """Replace a decision on an event: `decide(original, state, event, now)`."""
    return partial(_handler, "event_handlers", service, event, decide)


def replays(service: str, event: type[Any], decide: Callable[..., Any]) -> Wire:
    """Replace how a service restores what it decided from its own event: `decide(original, state, event,
    time)`."""
    return partial(_handler, "replay_handlers", service, event, decide)


def commands(service: str, command: type[Any], decide: Callable[..., Any]) -> Wire:
    """Replace a decision on a command: `decide(original, state, command, now)`."""
    return partial(_handler, "command_handlers", service, command, decide)


def effects(service: str, effect: type[Any], call: Callable[..., Any]) -> Wire:
    """Replace what executes an effect: `await call(original, effect)`."""
    return partial(_handler, "effects", service, effect, call)


def agenda(service: str, *, due: str | None = None, **changes: Callable[..., Any]) -> Wire:
    """Replace functions of the agendas of a service, or of the one with the due time `due`:
    `changed(original, *arguments)`."""

    def wire(parts: Parts) -> Parts:
        if parts.service.name != service:
            return parts
        agendas = []
        for planned in parts.service.agendas:
            agenda = copy.copy(planned)
            for name, to in changes.items() if due in (None, planned.name) else ():
                setattr(agenda, name, partial(to, getattr(agenda, name)))
            agendas.append(agenda)
        return _with(parts, agendas=agendas)

    return wire


def service(name: str, **changes: Any) -> Wire:
    """Replace attributes of a service, such as `waits_for_replay`."""
    return lambda parts: _with(parts, **changes) if parts.service.name == name else parts


def _handler(
    table: str, service: str, kind: type[Any], to: Callable[..., Any], parts: Parts
) -> Parts:
    if parts.service.name != service:
        return parts
    handlers = getattr(parts.service, table)
    return _with(parts, **{table: {**handlers, kind: partial(to, handlers[kind])}})


def _with(parts: Parts, **changes: Any) -> Parts:
    return msgspec.structs.replace(parts, service=replace(parts.service, **changes))
