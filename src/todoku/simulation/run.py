"""One simulated run: chaos, then healing, then the promise is held against what is left."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from logging import CRITICAL
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import Connection

from todoku.audit import audit
from todoku.broker.memory import MemoryBroker
from todoku.broker.port import Outgoing
from todoku.contracts import OrderCreatedEvent, OrderedItem
from todoku.database import ConstraintViolated
from todoku.engine import MailboxFull, Topology
from todoku.engine.tables import Owed
from todoku.host import assemble
from todoku.inventory.domain import Restock, SetProduct
from todoku.orders.domain import Order, PlaceOrder
from todoku.settings import Settings, Span
from todoku.shipping.carriers import SimulatedCarrier
from todoku.simulation import poison
from todoku.simulation.faults import Faults, Occurrence
from todoku.simulation.loop import VirtualClock, Stuck, run
from todoku.simulation.promise import Failure, Promise
from todoku.simulation.trace import Trace
from todoku.simulation.world import (
    CLOCK_JUMP_SECONDS_MAX,
    Disk,
    Line,
    MumblingCarrier,
    Node,
    Weather,
)

PRODUCTS = tuple(f"prod{n}" for n in range(3))
ANSWER_SECONDS_MAX = 5.0
"""How long somebody who asks waits before asking again."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one run does. The same plan gives the same run, to the byte.

    `only` names the faults, orders and restocks that may happen (`kill#2`, `order#1`); None allows
    all that the seed leads to. After `chaos_seconds` nothing strikes any more, and all must be
    settled within `settle_seconds`, to which the clock jumps are added.
    """

    seed: int
    orders: int = 5
    chaos_seconds: float = 60.0
    settle_seconds: float = 300.0
    only: tuple[str, ...] | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went: what broke, what was done to the system, and how long it took to settle.

    `occurred` names what happened, in order, and would be `Plan.only` of the same run. `events`
    counts the records of the trace, whose `digest` is the same for the same run.
    """

    plan: Plan
    failures: tuple[Failure, ...]
    statuses: dict[str, int]
    faults: dict[str, int]
    occurred: tuple[Occurrence, ...]
    events: int
    settled_after_seconds: float | None
    digest: str


def simulate(plan: Plan) -> Result:
    """Run the plan in virtual time."""
    return replay(plan)[0]


def replay(plan: Plan) -> tuple[Result, Trace]:
    """Run the plan in virtual time, and keep what happened."""
    simulation = _Run(plan)
    with _quiet():
        try:
            run(simulation.go())
        except Stuck as stuck:
            simulation.promise.fail("I3", str(stuck))
    return simulation.result(), simulation.trace


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the services' logs: they are for operators, and a run has its trace."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL + 1))
    try:
        yield
    finally:
        structlog.configure(**before)


class _Run:
    """The world of one run, and those who act in it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.trace = Trace()
        self.faults = Faults(plan.seed, plan.only, self.trace)
        self.settled_after_seconds: float | None = None
        self.statuses: dict[str, int] = {}
        self._disks = {name: Disk(name, self.faults) for name in ("orders", "inventory", "shipping")}
        self.promise = Promise({name: disk.bare() for name, disk in self._disks.items()})
        self._broker = MemoryBroker(hostility=Weather(self.faults))
        self._nodes: dict[str, Node] = {}
        self._poison: list[tuple[str, int, Outgoing]] = []
        self._owed_poison: list[Outgoing] = []
        self._asked_restocks: list[str] = []
        self._answered_restocks: list[str] = []
