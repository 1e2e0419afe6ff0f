"""Read the databases of a system, and collect what breaks an invariant."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, MetaData, func, select

from todoku.audit.erasures import persons_back
from todoku.audit.invariants import ORDER_ENTITY, OrderSeen, findings_about
from todoku.audit.logs import audit_logs
from todoku.audit.part import AuditPart, Finding, Known
from todoku.audit.report import Awaited, ParkedLetters, Paused, Report
from todoku.engine import EngineTables
from todoku.engine.dead_letters import DeadLetterState

_metadata = MetaData()
_tables = EngineTables(_metadata)
_outbox = _metadata.tables["outbox"]
_letters = _metadata.tables["dead_letters"]
"""The tables that every service has."""


def audit(
    parts: Mapping[str, AuditPart | None],
    connections: Mapping[str, Connection],
    now: datetime,
    *,
    overdue_after: timedelta,
) -> Report:
    """Audit the databases of these services, which are in the sequence in which an order passes them.

    A service without a part is asked for its pending deliveries and its dead letters alone.
    """
    present = {name: part for name, part in parts.items() if part is not None}
    dead_letters = tuple(_dead_letters(connections))
    parked_orders = {order_id for parked in dead_letters for order_id in parked.orders}
    paused = tuple(_paused(connections))
    stopped = {each.service for each in paused}
    statuses: Counter[str] = Counter()
    findings: list[Finding] = []
    held = _held_recoveries(connections)
    findings += held.values()
    about_logs, logs = audit_logs(connections)
    findings += about_logs
    for name, part in present.items():
        findings += part.findings(connections[name])
        if part.entity == ORDER_ENTITY:
            findings += persons_back(name, connections)
    for seen in _orders_seen(present, connections, held):
        if seen.order is not None:
            statuses[seen.order[1].value] += 1
        excused = seen.order_id in parked_orders or seen.is_open_at(stopped)
        findings += findings_about(seen, connections, now, overdue_after, excused=excused)
    return Report(
        findings=tuple(sorted(findings)),
        orders=dict(sorted(statuses.items())),
        awaited=tuple(_pending_deliveries(connections)),
        dead_letters=dead_letters,
        open_orders=_open_orders(present, statuses),
        paused=paused,
        audit_logs=logs,
    )


def _orders_seen(
    parts: Mapping[str, AuditPart], connections: Mapping[str, Connection], held: Collection[str]
) -> Iterator[OrderSeen]:
    """Yield what is known about each order, by order id."""
    seen: dict[str, list[tuple[str, Known]]] = {}
    for name, part in parts.items():
        for known in part.known(connections[name]):
            seen.setdefault(known.order_id, []).append((name, known))
    for order_id in sorted(seen):
        yield OrderSeen(order_id, parts, dict(seen.pop(order_id)), held)


def _open_orders(parts: Mapping[str, AuditPart], statuses: Mapping[str, int]) -> int:
    ended = {
        status.value
        for part in parts.values()
        if part.entity == ORDER_ENTITY
        for status in part.lifecycle.terminal
    }
    return sum(count for status, count in statuses.items() if status not in ended)


def _dead_letters(connections: Mapping[str, Connection]) -> Iterator[ParkedLetters]:
    parked = select(_letters.c.order_id).where(_letters.c.state == DeadLetterState.PARKED.value)
    for name, connection in connections.items():
        if about := connection.scalars(parked).all():
            yield ParkedLetters(name, len(about), tuple(sorted(set(about) - {None})))


def _paused(connections: Mapping[str, Connection]) -> Iterator[Paused]:
    for name, connection in connections.items():
        for each in _tables.pauses.open(connection):
            yield Paused(name, each.target, each.state, each.paused_at, each.paused_by, each.reason)


def _held_recoveries(connections: Mapping[str, Connection]) -> dict[str, Finding]:
    """Return the services that decide nothing, because a restored database is known to lack something."""
    found = {}
    for name, connection in connections.items():
        if held := len(_tables.dead_letters.holding(connection)):
            letters = "1 dead letter says" if held == 1 else f"{held:,} dead letters say"
            found[name] = Finding(
                "I3",
                name,
                f"the {name} service decides nothing: its database was restored or lost, and {letters} what"
                " it lacks",
                f"See `todoku dead list --service {name}`, enter again what did not arrive as an event, then"
                f" `todoku dead retry --all --service {name}`.",
            )
    return found


def _pending_deliveries(connections: Mapping[str, Connection]) -> Iterator[Awaited]:
    by_reader = (
        select(_outbox.c.reader, func.count(), func.min(_outbox.c.said_at))
        .group_by(_outbox.c.reader)
        .order_by(_outbox.c.reader)
    )
    for name, connection in connections.items():
        for reader, events, since in connection.execute(by_reader):
            yield Awaited(name, reader, events, since)
