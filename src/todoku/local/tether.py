"""Ties a program's life to that of the process which starts it: when that one dies, so does this.

Run as a script, by an interpreter that loads nothing else:

    python -I -S tether.py PARENT_PID PROGRAM [ARGUMENT...]

On Linux the kernel is asked to kill this process when its parent dies, and then the program takes
its place. Elsewhere this process stays, runs the program as its child, and kills it when its own
standard input, a pipe that only the parent holds, comes to its end; there, a `kill -9` of just this
process leaves the program running.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIFELINE = 0
"""The descriptor that the parent holds the other end of: standard input."""


def become(program: list[str], *, parent: int) -> None:
    """Turn into the program, to be killed by the kernel when `parent` dies.

    The kernel goes by the thread that forked, not by the process: the parent must fork in a thread
    that lives as long as it does. The request survives `exec`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        # The parent died before the request was made: nobody would ever kill the program.
        sys.exit(1)
    os.execv(program[0], program)


def watch_over(program: list[str]) -> int:
    """Run the program until it ends or the lifeline does; return what `Popen.returncode` says."""
    # Whoever stops the program signals the whole process group: this process waits for it to end.
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
    """Run as the command line says."""
    parent, *program = sys.argv[1:]
    if sys.platform == "linux":
        become(program, parent=int(parent))
    returncode = watch_over(program)
    if returncode < 0:
        # Ended by a signal: end by the same one, so that the parent sees what happened.
        signal.signal(-returncode, signal.SIG_DFL)
        os.kill(os.getpid(), -returncode)
    sys.exit(returncode)


if __name__ == "__main__":
    main()
