"""Checks the invariants of a run: after every commit, at every message that leaves a service, at the end.

I1 to I5 are the invariants of docs/reliability.md; what they mean for a service is checked by its own
part of the simulation. R2 and R5 are rules of the engine, checked here for every service: nothing is
published, acknowledged or receipted before its commit, and every event reaches every subscriber. R1,
R6 and R7, where several processes of a service run, are checked in `replicas`.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from todoku.audit import Report
from todoku.broker.port import Delivery, Outgoing
from todoku.engine import STREAM
from todoku.lab.simulation.database import SimulatedDatabase
from todoku.lab.simulation.poison import Poison
from todoku.lab.simulation.trace import Head, head_of, source_of
from todoku.simulated import SimulatedService

Rows = Sequence[tuple[Any, ...]]

_PENDING = "SELECT event_id, reader, body FROM outbox"
_CONSUMED = "SELECT event_id FROM inbox UNION SELECT event_id FROM dead_letters"
_DEAD_BODIES = "SELECT DISTINCT body FROM dead_letters"
_UNRESOLVED_BODIES = f"{_DEAD_BODIES} WHERE state <> 'RETRIED'"


class Violation(msgspec.Struct, frozen=True):
    """A broken invariant: which, how, and the orders concerned."""

    invariant: str
    problem: str
    orders: tuple[str, ...] = ()


class InvariantChecker:
    """Collects what a run has committed and sent, and every violation of an invariant.

    `databases` are those of the services; `parts` their parts of the simulation.
    """

    def __init__(self, databases: Mapping[str, SimulatedDatabase]) -> None:
        self.violated = asyncio.Event()
        self.violations: list[Violation] = []
        self.parts: Mapping[str, SimulatedService] = {}
        self._databases = databases
        self._changes: Counter[str] = Counter()
        self._published: dict[str, set[str]] = defaultdict(set)
        self._consumed: dict[str, set[str]] = defaultdict(set)
        self._stored: set[str] = set()
        self._addressed: dict[tuple[str, str], bytes] = {}
        """The body of each event that was committed, by its id and subscriber."""

    def fail(self, invariant: str, problem: str, *orders: str) -> None:
        """Record a violation."""
        violation = Violation(invariant, problem, orders)
        if violation not in self.violations:
            self.violations.append(violation)
        self.violated.set()

    def rows(self, service: str, statement: str, *parameters: object) -> Rows:
        """Return what is committed in the database of a service."""
        return self._databases[service].look(statement, parameters)

    # After every commit.

    def committed(self, service: str) -> None:
        """Check what a service has just committed, if it has changed anything."""
        changes = self._databases[service].changes
        if changes == self._changes[service]:
            return
        self._changes[service] = changes
        part = self.parts[service]
        for event_id, reader, body in self.rows(service, _PENDING):
            self._published[service].add(event_id)
            self._addressed[event_id, reader] = body
        self._published[service].update(part.published_elsewhere())
        self._consumed[service].update(event_id for (event_id,) in self.rows(service, _CONSUMED))
        part.check_commit()

    # When a database is restored.

    def consumed(self, service: str) -> Collection[str]:
        """Return the ids of the events that a service has consumed."""
        return self._consumed[service]

    def restored(self, service: str, consumed: Iterable[str], published: Collection[str]) -> None:
        """Note that the database of a service has only `consumed` these events, and that the stream has
        these ids of its own: no others of its events have to reach a subscriber."""
        self._consumed[service] = set(consumed)
        self._stored.update(published)
        pending = {event_id for event_id, _, _ in self.rows(service, _PENDING)}
        for (event_id, reader), body in list(self._addressed.items()):
            if source_of(body) != service:
                continue
            if event_id not in pending and event_id not in published:
                del self._addressed[event_id, reader]

    # At every message that leaves a service.

    def published(self, service: str, messages: Iterable[Outgoing]) -> None:
        """Check R2: an event is in the database before it is published."""
        for message in messages:
            head = head_of(message.body)
            assert head is not None
            if head.id not in self._published[service]:
                self._fail_about(head, f"{service} published {head.type} before it was committed")

    def stored(self, messages: Iterable[Outgoing]) -> None:
        """Note what the broker has confirmed to have stored."""
        self._stored.update(head.id for message in messages if (head := head_of(message.body)))

    def acknowledged(self, service: str, deliveries: Iterable[Delivery]) -> None:
        """Check R2: a message is processed in the database before it is acknowledged."""
        known = self._consumed[service], self._published[service]
        for delivery in deliveries:
            head = head_of(delivery.body)
            if head is None or any(head.id in ids for ids in known):
                continue
            # A message whose id cannot be trusted is parked without it.
            if delivery.body not in self._dead_bodies(service):
                problem = f"{service} acknowledged {head.type} before it was committed"
                self._fail_about(head, problem)

    def receipted(self, service: str, ids: Iterable[str]) -> None:
        """Check R2: a message is processed in the database before its receipt is sent."""
        for event_id in ids:
            if event_id not in self._consumed[service]:
                self.fail("R2", f"{service} receipted {event_id} before it was committed")

    def taken_out(self, body: bytes) -> None:
        """Note that the stream has this event no longer."""
        if head := head_of(body):
            self._stored.discard(head.id)

    def is_stored(self, event_id: str) -> bool:
        """Return whether the broker has confirmed that it stored this event."""
        return event_id in self._stored

    # At the end.

    def not_quiescent(self) -> list[str]:
        """Return what keeps the system from being quiescent: open work, rows that wait for receipts."""
        waiting = [
            f"{service} waits for {count} receipts"
            for service in self._databases
            for (count,) in self.rows(service, "SELECT count(*) FROM outbox")
            if count
        ]
        return waiting + [line for part in self.parts.values() for line in part.open_work()]

    def unhandled(
        self, poison: Iterable[Poison], subjects_read: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Return which poison a subscriber has neither parked nor, where it may, processed yet."""
        dead = {service: self._dead_bodies(service) for service in subjects_read}
        return [
            f"{service} has not parked a message on {each.message.subject}"
            for each in poison
            for service, subjects in subjects_read.items()
            if each.message.subject in subjects and each.message.body not in dead[service]
            if each.must_be_parked or each.event_id not in self._consumed[service]
        ]

    def outcome(self) -> dict[str, int]:
        """Return the totals of all services, such as the orders by status."""
        totals: Counter[str] = Counter()
        for part in self.parts.values():
            totals.update(part.outcome())
        return dict(sorted(totals.items()))

    def check_report(self, report: Report, poison: Iterable[Poison]) -> None:
        """Check I1 to I5 as `todoku verify` does, except for the orders that poison is about."""
        poisoned = _keys(poison)
        for finding in report.findings:
            if finding.subject in poisoned:
                continue
            self.fail(
                finding.invariant, f"{finding.subject}: {finding.problem}", str(finding.subject)
            )

    def check_end(self) -> None:
        """Check what the services expect once the system is quiescent."""
        for part in self.parts.values():
            part.check_end()

    def check_deliveries(self) -> None:
        """Check R5: every committed event has reached every subscriber, or at least the stream."""
        for (event_id, reader), body in self._addressed.items():
            reached = self._stored if reader == STREAM else self._consumed[reader]
            if reader in (STREAM, *self._databases) and event_id not in reached:
                head = head_of(body)
                what = head.type if head else event_id
                self.fail(
                    "R5", f"{reader} never consumed {what}", *([head.subject] if head else [])
                )

    def check_dead_letters(self, poison: Iterable[Poison]) -> None:
        """Check I3: nothing is parked that could have been processed."""
        poison = list(poison)
        bodies, poisoned = {each.message.body for each in poison}, _keys(poison)
        for service in self._databases:
            unresolved = {body for (body,) in self.rows(service, _UNRESOLVED_BODIES)}
            for body in sorted(unresolved - bodies):
                head = head_of(body)
                if head and head.subject in poisoned:
                    continue  # It follows from poison that was processed.
                problem = f"{service} has parked {head.type if head else body[:60]!r}"
                self.fail("I3", problem, *([head.subject] if head else []))

    def _fail_about(self, head: Head, problem: str) -> None:
        self.fail("R2", problem, head.subject)

    def _dead_bodies(self, service: str) -> set[bytes]:
        return {body for (body,) in self.rows(service, _DEAD_BODIES)}


def _keys(poison: Iterable[Poison]) -> set[str]:
    """Return the keys that poison is about, also as a UUID is usually written."""
    keys = {each.key for each in poison}
    return keys | {key.strip().strip("{}").removeprefix("urn:uuid:").lower() for key in keys}
