"""Stamps: the time of an event, and `updated_at` of a state. They never go back within one entity.

The wall clock may be set back between two decisions, and two machines' clocks differ. So what a decision
returns is stamped no earlier than the state that it read and the event that it handled. Other entities
are not affected. Due times are not stamps: they count from the real time.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec

AHEAD_MAX = timedelta(days=1)
"""An event whose time is further ahead than this does not move the stamps of its entity."""


def earliest_stamp(before: object, occurred_at: datetime | None, now: datetime) -> datetime | None:
    """Return the earliest time that what follows from `before` and an event may be stamped with."""
    stamp = _stamp_of(before)
    if occurred_at is None or (occurred_at > now and occurred_at > now + AHEAD_MAX):
        return stamp
    return occurred_at if stamp is None else max(stamp, occurred_at)


def stamped(before: object, after: Any, earliest: datetime | None) -> Any:
    """Return the state `after`, stamped with at least `earliest` if the decision has stamped it.

    A state that consists of several defines `updated_at`, and `restamped(at)`, which returns its copy.
    """
    if earliest is None or after is before:
        return after
    stamp = _stamp_of(after)
    if stamp is None or stamp >= earliest or stamp == _stamp_of(before):
        return after
    if hasattr(after, "restamped"):
        return after.restamped(earliest)
    return msgspec.structs.replace(after, updated_at=earliest)


def _stamp_of(state: object) -> datetime | None:
    """Return when a state changed last, None if it does not say."""
    return getattr(state, "updated_at", None) if isinstance(state, msgspec.Struct) else None
