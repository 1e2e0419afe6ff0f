"""Bugs: a service takes a revoked API key for valid."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import delete

from simulation import planting
from simulation.planting import Wrapped, mutant
from todoku.contracts import OrdersApiKeyChangedEvent
from todoku.identity.keys import ApiKey
from todoku.lab.simulation.wiring import Parts, Wire


class _Data(msgspec.Struct):
    version: int


class _Envelope(msgspec.Struct):
    data: _Data


@mutant
def revocation_never_published() -> Wire:
    """Orders revokes a key and tells nobody."""

    class Outbox(Wrapped):
        def add(self, connection: Any, owner: str, position: int, pending: Any, now: Any) -> Any:
            told = [each for each in pending if not _revokes(each)]
            return self.inner.add(connection, owner, position, told, now)

    return planting.tables("outbox", Outbox)


def _revokes(pending: Any) -> bool:
    if pending.subject != OrdersApiKeyChangedEvent.subject:
        return False
    return msgspec.json.decode(pending.body, type=_Envelope).data.version == 2


@mutant
def revocation_never_replayed() -> Wire:
    """A restored orders does not read its own events about keys."""

    def wire(parts: Parts) -> Parts:
        handlers = {
            event: handler
            for event, handler in parts.service.replay_handlers.items()
            if event is not OrdersApiKeyChangedEvent
        }
        service = replace(parts.service, replay_handlers=handlers)
        return msgspec.structs.replace(parts, service=service)

    return wire


@mutant
def revocation_not_kept() -> Wire:
    """A service confirms the event about a revoked key, and keeps the key as it was."""

    class Keys(Wrapped):
        def keep(self, connection: Any, keys: Iterable[ApiKey]) -> None:
            kept = [key for key in keys if key.version == 1 or self.parts.service.key_event]
            self.inner.keep(connection, kept)

    return planting.tables("api_keys", Keys)


@mutant
def late_creation_revives_a_key() -> Wire:
    """The last event about a key counts, also one that was overtaken."""

    class Keys(Wrapped):
        def keep(self, connection: Any, keys: Sequence[ApiKey]) -> None:
            ids = [key.id for key in keys]
            connection.execute(delete(self.inner.table).where(self.inner.table.c.id.in_(ids)))
            self.inner.keep(connection, keys)

    return planting.tables("api_keys", Keys)
