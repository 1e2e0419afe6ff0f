"""Translate the errors of drivers into the errors of this package."""

from collections.abc import Callable
from typing import NoReturn
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext

from todoku.database.errors import ConstraintViolated, DatabaseError

Translate = Callable[[BaseException], DatabaseError | None]

_translations: WeakKeyDictionary[Dialect, Translate] = WeakKeyDictionary()


def translate_errors(
    engine: Engine,
    translate: Translate,
    *,
    ends_connection: Callable[[BaseException], bool] = lambda _: False,
) -> None:
    """Raise what `translate` returns for a driver's error, with that error as its cause.

    Where it returns None the error is raised unchanged. Statements and parameters stay out of the
    messages: parameters may be personal data. A connection is closed after an error for which
    `ends_connection` is true.
    """

    _translations[engine.dialect] = translate

    @event.listens_for(engine, "handle_error")
    def handle(context: ExceptionContext) -> DatabaseError | None:
        error = context.original_exception
        if ends_connection(error):
            context.is_disconnect = True
        return _value_fault(error) or translate(error)


def raise_translated(dialect: Dialect, error: Exception) -> NoReturn:
    """Raise the translation of a driver's error that SQLAlchemy does not see."""
    meaning = _value_fault(error) or _translations[dialect](error)
    if meaning is None:
        raise error
    raise meaning from error


def _value_fault(error: BaseException) -> ConstraintViolated | None:
    """Translate Python's refusal of a parameter: too large an integer, half a surrogate pair, a time
    without a zone."""
    if isinstance(error, (OverflowError, ValueError)):
        return ConstraintViolated(f"A value does not fit its column: {error}")
    return None
