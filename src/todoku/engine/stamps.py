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


def stamped(
    before: object, after: Any, occurred_at: datetime | None, now: datetime
) -> tuple[Any, datetime]:
    """Return the state `after`, stamped no earlier than the state before and the event that occurred, if
    the decision has stamped it; and the time of the events that follow.

    A state that consists of several defines `updated_at`, and `restamped(at)`, which returns its copy.
    """
    stamp_before = earliest = getattr(before, "updated_at", None)
    if (
        (stamp_before is None or stamp_before <= now)
        and (occurred_at is None or occurred_at <= now)
        and (after is before or getattr(after, "updated_at", now) is now)
    ):
        return after, now  # As nearly always: nothing is ahead of the clock.
    if occurred_at is not None and (occurred_at <= now or occurred_at <= now + AHEAD_MAX):
        earliest = occurred_at if earliest is None else max(earliest, occurred_at)
    if earliest is None:
        return after, now
    at = earliest if earliest > now else now
    if after is before:
        return after, at
    stamp = getattr(after, "updated_at", None)
    if stamp is None or stamp >= earliest or stamp == stamp_before:
        return after, at
    return _restamped(after, earliest), at


def _restamped(state: Any, at: datetime) -> Any:
    """Return the state as changed at this time, if it is of a kind that can be copied."""
    if hasattr(state, "restamped"):
        return state.restamped(at)
    if isinstance(state, msgspec.Struct):
        return msgspec.structs.replace(state, updated_at=at)
    return state
