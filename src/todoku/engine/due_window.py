"""Which due times have come, also after the wall clock was corrected."""

from datetime import datetime, timedelta

import msgspec

from todoku.engine.clock import Correction

MICROSECOND = timedelta(microseconds=1)


class DueWindow(msgspec.Struct, frozen=True):
    """A time has come by `now`, or if it is after `horizon`, except if it is after `held_after` and no
    later than `held_until`. No time has come before `opens_at`."""

    now: datetime
    horizon: datetime | None
    held_after: datetime
    held_until: datetime
    opens_at: datetime | None = None

    @property
    def holds(self) -> bool:
        """Return whether times that were computed before a correction are still to come."""
        return self.held_after < self.held_until

    @property
    def is_open(self) -> bool:
        """Return whether any time may have come yet."""
        return self.opens_at is None or self.opens_at <= self.now

    def has_come(self, due_at: datetime) -> bool:
        """Return whether a due time has come."""
        if due_at > self.now and (self.horizon is None or due_at <= self.horizon):
            return False
        return self.is_open and not self.held_after < due_at <= self.held_until

    def is_beyond(self, due_at: datetime) -> bool:
        """Return whether no pause that began now leads to this time: the clock was ahead then."""
        return self.horizon is not None and due_at > self.horizon


def due_window(
    now: datetime, longest_pause: timedelta | None, correction: Correction | None = None
) -> DueWindow:
    """Return what is due at `now` where pauses last up to `longest_pause`.

    Times that were computed before the last correction come when the uncorrected clock would have
    reached them: they are those up to `longest_pause` after it. If the clock was set forward, a time
    after the new one is taken as computed since; so after a correction by less than the longest pause,
    some rows are early by as much as the correction.
    """
    if longest_pause is None:
        return DueWindow(now, None, now, now)
    horizon = now + longest_pause
    if correction is None:
        return DueWindow(now, horizon, now, now)
    uncorrected = now - (correction.after - correction.before)
    last = correction.before + longest_pause
    if correction.after > correction.before:
        last = min(last, correction.after - MICROSECOND)
    if uncorrected >= last:
        return DueWindow(now, horizon, now, now)
    if correction.after < correction.before:
        horizon = min(horizon, correction.before)
    return DueWindow(now, horizon, uncorrected, last)


def closed_window(now: datetime) -> DueWindow:
    """Return that no time has come, whatever it is."""
    never = datetime.max.replace(tzinfo=now.tzinfo)
    return DueWindow(now, None, now, now, opens_at=never)
