"""Another system that copies every event of every order by the feed, and is killed while it does."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from random import Random
from typing import Final

import msgspec

from todoku.lab.chaos.background import in_background
from todoku.lab.databases import event_keys
from todoku.lab.stack import Stack

RUNS_SECONDS: Final = (0.3, 3.0)
"""Shortest and longest time until it is killed; it starts in half a second."""

FINISH_SECONDS_MAX: Final = 120.0

EventKey = tuple[str, str]
"""The order and the id of an event."""


class CopyFailed(Exception):
    """The copy could not be finished."""


class _Copied(msgspec.Struct, frozen=True, rename="camel"):
    order_id: str
    id: str


class Copier:
    """Runs `todoku events export` again and again while it is at work; kills it `kills` times at random
    moments. `killed` counts the kills that met it at work."""

    def __init__(self, stack: Stack, *, kills: int, seed: int) -> None:
        folder = stack.settings.data_dir
        file = folder.with_name(f"{folder.name}-copy-{time.time_ns()}.ndjson")
        self.killed = 0
        self._settings = stack.settings
        self._command = (
            *(sys.executable, "-m", "todoku", "events", "export"),
            *("--output", str(file), "--url", stack.url("orders")),
        )
        self._file = file
        self._kills = kills
        self._dice = Random(f"copier {seed}")

    def at_work(self) -> AbstractContextManager[None]:
        """Return a context in which it copies."""
        return in_background(self._work)

    def differences(self) -> tuple[str, ...]:
        """Copy the rest without a kill, and return what distinguishes the copy from what orders has
        recorded, a line each. Raises `CopyFailed`."""
        return differences(self._finish(), event_keys(self._settings))

    def _finish(self) -> Counter[EventKey]:
        done = subprocess.run(
            self._command, capture_output=True, text=True, timeout=FINISH_SECONDS_MAX
        )
        if done.returncode:
            raise CopyFailed(f"todoku events export returned {done.returncode}: {done.stderr}")
        with self._file.open("rb") as lines:
            copied = (msgspec.json.decode(line, type=_Copied) for line in lines)
            return Counter((each.order_id, each.id) for each in copied)

    def _work(self, stopping: threading.Event) -> None:
        while self.killed < self._kills and not stopping.is_set():
            process = subprocess.Popen(
                self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stopping.wait(self._dice.uniform(*RUNS_SECONDS))
            self.killed += process.poll() is None
            process.kill()
            process.wait()


def differences(copied: Counter[EventKey], recorded: Iterable[EventKey]) -> tuple[str, ...]:
    """Return what distinguishes a copy from what orders has recorded, a line each."""
    expected = set(recorded)
    return (
        *(
            f"event {event} of order {order} lacks"
            for order, event in sorted(expected - copied.keys())
        ),
        *(
            f"event {event} of order {order} is unknown to orders"
            for order, event in sorted(copied.keys() - expected)
        ),
        *(
            f"event {event} of order {order} was copied {times} times"
            for (order, event), times in copied.items()
            if times > 1
        ),
    )
