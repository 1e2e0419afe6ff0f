"""The whole system on one seeded, hostile network: production code, simulated world."""

from todoku.simulation.run import Failure, Plan, Result, simulate

__all__ = ["Failure", "Plan", "Result", "simulate"]
