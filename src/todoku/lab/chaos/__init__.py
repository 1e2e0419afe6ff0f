"""Breaks real processes under load, and checks the invariants afterwards.

`OrderLoad` places orders on a stack and records which were accepted, `judge` waits until the system
is quiescent and checks them. `todoku chaos` and the tests of faults are made of these.
"""

from todoku.lab.chaos.load import OrderLoad, prepare_products
from todoku.lab.chaos.run import ChaosPlan, ChaosReport, run_chaos
from todoku.lab.chaos.verdict import Verdict, judge

__all__ = [
    "ChaosPlan",
    "ChaosReport",
    "OrderLoad",
    "Verdict",
    "judge",
    "prepare_products",
    "run_chaos",
]
