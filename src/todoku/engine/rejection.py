"""What a database rejects, and what the engine treats likewise."""

from collections.abc import Iterator
from contextlib import contextmanager

from todoku.database import ConstraintViolated, DatabaseError
from todoku.engine.dead_letters import describe


@contextmanager
def rejecting_values() -> Iterator[None]:
    """Treat any error that is not the database's as a value that cannot be saved: it is the fault of
    one message, and must not end the process."""
    try:
        yield
    except DatabaseError:
        raise
    except Exception as error:
        raise ConstraintViolated(f"A value cannot be saved: {describe(error)}") from error
