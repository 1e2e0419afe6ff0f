"""The whole system on one seeded, hostile network: production code, simulated world."""

from todoku.simulation.promise import Failure
from todoku.simulation.run import Plan, Result, replay, simulate
from todoku.simulation.shrink import shrink

__all__ = ["Failure", "Plan", "Result", "replay", "shrink", "simulate"]
