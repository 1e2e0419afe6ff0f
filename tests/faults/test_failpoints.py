"""A process that dies at any point of the engine, again and again, costs nothing."""

from collections.abc import Callable

import pytest

from faults.conftest import Prove
from todoku.engine.failpoints import POINTS
from todoku.lab.chaos import OrderLoad, prepare_products
from todoku.lab.stack import Stack
from todoku.settings import Settings
from todoku.system import system

pytestmark = pytest.mark.faults

DIES_AT_THE = 40
"""Late enough that the service becomes ready in each of its lives."""

CRASHES = 2
EXIT_CODE = "ended with exit code 137"

WAYS = [
    (point, service.name)
    for service in system.build(Settings())
    for point in POINTS
    if service.effects or not point.endswith("-effect")
]
"""Every point that a service can come to."""


@pytest.mark.parametrize(("point", "service"), WAYS)
def test_a_crash_at(
    point: str, service: str, make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """The service dies there several times under load; started without the failpoint, all settles."""
    stack = make_stack()
    stack.start({"TODOKU_FAILPOINT": f"{point}:{DIES_AT_THE}@{service}"})
    prepare_products(stack)
    with OrderLoad(stack) as load:
        stack.output.until(f"{service} {EXIT_CODE}", times=CRASHES)
        crashes = stack.output.count(EXIT_CODE)
        stack.stop()
        stack.start()
        load.until_accepted(100)
    prove(stack, load, injected=crashes)
