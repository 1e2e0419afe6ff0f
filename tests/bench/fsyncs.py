"""Counts the fsyncs of programs without root and without another program.

On Linux a program can inspect the system calls of its own threads, and of the processes that they
start, before they are executed (seccomp_unotify(2)). This module inspects `fsync` and `fdatasync`,
counts them by file and lets them pass; no other system call is slowed down.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import ParamSpec, TypeVar

import msgspec

P = ParamSpec("P")
R = TypeVar("R")


class _Numbers(msgspec.Struct, frozen=True):
    """The numbers of these system calls on one architecture (asm/unistd.h)."""

    seccomp: int
    fsync: int
    fdatasync: int


NUMBERS = {
    "x86_64": _Numbers(seccomp=317, fsync=74, fdatasync=75),
    "aarch64": _Numbers(seccomp=277, fsync=82, fdatasync=83),
}

PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
SECCOMP_SET_MODE_FILTER = 1  # linux/seccomp.h
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101

NOTIFICATION = struct.Struct("=QIIiIQ6Q")
"""id, thread, flags; system call, architecture, instruction, six arguments."""

ANSWER = struct.Struct("=QqiI")
"""id, value, error, flags."""

LAST_WORD_SECONDS_MAX = 5.0
"""How long to wait for the end of processes that should have ended."""

LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h


class CannotCount(Exception):
    """The system calls cannot be inspected here. The message says why."""


class FsyncCounter:
    """Runs functions and counts their fsyncs, and those of the processes that they start.

    All run in one thread, which lives as long as the counter. `counts` is by the path of a file.
    """

    def __init__(self, thread: ThreadPoolExecutor, counts: "Counter[str]") -> None:
        self.counts = counts
        self._thread = thread

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function; return or raise what it does."""
        return self._thread.submit(function, *args, **kwargs).result()


@contextmanager
def counting_fsyncs() -> Iterator[FsyncCounter]:
    """Count until the end of the block; the processes must have ended by then. Raises `CannotCount`."""
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(1, thread_name_prefix="counted") as thread:
        listener = thread.submit(_listen_to_this_thread).result()
        watching = threading.Thread(target=_watch, args=(listener, counts), daemon=True)
        watching.start()
        yield FsyncCounter(thread, counts)
    watching.join(LAST_WORD_SECONDS_MAX)


def _listen_to_this_thread() -> int:
    """Make the fsyncs of this thread and of all that it starts wait for a reply.

    Returns the descriptor that notifies of them.
    """
    numbers = NUMBERS.get(platform.machine())
    if sys.platform != "linux" or numbers is None:
        raise CannotCount("fsyncs can be counted on Linux only, on x86-64 and ARM64")
    libc = ctypes.CDLL(None, use_errno=True)
    program = _filter(numbers)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        flags = SECCOMP_FILTER_FLAG_NEW_LISTENER
        listener: int = libc.syscall(
            numbers.seccomp, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program)
        )
        if listener >= 0:
            return listener
    reason = os.strerror(ctypes.get_errno())
    raise CannotCount(f"fsyncs cannot be counted, the kernel does not allow it: {reason}")


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_if", ctypes.c_uint8),
        ("jump_else", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _filter(numbers: _Numbers) -> _Program:
    instructions = (
        (LOAD_NUMBER, 0, 0, 0),
        (JUMP_IF_EQUAL, 1, 0, numbers.fsync),
        (JUMP_IF_EQUAL, 0, 1, numbers.fdatasync),
        (RETURN, 0, 0, SECCOMP_RET_USER_NOTIF),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    )
    length = len(instructions)
    return _Program(
        length, (_Instruction * length)(*(_Instruction(*each) for each in instructions))
    )


def _watch(listener: int, counts: "Counter[str]") -> None:
    """Count and pass each sync, until no process is left that could make one."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while not poll.poll()[0][1] & select.POLLHUP:
            try:
                counts[_let_pass(listener)] += 1
            except OSError as error:
                if error.errno != errno.ENOENT:  # The process was killed meanwhile.
                    raise
    finally:
        os.close(listener)


def _let_pass(listener: int) -> str:
    """Let the next sync pass; return the path of its file."""
    received = bytearray(NOTIFICATION.size)
    fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, received)
    notification, thread, *_, descriptor = NOTIFICATION.unpack(received)[:7]
    path = ""
    with suppress(OSError):
        path = os.readlink(f"/proc/{thread}/fd/{descriptor}")
    answer = ANSWER.pack(notification, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)
    fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer)
    return path
