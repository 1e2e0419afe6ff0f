"""Test a short selection of faults, as part of `make test`: a minute."""

import shutil
from collections.abc import Callable

from faults.conftest import Prove
from todoku.cli.exit_codes import ExitCode
from todoku.lab.chaos import OrderLoad, prepare_products
from todoku.lab.processes import PROGRAMS
from todoku.lab.stack import Stack

EXIT_AT_A_FAILPOINT = "ended with exit code 137"


def test_each_program_is_killed_in_turn(stack: Stack, prove: Prove) -> None:
    """`kill -9` of each service and of the broker under load costs nothing; `up` restarts them."""
    with OrderLoad(stack) as load:
        for name in PROGRAMS:
            load.until_accepted(150)
            stack.kill(name)
            stack.until_ready()
        load.until_accepted(150)
    prove(stack, load, injected=len(PROGRAMS))


def test_the_broker_is_killed_and_its_files_are_deleted(stack: Stack, prove: Prove) -> None:
    """Every order ends although the broker's disk is wiped in mid-saga: the outboxes hold its messages."""
    with OrderLoad(stack) as load:
        load.until_accepted(300)
        stack.kill("broker")
        shutil.rmtree(stack.settings.data_dir / "broker")
        stack.until_ready()
        load.until_accepted(300)
    prove(stack, load, injected=1)


def test_ctrl_c_in_the_middle_and_a_new_start(stack: Stack, prove: Prove) -> None:
    """Orders that were unfinished at Ctrl-C finish after the next start."""
    with OrderLoad(stack) as load:
        load.until_accepted(500)
        assert stack.stop() == ExitCode.OK
        stack.start()
        load.until_accepted(100)
    prove(stack, load, injected=1)


def test_a_crash_between_commit_and_publish(make_stack: Callable[..., Stack], prove: Prove) -> None:
    """Nothing is lost when orders crashes repeatedly between a commit and its post-commit actions."""
    stack = make_stack()
    stack.start({"TODOKU_FAILPOINT": "after-commit:40@orders"})
    prepare_products(stack)
    with OrderLoad(stack) as load:
        stack.output.until(EXIT_AT_A_FAILPOINT, times=3)
        crashes = stack.output.count(EXIT_AT_A_FAILPOINT)
        stack.stop()
        stack.start()
        load.until_accepted(100)
    prove(stack, load, injected=crashes)
