"""Check the answer of a carrier where it enters: whatever a plug-in returns or raises becomes an `Answer`.

An answer that does not fit is `Unknown`, with the reason, so that the call is repeated and visible. Texts
are cut to a bound, and what a database cannot store in them is replaced.
"""

from typing import Final

from todoku.redaction import redact
from todoku.shipping.domain import Accepted, Answer, Rejected, Unknown

TRACKING_NUMBER_CHARACTERS_MAX: Final = 200
REASON_CHARACTERS_MAX: Final = 500


def checked_answer(answer: object) -> Answer:
    """Return what a carrier answered, as far as it fits; else `Unknown` with the reason."""
    try:
        return _checked(answer)
    except Exception as error:
        return Unknown(f"the answer cannot be read: {described(error)}")


def unknown_after(error: BaseException) -> Unknown:
    """Return the answer of a carrier that raised this."""
    return Unknown(described(error))


def _checked(answer: object) -> Answer:
    match answer:
        case Accepted(tracking_number):
            if not _is_text(tracking_number):
                return _unfit("Accepted", "tracking number", tracking_number)
            return Accepted(storable(tracking_number, TRACKING_NUMBER_CHARACTERS_MAX))
        case Rejected(reason):
            if not _is_text(reason):
                return _unfit("Rejected", "reason", reason)
            return Rejected(storable(reason, REASON_CHARACTERS_MAX))
        case Unknown(reason):
            if not _is_text(reason):
                return _unfit("Unknown", "reason", reason)
            return Unknown(_without_secrets(reason))
        case _:
            kind = storable(type(answer).__name__, REASON_CHARACTERS_MAX)
            return Unknown(
                f"the carrier returned an object of type {kind}; expected Accepted, Rejected or Unknown"
            )


def _without_secrets(reason: str) -> str:
    """Return a reason that may quote what an HTTP client raised; it is shown with the order."""
    return storable(redact(storable(reason, REASON_CHARACTERS_MAX)), REASON_CHARACTERS_MAX)


def _is_text(value: object) -> bool:
    """A text of blanks is no information: neither a tracking number nor a reason."""
    return isinstance(value, str) and bool(str.strip(value))


def _unfit(answer: str, what: str, value: object) -> Unknown:
    found = "an empty text" if isinstance(value, str) else f"of type {type(value).__name__}"
    text = f"the carrier returned {answer} whose {what} is {found}; expected a text"
    return Unknown(storable(text, REASON_CHARACTERS_MAX))


def described(error: BaseException) -> str:
    """Return an exception as text that begins with its class."""
    name = storable(type(error).__name__, REASON_CHARACTERS_MAX)
    try:
        message = redact(storable(str(error), REASON_CHARACTERS_MAX - len(name)))
    except Exception:
        message = "(no message: str() of it raises)"
    return storable(f"{name}: {message}".removesuffix(": "), REASON_CHARACTERS_MAX)


def storable(text: str, characters_max: int) -> str:
    """Return the text cut to its first characters, without what a database or UTF-8 cannot hold."""
    plain = str.__str__(text)  # A subclass of str may do anything.
    cut = plain if len(plain) <= characters_max else f"{plain[: characters_max - 1]}…"
    return cut.replace("\0", "␀").encode(errors="replace").decode()
