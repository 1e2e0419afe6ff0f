"""Signals that stop a long-running command."""

import asyncio
import os
import signal
from collections.abc import Callable

from todoku.cli.exit_codes import ExitCode

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_stop_signals() -> None:
    """Handle every stop signal like Ctrl-C, so that the process cleans up."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # Set by `nohup`.
            signal.signal(number, signal.default_int_handler)


def end_at_interrupt() -> None:
    """End the process at once at Ctrl-C, also while a thread waits for input: nothing can wake that."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))


def on_stop_signals(stop: asyncio.Event, *, again: Callable[[], None]) -> None:
    """Set `stop` at the first stop signal, and call `again` at every later one.

    Call it in the running event loop.
    """

    def signalled() -> None:
        if stop.is_set():
            again()
        stop.set()

    for number in STOP_SIGNALS:
        # `nohup` ignores SIGHUP, and the program must continue to.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, signalled)
