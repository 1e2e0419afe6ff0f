"""The whole system on one seeded, hostile network: production code, simulated world."""

from todoku.simulation.explanation import Explanation, explain
from todoku.simulation.promise import Failure
from todoku.simulation.run import Plan, Result, replay, simulate
from todoku.simulation.shrink import shrink

__all__ = ["Explanation", "Failure", "Plan", "Result", "explain", "replay", "shrink", "simulate"]
