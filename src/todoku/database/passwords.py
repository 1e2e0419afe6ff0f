"""Passwords of PostgreSQL that are in a file of their own, as container platforms mount them.

libpq's `passfile` has another form, and libpq ignores one that a group may read, as a mounted secret.
"""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from todoku.database.errors import DatabaseUnavailable

PASSWORD_FILE: Final = "password_file"
"""The parameter of an address that names the file."""

_in_url = re.compile(rf"([?&]){PASSWORD_FILE}=([^&#]*)(&?)")
_in_words = re.compile(rf"(?:\A|\s){PASSWORD_FILE}\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))")


def take_password_file(address: str) -> tuple[str, str | None]:
    """Return an address as libpq takes it, and the path of its password file, if it has one."""
    if "://" in address:
        if (found := _in_url.search(address)) is None:
            return address, None
        kept = found[1] if found[3] else ""
        return address[: found.start()] + kept + address[found.end() :], unquote(found[2])
    if (found := _in_words.search(address)) is None:
        return address, None
    path = re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2]
    return address[: found.start()] + address[found.end() :], path


def read_password(path: str) -> str:
    """Return the password in a file, without a newline at the end. Raises `DatabaseUnavailable`: the file may
    be replaced at this moment."""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DatabaseUnavailable(
            f"The password file {path} cannot be read: {reason}. Correct its path, or who may read it."
        ) from error
