"""Judges a real run: waits until the system is quiescent, and checks the invariants."""

from collections.abc import Collection

import msgspec

from todoku.audit import Finding
from todoku.lab.chaos.load import OrderLoad
from todoku.lab.databases import (
    audit_when_quiescent,
    order_ids,
    unanswered_changes,
    unanswered_holds,
)
from todoku.settings import Settings


class Verdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether the invariants hold. `lost` are orders that were accepted and do not exist; `phantoms`
    counts orders beyond those that were accepted or whose outcome is unknown. `unanswered` are orders
    whose cancellation was accepted and never decided, `held` those whose hold was, or is still open.
    `settled_seconds` is how long it took until the system was quiescent, None if it was not in time."""

    accepted: int
    orders: dict[str, int]
    lost: tuple[str, ...]
    phantoms: int
    wrong: tuple[str, ...]
    findings: tuple[Finding, ...]
    parked: dict[str, int]
    backlog: dict[str, int]
    settled_seconds: float | None
    unanswered: tuple[str, ...] = ()
    held: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether every invariant holds."""
        return not self.broken

    @property
    def broken(self) -> list[str]:
        """The violations, in a line each that begins with the name of the invariant."""
        return [
            *(f"I1 order {order_id} was accepted and is lost" for order_id in self.lost),
            *([f"I1 {self.phantoms} orders exist that were not placed"] if self.phantoms else []),
            *(f"HTTP a request was answered with {answer}" for answer in self.wrong),
            *(f"{each.invariant} {each.subject}: {each.problem}" for each in self.findings),
            *(f"I3 the cancellation of {each} was never answered" for each in self.unanswered),
            *(f"I3 a hold of {each} was never answered, or is open" for each in self.held),
            *(f"I3 {count} messages parked at {name}" for name, count in self.parked.items()),
            *(
                [f"I3 not quiescent in time: {self.orders}, receipts awaited: {self.backlog}"]
                if self.settled_seconds is None
                else []
            ),
        ]


def judge(
    settings: Settings,
    load: OrderLoad,
    *,
    within_seconds: float = 60.0,
    before: Collection[str] = frozenset(),
) -> Verdict:
    """Wait until the system is quiescent, or that time is over, and check the invariants.

    `before` are the orders that existed before the load.
    """
    waited_seconds, report = audit_when_quiescent(
        settings, seconds_max=within_seconds, overdue_seconds=within_seconds
    )
    existing = order_ids(settings)
    return Verdict(
        accepted=len(load.accepted),
        orders=report.orders,
        lost=tuple(sorted(load.accepted - existing)),
        phantoms=max(0, len(existing - load.accepted - set(before)) - load.unknown),
        wrong=(*load.wrong, *load.wishes.wrong, *load.holders.wrong),
        findings=report.findings,
        parked=report.parked,
        backlog=report.backlog,
        settled_seconds=round(waited_seconds, 1) if report.settled else None,
        unanswered=tuple(sorted(load.wishes.accepted & unanswered_changes(settings))),
        held=tuple(sorted(load.holders.accepted & unanswered_holds(settings))),
    )
