"""Find the credential that commands send: an environment variable, or a file."""

import os
from pathlib import Path

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.settings.loading import KEY_FILE_VARIABLE, KEY_VARIABLE


def credential() -> str | None:
    """Return the credential of the user, None if there is none. Raises `CommandFailed`."""
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return _checked(key, KEY_VARIABLE)
    named = os.environ.get(KEY_FILE_VARIABLE)
    if not named:
        return None
    path = Path(named)
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(f"the key in {path} cannot be read: {error}.") from error
    return _checked(key, str(path))


def _checked(key: str, source: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise _unusable(f"{source} has no credential: it is empty, or not one line of ASCII.")
    return key


def _unusable(problem: str) -> CommandFailed:
    return CommandFailed(problem, exit_code=ExitCode.USAGE)
