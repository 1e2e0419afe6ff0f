"""How a long-running command is asked to stop."""

import asyncio
import signal
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_stop_signals() -> None:
    """Let whatever asks this process to stop do what Ctrl-C does, so that all is tidied up."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # As `nohup` does, and means it.
            signal.signal(number, signal.default_int_handler)


def on_stop_signals(stop: asyncio.Event, *, again: Callable[[], None]) -> None:
    """Set `stop` at the first signal to this process that asks it to stop, and call `again` at others.

    To be called from the running event loop.
    """

    def asked() -> None:
        if stop.is_set():
            again()
        stop.set()

    for number in STOP_SIGNALS:
        # `nohup` ignores the end of the terminal, and means it.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, asked)
