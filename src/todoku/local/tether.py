"""Ends a program when the process that started it ends.

Run as a script, by an interpreter that loads nothing else:

    python -I -S tether.py PARENT_PID PROGRAM [ARGUMENT...]

On Linux the kernel kills this process when its parent dies, and the program replaces it by `exec`.
Elsewhere this process runs the program as its child, and kills it at the end of its own standard
input, a pipe that only the parent holds; there, a `kill -9` of this process alone leaves the program
running.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIFELINE = 0
"""The descriptor whose other end the parent holds: standard input."""


def become(program: list[str], *, parent: int) -> None:
    """Replace this process by the program, which the kernel kills when `parent` dies.

    What counts is the thread that forked, not the process: the parent must fork in a thread that
    lives as long as it does. The setting survives `exec`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        # The parent died before `prctl`: the kernel would never kill the program.
        sys.exit(1)
    os.execv(program[0], program)


def watch_over(program: list[str]) -> int:
    """Run the program until it or the lifeline ends; return its `Popen.returncode`."""
    # A signal to stop goes to the whole process group: this process waits for the program to end.
    # A handler, unlike SIG_IGN, is not inherited by the program.
    signal.signal(signal.SIGTERM, lambda *_: None)
    child = subprocess.Popen(program, stdin=subprocess.DEVNULL)
    threading.Thread(target=_kill_at_end_of_lifeline, args=(child,), daemon=True).start()
    return child.wait()


def _kill_at_end_of_lifeline(child: "subprocess.Popen[bytes]") -> None:
    while os.read(LIFELINE, 1):
        pass
    child.kill()


def main() -> None:
    """Run the command line."""
    parent, *program = sys.argv[1:]
    if sys.platform == "linux":
        become(program, parent=int(parent))
    returncode = watch_over(program)
    if returncode < 0:
        # Ended by a signal: end by the same one, so that the parent sees it.
        signal.signal(-returncode, signal.SIG_DFL)
        os.kill(os.getpid(), -returncode)
    sys.exit(returncode)


if __name__ == "__main__":
    main()
