"""The command that erases a person, and its results."""

from collections.abc import Sequence

import msgspec


class PersonError(Exception):
    """A command about a person cannot be executed."""


class UnknownPerson(PersonError):
    """Nothing is stored about this person."""


class PersonHasOpenWork(PersonError):
    """The person has orders or dead letters that are open, or API keys that are valid."""

    def __init__(
        self,
        text: str,
        orders: Sequence[str] = (),
        letters: Sequence[str] = (),
        keys: Sequence[str] = (),
    ) -> None:
        super().__init__(text)
        self.keys = tuple(keys)
        self.orders = tuple(orders)
        self.letters = tuple(letters)


class ErasePerson(msgspec.Struct, frozen=True, kw_only=True):
    """Erase everything about a person, at every service. The ids of its erasures begin with `id`."""

    id: str
    person: str
    by: str | None = None


class ErasedPerson(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased: the ids of the erasures, by which the other services know them."""

    erasures: tuple[str, ...]
    orders: int
