"""Test that losses and damages of the broker's store under load cost nothing: it is a cache."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from faults.conftest import Prove
from todoku.lab.chaos import OrderLoad, faults, prepare_products
from todoku.lab.chaos.run import inject
from todoku.lab.replica import until
from todoku.lab.stack import Stack

pytestmark = pytest.mark.faults

TIMES = 5


@pytest.mark.parametrize(
    "fault",
    [
        faults.wipe_broker,
        faults.delete_stream,
        faults.purge_stream,
        faults.delete_durable,
    ],
    ids=lambda fault: fault.__name__,
)
def test_stream_or_durable_is_lost(fault: faults.Fault, stack: Stack, prove: Prove) -> None:
    """Lost messages are resent from the outboxes; redelivered ones are dropped by the inboxes."""
    dice = Random(1)
    with OrderLoad(stack) as load:
        for _ in range(TIMES):
            load.until_accepted(200)
            # Orders are accepted while the stream is absent: the services may not have created it again yet.
            until(lambda: inject(stack, fault, dice), "there was nothing to break")
        load.until_accepted(200)
    prove(stack, load, injected=TIMES)


def test_broker_rolled_back_to_an_older_image(stack: Stack, prove: Prove, tmp_path: Path) -> None:
    """Events in flight are resent, without a restart of the services, when the broker's files are
    replaced by an older copy of themselves."""
    image = tmp_path / "image"
    with OrderLoad(stack) as load:
        load.until_accepted(200)
        with faults.broker_dead(stack) as files:
            shutil.copytree(files, image)
        load.until_accepted(400)
        for _ in range(TIMES):
            load.until_accepted(200)
            with faults.broker_dead(stack) as files:
                shutil.rmtree(files)
                shutil.copytree(image, files)
        load.until_accepted(200)
    prove(stack, load, injected=TIMES)


@pytest.mark.parametrize("seed", range(5))
def test_bytes_of_the_broker_are_flipped(seed: int, stack: Stack, prove: Prove) -> None:
    """Every order ends correctly, whatever the broker makes of damaged files."""
    dice = Random(seed)
    with OrderLoad(stack, seed=seed) as load:
        for _ in range(3):
            load.until_accepted(200)
            faults.flip_broker_bytes(stack, dice)
        load.until_accepted(200)
    prove(stack, load, injected=3 * faults.FLIPPED_BYTES)


def test_files_of_a_running_broker_are_deleted(stack: Stack, prove: Prove) -> None:
    """`up` detects this, says so, and restarts the broker without any files."""
    with OrderLoad(stack) as load:
        load.until_accepted(300)
        broker = stack.settings.data_dir / "broker"
        while broker.exists():  # It writes into its folders while they are deleted.
            shutil.rmtree(broker, ignore_errors=True)
        stack.output.until("broker runs but does not work")
        stack.until_ready()
        load.until_accepted(300)
    prove(stack, load, injected=1)


def test_metadata_of_the_stream_and_its_durables_is_damaged(stack: Stack, prove: Prove) -> None:
    """A stream and durables that the broker cannot open are created again."""
    dice = Random(0)
    with OrderLoad(stack) as load:
        load.until_accepted(300)
        with faults.broker_dead(stack) as files:
            damaged = [*files.rglob("meta.inf"), *files.rglob("o.dat")]
            for file in damaged:
                for _ in range(5):
                    faults.flip_byte(file, dice)
        load.until_accepted(300)
    prove(stack, load, injected=len(damaged))


def test_stream_is_too_small(make_stack: Callable[..., Stack], prove: Prove) -> None:
    """Nothing is lost when the stream drops unconsumed messages: the outboxes still hold them."""
    stack = make_stack(stream_max_bytes=2**20)
    stack.start()
    prepare_products(stack)
    with OrderLoad(stack) as load:
        load.until_accepted(100)
        stack.freeze("inventory")
        load.until_accepted(3000)
        stack.thaw("inventory")
        load.until_accepted(100)
    prove(stack, load, injected=1)
