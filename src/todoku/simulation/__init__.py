"""The whole system on one seeded, hostile network: production code, simulated world."""

from todoku.simulation.promise import Failure
from todoku.simulation.run import Plan, Result, replay, simulate

__all__ = ["Failure", "Plan", "Result", "replay", "simulate"]
