"""Call the `todoku` program as a script or a person does."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from todoku.cli.exit_codes import ExitCode

BOUND_SECONDS = 60.0


class CommandResult(msgspec.Struct, frozen=True):
    """The output and exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> Any:
        """Stdout as one JSON value."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Stdout as one JSON value per line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Caller(msgspec.Struct, frozen=True):
    """Calls `todoku` in a folder, with an environment of its own."""

    folder: Path
    environment: Mapping[str, str] = {}

    def __call__(self, *words: str, stdin: str = "", **variables: str) -> CommandResult:
        """Run a command as a script does: with pipes."""
        ended = subprocess.run(
            self._argv(words),
            cwd=self.folder,
            env=self._variables(variables),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=BOUND_SECONDS,
            check=False,
        )
        return CommandResult(ended.returncode, ended.stdout, ended.stderr)

    def ok(self, *words: str, stdin: str = "") -> CommandResult:
        """Run a command that must succeed."""
        result = self(*words, stdin=stdin)
        assert result.code == ExitCode.OK, result
        return result

    def unread(self, *words: str) -> CommandResult:
        """Run a command whose stdout is a closed pipe."""
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as out:
            ended = subprocess.run(
                self._argv(words),
                cwd=self.folder,
                env=self._variables({}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                timeout=BOUND_SECONDS,
                check=False,
            )
        return CommandResult(ended.returncode, "", ended.stderr)

    def at_terminal(self, *words: str, **variables: str) -> CommandResult:
        """Run a command on a terminal; all output is in `out`."""
        with self.started(*words, terminal=True, **variables) as (process, output):
            written = b"".join(_read(output))
            return CommandResult(process.wait(BOUND_SECONDS), written.decode(), "")

    @contextmanager
    def started(
        self, *words: str, terminal: bool = False, **variables: str
    ) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
        """Start a command; yield it with a descriptor for reading all its output."""
        output, theirs = pty.openpty() if terminal else os.pipe()
        process = subprocess.Popen(
            self._argv(words),
            cwd=self.folder,
            env=self._variables({"TERM": "xterm", **variables}),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        try:
            yield process, output
        finally:
            process.kill()
            process.wait(BOUND_SECONDS)
            os.close(output)

    def _argv(self, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "todoku", *words]

    def _variables(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return a minimal environment."""
        names = ("PATH", "HOME", "LANG", "XDG_CONFIG_HOME")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return {**kept, "TZ": "Asia/Tokyo", **self.environment, **variables}


def _read(output: int) -> Iterator[bytes]:
    """Yield all data from a descriptor until it is closed."""
    while True:
        try:
            part = os.read(output, 65_536)
        except OSError:  # raised by a terminal whose other end is closed
            return
        if not part:
            return
        yield part
