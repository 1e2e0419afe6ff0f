"""Work that goes on in a thread beside the load and the faults."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a thread while this context lasts. It ends soon after the event that it gets is set;
    what it raises is raised at the end of the context."""
    stopping = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix=work.__qualname__) as pool:
        working = pool.submit(work, stopping)
        try:
            yield
        finally:
            stopping.set()
        working.result()
