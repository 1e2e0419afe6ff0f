"""Make the events that tell what is paused at a service."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from todoku.contracts.pauses import PAUSES_MAX, ActivePause, PausesEvent

E = TypeVar("E", bound=PausesEvent)


class PauseRow(Protocol):
    """What these events tell of a pause."""

    @property
    def id(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def paused_at(self) -> datetime: ...
    @property
    def paused_by(self) -> str: ...
    @property
    def reason(self) -> str: ...


def pauses_event(kind: type[E], pauses: Sequence[PauseRow], version: int) -> E:
    """Return the event that tells of these pauses."""
    return kind(
        service=kind.publisher,
        version=version,
        pauses=tuple(
            ActivePause(
                id=each.id,
                target=each.target,
                paused_at=each.paused_at,
                paused_by=each.paused_by,
                reason=each.reason,
            )
            for each in pauses[:PAUSES_MAX]
        ),
    )
