"""Token buckets, one a caller, in bounded memory."""

import math
from typing import Final

import msgspec

CALLERS_MAX: Final = 20_000
"""How many callers are told apart: some 3 MB a policy."""

OTHERS: Final = ""
"""The one bucket of those that come while all others are in use."""


class Policy(msgspec.Struct, frozen=True):
    """How many requests (`quota`) a caller may send at once; that many come back in `window_seconds`."""

    name: str
    quota: int
    window_seconds: float

    @property
    def header(self) -> str:
        """The value of the header RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-11)."""
        return f'"{self.name}";q={self.quota};w={max(1, math.ceil(self.window_seconds))}'


class Taken(msgspec.Struct, frozen=True):
    """What is left of a caller's quota: `remaining` requests, more after `next_seconds`."""

    policy: Policy
    admitted: bool
    remaining: int
    next_seconds: int

    @property
    def header(self) -> str:
        """The value of the header RateLimit."""
        return f'"{self.policy.name}";r={self.remaining};t={self.next_seconds}'


class Buckets:
    """The buckets of one policy.

    Of each caller one number is kept: when its bucket is full again (the generic cell rate algorithm). A full
    bucket is like none, so the one that was used longest ago is dropped for a newcomer. If that one is
    not full, newcomers share a bucket instead: no number of callers makes it forget one that is over its
    quota.
    """

    def __init__(self, policy: Policy, *, callers_max: int = CALLERS_MAX) -> None:
        self.policy = policy
        self._callers_max = callers_max
        self._interval = policy.window_seconds / policy.quota
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, caller: str, now: float) -> Taken:
        """Take one request from a caller's bucket, if it has one; `now` in seconds of a steady clock."""
        if caller not in self._full_at:
            caller = self._make_room(caller, now)
        full_at = max(self._full_at.get(caller, now), now) + self._interval
        ahead = full_at - now - self.policy.window_seconds
        if ahead > self._interval * 1e-6:  # Rounding is no request.
            return Taken(self.policy, False, 0, max(1, math.ceil(ahead)))
        self._full_at.pop(caller, None)  # The dictionary is in the order of use.
        self._full_at[caller] = full_at
        return self._taken(-ahead)

    def _taken(self, behind: float) -> Taken:
        remaining = int(behind / self._interval + 1e-6)
        until_next = self._interval * (remaining + 1) - behind
        return Taken(self.policy, True, remaining, max(1, math.ceil(until_next)))

    def _make_room(self, caller: str, now: float) -> str:
        """Return the bucket for a newcomer: its own, or that of the others."""
        if len(self._full_at) < self._callers_max:
            return caller
        oldest = next(iter(self._full_at))
        if self._full_at[oldest] > now:
            return OTHERS
        del self._full_at[oldest]
        return caller
