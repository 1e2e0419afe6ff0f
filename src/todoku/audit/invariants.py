"""Check I1 to I5 for one order: what every service knows about it must fit together."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from todoku.audit.part import (
    RESTORED,
    SEE_OTHERS,
    AuditPart,
    Finding,
    Known,
    KnownOrder,
    Wait,
    not_received,
)
from todoku.lifecycle import Status, overdue_from

ORDER_ENTITY: Final = "order"
"""The entity of the service that accepts orders."""


class OrderSeen:
    """What the services know about one order, by service, in the sequence of the system.

    `held` are services whose recovery waits: what they lack is no finding about the order.
    """

    def __init__(
        self,
        order_id: str,
        parts: Mapping[str, AuditPart],
        known: Mapping[str, Known],
        held: Collection[str] = (),
    ) -> None:
        self.order_id = order_id
        self.parts = parts
        self.known = known
        self.statuses = {
            name: each.status and parts[name].lifecycle.by_name[each.status]
            for name, each in known.items()
        }
        self.others = [
            (name, part, known.get(name))
            for name, part in parts.items()
            if part.entity != ORDER_ENTITY
        ]
        self.compared = [other for other in self.others if other[0] not in held]
        self.unknown_is_wrong = any(
            part.entity == ORDER_ENTITY and name not in held for name, part in parts.items()
        )

    @property
    def order(self) -> tuple[KnownOrder, Any] | None:
        """Return what the service that accepts orders knows, and the status of the order."""
        for name, known in self.known.items():
            if isinstance(known, KnownOrder):
                return known, self.statuses[name]
        return None

    def is_open_at(self, services: Collection[str]) -> bool:
        """Return whether one of these services has not ended what it does for the order."""
        statuses = [self.status(name) for name, _, _ in self.others if name in services]
        return any(status is not None and not status.terminal for status in statuses)

    def status(self, name: str) -> Any:
        """Return the status of a service's entity; None if there is none."""
        return self.statuses.get(name)


def findings_about(
    seen: OrderSeen,
    connections: Mapping[str, Connection],
    now: datetime,
    overdue_after: timedelta,
    *,
    excused: bool,
) -> Iterator[Finding]:
    """Yield what is broken about an order. `excused` is one that waits for a dead letter or
    for the end of a pause."""
    found = seen.order
    if found is None:
        if seen.unknown_is_wrong:
            yield Finding("I1", seen.order_id, _unknown_order(seen), RESTORED)
        return
    order, status = found
    for known in seen.known.values():
        for each in known.problems:
            yield Finding(each.invariant, seen.order_id, each.problem, each.advice)
    yield from _not_as_ordered(seen, order)
    if status.terminal:
        yield from _wrong_endings(seen, status, order.saga_version)
        return
    yield from _contradictions(seen, status)
    held = order.held or any(seen.status(name) in part.patient for name, part, _ in seen.others)
    overdue_at = overdue_from(order.accepted_at, order.deadline, overdue_after, held=held)
    if not excused and overdue_at is not None and overdue_at < now:
        yield from _overdue(seen, order, connections, now, overdue_after)


def _unknown_order(seen: OrderSeen) -> str:
    traces = [
        f"its {seen.parts[name].entity} is {known.status}" if known.status else known.trace
        for name, known in seen.known.items()
    ]
    return f"the orders service does not have it, but {' and '.join(traces)}"


# I4: what is done for an order is what was ordered.


def _not_as_ordered(seen: OrderSeen, order: KnownOrder) -> Iterator[Finding]:
    for _, part, known in seen.others:
        if known is None or known.status is None:
            continue
        if known.items is not None and not _same_pieces(order, known):
            ordered, found = dict(order.items or ()), dict(known.items)
            yield Finding(
                "I4",
                seen.order_id,
                f"{ordered} ordered, but the {part.entity} is for {found}",
                f"Compare the items of the order with its {part.entity} before the parcel is sent.",
            )
        if None not in (known.address, order.address) and known.address != order.address:
            # The addresses themselves are personal data.
            yield Finding(
                "I4",
                seen.order_id,
                f"the address of its {part.entity} is not the one that was ordered",
                f"Compare `todoku order show {seen.order_id}` with its {part.entity}, and stop the "
                "parcel.",
            )


