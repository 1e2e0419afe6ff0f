"""Numbers values, and makes sets of numbers: states of an exploration are made of them."""

from collections.abc import Hashable, Iterator
from typing import Any


class Table:
    """Values with numbers, so that states are small and quick to compare."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self.values)

    def number(self, value: Hashable) -> int:
        """Return the number of a value."""
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


def bits_of(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def replaced(rows: tuple[int, ...], n: int, number: int) -> tuple[int, ...]:
    """Return the numbers with another one at a place."""
    return (*rows[:n], number, *rows[n + 1 :])
