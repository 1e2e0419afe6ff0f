"""Coroutines in virtual time: an hour passes at once, and always in the same order."""

from todoku.engine.testing import START, VirtualClock, inline, run, until

__all__ = ["START", "VirtualClock", "inline", "run", "until"]
