"""Backups that are taken under load make a whole system again."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from faults.conftest import Prove
from todoku.lab.chaos import OrderLoad, prepare_products
from todoku.lab.stack import Stack
from todoku.settings import to_environment
from todoku.system import system

pytestmark = pytest.mark.faults

TIMES = 5


def take(stack: Stack, destination: Path) -> Path:
    """The folder that `todoku backup` has made."""
    told = subprocess.run(
        [sys.executable, "-m", "todoku", "backup", str(destination), "--json"],
        env=to_environment(stack.settings),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Path(msgspec.json.decode(told.stdout)["folder"])


def resume(stack: Stack) -> None:
    """Let a system go on that runs on copies, and therefore starts paused."""
    subprocess.run(
        [sys.executable, "-m", "todoku", "resume"], env=to_environment(stack.settings), check=True
    )


def test_a_backup_alone_is_a_whole_system(
    tmp_path: Path, make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """Each of several backups taken under load, started anew with an empty broker: every order that
    was accepted before it is there, all settle, and the promise holds."""
    stack = make_stack()
    stack.start()
    prepare_products(stack)
    backups: list[tuple[Path, set[str]]] = []
    with OrderLoad(stack) as load:
        for _ in range(TIMES):
            load.until_accepted(200)
            accepted = set(load.accepted)
            backups.append((take(stack, tmp_path / "backups"), accepted))
    prove(stack, load, injected=0, note="the system that was backed up")
    stack.stop()
    for n, (folder, accepted) in enumerate(backups):
        data_dir = tmp_path / f"restored-{n}"
        data_dir.mkdir()
        for service in system.names:
            shutil.copy(folder / f"{service}.db", data_dir)
        restored = make_stack(data_dir)
        restored.start()
        resume(restored)
        # Orders that were accepted while the backup was being taken may be in it.
        before = OrderLoad(restored)
        before.accepted = accepted
        before.unknown = len(load.accepted)
        prove(restored, before, injected=1, note="restored alone, with an empty broker")
        restored.stop()
