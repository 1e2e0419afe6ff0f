"""The virtual time of a simulation, which is that of the engine's tests."""

from todoku.engine.testing.virtual_time import (
    ROUNDS_MAX,
    START,
    Stuck,
    VirtualClock,
    VirtualLoop,
    run,
)

__all__ = ["ROUNDS_MAX", "START", "Stuck", "VirtualClock", "VirtualLoop", "run"]
