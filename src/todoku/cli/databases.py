"""Find the file of a service's database, and the process that uses it."""

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from todoku.local.holders import holder


def file_of(where: str | Path) -> Path | None:
    """Return the file of a SQLite database, or None for another database. `where` is as in the settings."""
    if isinstance(where, Path) or "://" not in where:
        return Path(where).resolve()
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        return None  # Opening it raises an error that explains the problem.
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database).resolve()


def user_of(where: str | Path) -> str | None:
    """Return the process that has a SQLite database open for writing, or None if unknown."""
    file = file_of(where)
    return None if file is None else holder(file.with_name(f"{file.name}.lock"))
