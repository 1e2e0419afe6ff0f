"""Define the result of an audit."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from todoku.audit.part import Finding

ORDERS_NAMED_MAX = 5


class Awaited(msgspec.Struct, frozen=True):
    """Pending deliveries of a service to one subscriber: how many, and since when (UTC) the oldest."""

    service: str
    reader: str
    events: int
    since: datetime


class ParkedLetters(msgspec.Struct, frozen=True):
    """The unresolved dead letters of a service, and the orders that they are about."""

    service: str
    letters: int
    orders: tuple[str, ...]


class Paused(msgspec.Struct, frozen=True):
    """What is paused at a service, or goes on slowly after a pause: since when (UTC), by whom and why."""

    service: str
    target: str
    state: str
    since: datetime
    by: str
    reason: str


class AuditLogState(msgspec.Struct, frozen=True):
    """The audit log of a service: how many rows and chains it has, how many rows no anchor vouches for yet,
    since when the oldest of them, and when the database was restored (UTC)."""

    service: str
    rows: int
    chains: int
    not_anchored: int
    oldest_not_anchored: datetime | None
    restored_at: tuple[datetime, ...]


class Report(msgspec.Struct, frozen=True):
    """The result of an audit. `orders` counts them by status; `open_orders` have not ended. An order
    that waits at a service where something is `paused` is not overdue."""

    findings: tuple[Finding, ...]
    orders: dict[str, int]
    awaited: tuple[Awaited, ...]
    dead_letters: tuple[ParkedLetters, ...]
    open_orders: int = 0
    paused: tuple[Paused, ...] = ()
    audit_logs: tuple[AuditLogState, ...] = ()

    @property
    def backlog(self) -> dict[str, int]:
        """Return the number of pending deliveries, by publisher and subscriber."""
        return {f"{way.service} → {way.reader}": way.events for way in self.awaited}

    @property
    def parked(self) -> dict[str, int]:
        """Return the number of unresolved dead letters of each service."""
        return {parked.service: parked.letters for parked in self.dead_letters}

    @property
    def settled(self) -> bool:
        """Return whether no delivery is pending and every order has ended."""
        return not self.awaited and not self.open_orders

    @property
    def clean(self) -> bool:
        """Return whether no invariant is broken."""
        return not self.findings


def orders_named(order_ids: Sequence[str]) -> str:
    """Return the first few order ids as text, with the number of the others."""
    named = ", ".join(order_ids[:ORDERS_NAMED_MAX])
    more = len(order_ids) - ORDERS_NAMED_MAX
    return (f"{named} and {more:,} more" if more > 0 else named) or "no order"
