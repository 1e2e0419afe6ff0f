"""Get the correction of a dead letter, from an editor or from a file."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.formatting import printable
from todoku.cli.responses import DeadLetterDetails

STDIN = "-"


def edited(letter: DeadLetterDetails) -> bytes:
    """Return the event's data after the user has edited it. Raises `CommandFailed`."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise CommandFailed(
            "give the correction with --file, or set EDITOR.", exit_code=ExitCode.USAGE
        )
    before = msgspec.json.format(_data(letter)) + b"\n"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{letter.id}.json"
        file.write_bytes(before)
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            after = file.read_bytes()
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise CommandFailed(f"{editor} failed: {error}. Nothing was changed.") from error
    if after == before:
        raise CommandFailed("the data was not edited, so nothing was changed.")
    return after


def _data(letter: DeadLetterDetails) -> bytes:
    """Return the data of the message, or an empty object."""
    message = msgspec.json.decode(letter.body)
    return msgspec.json.encode(message.get("data", {}) if isinstance(message, dict) else {})


def read_correction(file: str) -> bytes:
    """Return the content of a file, or of stdin. Raises `CommandFailed`."""
    try:
        return sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"cannot read {printable(file)}: {error.strerror}.", exit_code=ExitCode.USAGE
        ) from error
