"""Find the file of a service's database, and the process that uses it."""

from pathlib import Path

from todoku.database import file_of
from todoku.local.holders import holder

__all__ = ["file_of", "user_of"]


def user_of(where: str | Path) -> str | None:
    """Return the process that has a SQLite database open for writing, or None if unknown."""
    file = file_of(where)
    return None if file is None else holder(file.with_name(f"{file.name}.lock"))
