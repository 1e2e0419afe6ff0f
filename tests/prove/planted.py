"""Plants bugs of `tests/simulation/planted/` and others like them into the services of a scenario."""

from typing import Any

from prove.shop import Plant
from simulation.mutants import MUTANTS
from todoku.engine import Service
from todoku.lab.simulation.wiring import Parts, Wire


def mutant(name: str) -> Plant:
    """Return what plants the bug of this name, which the simulator finds too."""
    return plant(next(each for each in MUTANTS if each.name == name).plant())


def plant(wire: Wire) -> Plant:
    """Return what plants a bug that is in a service's handlers, agendas or store."""
    nothing: Any = None

    def planted(service: Service) -> Service:
        parts = Parts(
            service=service, database=nothing, broker=nothing, config=nothing, failpoint=nothing
        )
        return wire(parts).service

    return planted
