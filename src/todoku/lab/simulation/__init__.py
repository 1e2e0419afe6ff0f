"""Runs the whole system in virtual time on a seeded network that injects faults."""

from todoku.lab.simulation.explanation import Explanation, explain
from todoku.lab.simulation.invariants import Violation
from todoku.lab.simulation.plan import SimulationPlan, SimulationResult
from todoku.lab.simulation.run import replay, simulate
from todoku.lab.simulation.shrink import shrink

__all__ = [
    "Explanation",
    "SimulationPlan",
    "SimulationResult",
    "Violation",
    "explain",
    "replay",
    "shrink",
    "simulate",
]
