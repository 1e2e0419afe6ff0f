"""A stack that does not start says how it ended."""

import io
from pathlib import Path
from typing import Any

import pytest

from todoku.lab.stack import Stack, StackFailed
from todoku.settings import Settings


class EndingProcess:
    """A process that has closed its output and has not ended yet: `wait` returns its exit code."""

    pid = 0
    stdin = io.StringIO()
    stdout = io.StringIO("the data folder is in use\n")
    _ended = False

    def poll(self) -> int | None:
        return 4 if self._ended else None

    def wait(self, timeout: float) -> int:
        self._ended = True
        return 4

    def kill(self) -> None:
        self._ended = True


def test_exit_code_is_known_though_the_output_ends_before_the_process(tmp_path: Path) -> None:
    process: Any = EndingProcess()
    stack = Stack(Settings(), tmp_path / "log", spawn=lambda *_, **__: process)
    with pytest.raises(StackFailed, match="in use") as failed, stack:
        stack.start()
    assert failed.value.exit_code == 4
