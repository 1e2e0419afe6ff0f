"""Keep what is paused at the other services, because it tells why orders do not go on."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, MetaData, Text, select

from todoku.contracts import ActivePause, Event, PausesEvent
from todoku.database import Integer64, Many, Query, among, table, upsert

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[ActivePause, ...]).decode


class ForeignPauses(Exception):
    """An event about the pauses of one service was published by another."""


class PausesElsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """What is paused at a service, as its event of this `version` told."""

    service: str
    version: int
    pauses: tuple[ActivePause, ...]


def note_pauses(
    known: PausesElsewhere | None, event: PausesEvent, now: datetime
) -> tuple[PausesElsewhere, list[Event]]:
    """Keep what the event tells. Late if a later version is known. Raises `ForeignPauses`."""
    if event.service != event.publisher:
        raise ForeignPauses(
            f"A {type(event).__name__} is about the pauses of {event.service!r}, and {event.publisher} "
            "publishes only its own: discard the message."
        )
    if known is not None and event.version <= known.version:
        return known, []
    told = PausesElsewhere(service=event.publisher, version=event.version, pauses=event.pauses)
    return told, []


class PausesElsewhereTable:
    """What is paused at each other service: a row for each that has ever been paused."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "pauses_elsewhere",
            metadata,
            Column("service", Text, primary_key=True),
            Column("version", Integer64, nullable=False),
            Column("pauses", Text, nullable=False),
        )
        columns = self.table.c
        these = select(self.table).where(among(columns.service, "services"))
        self._load = Query(these.order_by(columns.service).with_for_update())
        self._read = Query(these)
        # Another process may have inserted a later version in the meantime.
        self._save = Many(upsert(self.table, ["service"], ["version", "pauses"], growing="version"))

    def load(self, connection: Connection, services: Collection[str]) -> dict[str, PausesElsewhere]:
        """Load and lock what is known of these services."""
        if not services:
            return {}
        return {row.service: _state(row) for row in self._load(connection, services=[*services])}

    def save(self, connection: Connection, states: Iterable[PausesElsewhere]) -> None:
        """Write what was told."""
        rows = [
            {
                "service": each.service,
                "version": each.version,
                "pauses": _encode(each.pauses).decode(),
            }
            for each in states
        ]
        self._save(connection, rows)

    def find(
        self, connection: Connection, services: Collection[str]
    ) -> dict[str, tuple[ActivePause, ...]]:
        """Return what is paused at these services."""
        found = self._read(connection, services=[*services])
        return {row.service: _decode(row.pauses) for row in found}


def _state(row: Any) -> PausesElsewhere:
    return PausesElsewhere(service=row.service, version=row.version, pauses=_decode(row.pauses))
