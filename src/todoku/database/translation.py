"""Where the errors of drivers become the errors of this package."""

from collections.abc import Callable
from typing import NoReturn
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext

from todoku.database.errors import ConstraintViolated, DatabaseError

Translate = Callable[[BaseException], DatabaseError | None]

_translations: WeakKeyDictionary[Dialect, Translate] = WeakKeyDictionary()


def translate_errors(engine: Engine, translate: Translate) -> None:
    """Raise what `translate` makes of a driver's error, with that error as its cause.

    What it makes None of is raised as it is. Statements and parameters stay out of the messages:
    parameters may be personal data.
    """

    _translations[engine.dialect] = translate

    @event.listens_for(engine, "handle_error")
    def handle(context: ExceptionContext) -> DatabaseError | None:
        error = context.original_exception
        return _value_fault(error) or translate(error)


def raise_translated(dialect: Dialect, error: Exception) -> NoReturn:
    """Raise what an error of the driver means, where SQLAlchemy does not see it."""
    meaning = _value_fault(error) or _translations[dialect](error)
    if meaning is None:
        raise error
    raise meaning from error


def _value_fault(error: BaseException) -> ConstraintViolated | None:
    """Python's own refusals of a value on its way into a statement: too large an integer, half a
    surrogate pair, a time without a zone."""
    if isinstance(error, (OverflowError, ValueError)):
        return ConstraintViolated(f"A value does not fit its column: {error}")
    return None
