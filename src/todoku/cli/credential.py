"""Find the credential that commands send: an environment variable, or a file; or that of a caller for whom
this program acts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.settings.loading import KEY_FILE_VARIABLE, KEY_VARIABLE

OWN = object()
_acting_for: ContextVar[object] = ContextVar("acting_for", default=OWN)


@contextmanager
def acting_for(key: str | None) -> Iterator[None]:
    """Send this credential, or none, instead of the user's own: in this task, or thread."""
    token = _acting_for.set(key)
    try:
        yield
    finally:
        _acting_for.reset(token)


def credential() -> str | None:
    """Return the credential to send, None if there is none: the caller's for whom this program acts, else the
    user's own. Raises `CommandFailed`."""
    acting = _acting_for.get()
    if acting is not OWN:
        return None if acting is None else _checked(str(acting), "the header Authorization")
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
