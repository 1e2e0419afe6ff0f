"""The whole system on one seeded, hostile network: production code, simulated world."""

from todoku.lab.simulation.explanation import Explanation, explain
from todoku.lab.simulation.promise import Failure
from todoku.lab.simulation.run import Plan, Result, replay, simulate
from todoku.lab.simulation.shrink import shrink

__all__ = ["Explanation", "Failure", "Plan", "Result", "explain", "replay", "shrink", "simulate"]
