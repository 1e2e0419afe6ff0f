"""Do something again and again beside a block."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(step: Callable[[], object], every_seconds: float) -> Iterator[None]:
    """Call `step` in a thread, with this pause before each call, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every_seconds):
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
