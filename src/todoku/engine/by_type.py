"""Find what belongs to the type of an object, once for each type."""

from typing import TypeVar

T = TypeVar("T")


class ByType(dict[type, T]):
    """Values by class: `values[type(x)]` is that of the class of `x`, or else of its nearest base.

    Each class is looked for among its bases once. `isinstance` does that every time, and for structs of
    msgspec it takes ten times as long as for other objects. Give `object` a value for all other types.
    """

    def __missing__(self, kind: type) -> T:
        nearest = next(base for base in kind.__mro__ if base in self)
        value = self[kind] = self[nearest]
        return value
