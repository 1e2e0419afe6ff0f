"""Breaks real processes under load, and holds what is left against the promise.

`Stack` is a `todoku up` of one's own and every way to break it from outside, `Load` places orders
and remembers which were accepted, `judge` waits until all has settled and says what became of them.
`todoku chaos` and the tests of faults are made of these.
"""

from todoku.lab.chaos.load import Load, prepare_products
from todoku.lab.chaos.run import Chaos, Plan, wreak
from todoku.lab.chaos.stack import PROGRAMS, CapturedOutput, ProgramName, Stack, fresh_settings
from todoku.lab.chaos.verdict import Verdict, judge

__all__ = [
    "PROGRAMS",
    "CapturedOutput",
    "Chaos",
    "Load",
    "Plan",
    "ProgramName",
    "Stack",
    "Verdict",
    "fresh_settings",
    "judge",
    "prepare_products",
    "wreak",
]
