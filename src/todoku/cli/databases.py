"""Where a service's database is, and who has it."""

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from todoku.local.holders import holder


def file_of(where: str | Path) -> Path | None:
    """The file of a SQLite database; None for what is none. `where` is as in the settings."""
    if isinstance(where, Path) or "://" not in where:
        return Path(where).resolve()
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        return None  # Whoever opens it is told what is wrong with it.
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database).resolve()


def user_of(where: str | Path) -> str | None:
    """The process that has a SQLite database open for writing, where that can be seen."""
    file = file_of(where)
    return None if file is None else holder(file.with_name(f"{file.name}.lock"))