def _same_pieces(order: KnownOrder, known: Known) -> bool:
    """Two databases may sort texts in two ways, so the sequence does not count."""
    ordered, found = set(order.items or ()), set(known.items or ())
    return found <= ordered if known.items_partial else found == ordered


# I4 and I5: what is true of an order that has ended.


def _wrong_endings(seen: OrderSeen, order: Status, saga_version: int) -> Iterator[Finding]:
    for name, part, _ in seen.compared:
        implied = order.stage.implies.get(part.entity, part.expected.get(order.value))
        if saga_version < part.since_saga_version:
            implied = (None,)
        status = seen.status(name)
        if implied is None or status in implied:
            continue
        if status in part.holds:
            source = _service_that_ended(seen, order, name)
            yield Finding(
                "I5",
                seen.order_id,
                f"the order is {order}, but {part.holds[status]}",
                not_received(name, "how the order ended") if source else RESTORED,
                source,
            )
        else:
            yield Finding(
                "I4",
                seen.order_id,
                f"the order is {order}, but {_has(part.entity, status)}",
                f"Compare `todoku order show {seen.order_id}` with the log of the {name} service."
                if status
                else RESTORED,
            )


def _service_that_ended(seen: OrderSeen, order: Status, behind: str) -> str | None:
    """Return the last other service whose entity ended as the order did, which can republish that."""
    fitting = [
        name
        for name, part, _ in seen.others
        if name != behind
        and seen.status(name) is not None
        and seen.status(name) in order.stage.implies.get(part.entity, ())
    ]
    return fitting[-1] if fitting else None


def _has(entity: str, status: Status | None) -> str:
    return f"its {entity} is {status}" if status else f"it has no {entity}"


# I4: what is true of an order on its way.


def _contradictions(seen: OrderSeen, order: Status) -> Iterator[Finding]:
    """What one service has done must follow from what the others have; one finding for each of them."""
    for name, part, _ in seen.compared:
        status = seen.status(name)
        for what, implied in _implications(seen, order, part.entity):
            if status not in implied:
                yield Finding(
                    "I4",
                    seen.order_id,
                    f"{what}, but {_has(part.entity, status)}",
                    f"Compare `todoku order show {seen.order_id}` with the log of the {name} service, "
                    "and stop its parcel."
                    if status
                    else RESTORED,
                )
                break


def _implications(
    seen: OrderSeen, order: Status, entity: str
) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    if entity in order.stage.implies:
        yield f"it is {order}", order.stage.implies[entity]
    for name, part, _ in seen.others:
        status = seen.status(name)
        if status is not None and entity in status.stage.implies:
            yield f"its {part.entity} is {status}", status.stage.implies[entity]


# I3: every order ends, or is visibly parked.


def _overdue(
    seen: OrderSeen,
    order: KnownOrder,
    connections: Mapping[str, Connection],
    now: datetime,
    overdue_after: timedelta,
) -> Iterator[Finding]:
    seconds = overdue_after.total_seconds()
    problem = f"in {order.status} for over {seconds:g} s"
    if order.changed_at >= now - overdue_after:
        problem = f"in {order.status}, accepted over {seconds:g} s ago"
    if order.accepted_at >= now - overdue_after:
        problem = f"in {order.status} after its deadline, {order.deadline:%Y-%m-%d %H:%M:%S} UTC"
    wait = _wait(seen, str(order.status), connections)
    for asks in wait.asks if isinstance(wait.asks, tuple) else (wait.asks,):
        yield Finding("I3", seen.order_id, problem, wait.advice, asks)


def _wait(seen: OrderSeen, order_status: str, connections: Mapping[str, Connection]) -> Wait:
    """The service that is furthest on may republish what it knows. An earlier one must not, unless the
    later one leaves it to it: where a later decision was lost, it would be made again, on other grounds."""
    for name in reversed(list(seen.parts)):
        known = seen.known.get(name)
        if known is None or known.status is None:
            continue
        if (found := seen.parts[name].wait(connections[name], known, order_status)) is not None:
            return found
    return SEE_OTHERS
