"""Bugs: a request that is repeated with its idempotency key is executed twice, or answered wrongly."""

from dataclasses import replace
from typing import Any

import msgspec

from simulation import planting
from simulation.planting import Wrapped, mutant
from todoku.engine import AnswerFormat
from todoku.lab.simulation.wiring import Parts, Wire
from todoku.orders.domain import Order
from todoku.orders.store import find_order


@mutant
def key_saved_outside_the_transaction() -> Wire:
    """A key is saved with the next batch, not with what it guards."""

    class Keys(Wrapped):
        def __init__(self, inner: Any, parts: Parts) -> None:
            super().__init__(inner, parts)
            self.late: list[Any] = []

        def find(self, connection: Any, ids: Any) -> Any:
            late, self.late = self.late, []
            for answers, now in late:
                self.inner.add(connection, answers, now)
            return self.inner.find(connection, ids)

        def add(self, connection: Any, answers: Any, now: Any) -> None:
            self.late.append((answers, now))

    return planting.tables("idempotency_keys", Keys)


@mutant
def key_not_looked_up() -> Wire:
    """A key is saved, and not looked up when the request is repeated."""

    class Keys(Wrapped):
        def send(self, connection: Any, ids: Any) -> Any:
            return dict

        def add(self, connection: Any, answers: Any, now: Any) -> None:
            known = self.inner.find(connection, [key for key, _ in answers])
            self.inner.add(connection, [each for each in answers if each[0] not in known], now)

    return planting.tables("idempotency_keys", Keys)


@mutant
def fingerprint_ignored() -> Wire:
    """A key that was used for another request is taken for this one."""
    return _with_keys(fingerprint="")


@mutant
def refusal_decided_anew() -> Wire:
    """A request that was refused is decided again when it is repeated."""
    return _with_keys(refusals=frozenset())


@mutant
def keys_pruned_too_early() -> Wire:
    """A key is deleted within seconds of its use."""

    def wire(parts: Parts) -> Parts:
        config = msgspec.structs.replace(parts.config, key_retention_seconds=0.0)
        return msgspec.structs.replace(parts, config=config)

    return wire


@mutant
def repeated_request_answered_as_of_now() -> Wire:
    """A repeated request gets the order as it is by now, not the answer of the first request."""
    today = AnswerFormat(keep=lambda order: order.id, rebuild=find_order)

    def wire(parts: Parts) -> Parts:
        service = replace(parts.service, answers={Order: today})
        return msgspec.structs.replace(parts, service=service)

    return wire


def _with_keys(**changes: Any) -> Wire:
    """Change the key with which a client sends a command."""

    def wire(parts: Parts) -> Parts:
        async def execute(process: Any, command: Any, key: Any) -> Any:
            changed = key and msgspec.structs.replace(key, **changes)
            return await parts.execute(process, command, changed)

        return msgspec.structs.replace(parts, execute=execute)

    return wire
