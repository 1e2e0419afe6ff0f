"""Captures the output of a process, line by line."""

import threading
from collections.abc import Iterable

SECONDS_MAX = 60.0


class CapturedOutput:
    """The lines of a stream, collected by a thread as they arrive."""

    def __init__(self, stream: Iterable[str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._collect, args=(stream,), daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether no process has the stream open for writing any more."""
        return self._ended

    def count(self, text: str) -> int:
        """Return how many lines contain `text`."""
        return sum(text in line for line in list(self.lines))

    def until(self, text: str, seconds_max: float = SECONDS_MAX, *, times: int = 1) -> None:
        """Wait until that many lines contain `text`. Raises `TimeoutError`."""
        with self._changed:
            self._changed.wait_for(lambda: self.count(text) >= times or self._ended, seconds_max)
        if self.count(text) < times:
            raise TimeoutError(f"{text!r} was not printed {times} times: {self.lines}")

    def until_end(self, seconds_max: float = SECONDS_MAX) -> None:
        """Wait until no process has the stream open for writing. Raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended, seconds_max):
                raise TimeoutError(f"a process still has the stream open: {self.lines}")

    def _collect(self, stream: Iterable[str]) -> None:
        for line in stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
