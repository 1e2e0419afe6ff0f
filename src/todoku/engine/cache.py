"""A cache of the states that the last transactions have saved."""

from collections.abc import Collection, Hashable, Mapping
from typing import Any


class StateCache:
    """Keeps the `kept_max` most recently used states of each kind.

    The cache is valid as long as no other process has written and the result of each own transaction
    is known. Call `validate` before each transaction with a number that changes when another process
    has committed, or None where that is unknown.
    """

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._kept: dict[str, dict[Any, Any]] = {}
        self._version: int | None = None
        self.hits = 0
        self.misses = 0

    def validate(self, version: int | None) -> None:
        """Clear the cache unless `version` (SQLite `data_version`) is unchanged."""
        if version is None or version != self._version:
            self.clear()
        self._version = version

    def clear(self) -> None:
        """Remove everything, for instance after a commit whose result is unknown."""
        self._kept.clear()
        self._version = None

    def get(self, kind: str, keys: Collection[Hashable]) -> dict[Any, Any]:
        """Return the cached states of these keys."""
        kept = self._kept.get(kind) or {}
        found = {key: kept[key] for key in keys if key in kept}
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

    @property
    def size(self) -> int:
        """Return how many states are kept."""
        return sum(map(len, self._kept.values()))

    def put(self, kind: str, states: Mapping[Any, Any]) -> None:
        """Add committed states, and evict the least recently used ones."""
        if self._version is None:
            return
        kept = self._kept.setdefault(kind, {})
        for key in kept.keys() & states.keys():
            del kept[key]
        kept.update(states)
        while len(kept) > self._kept_max:
            del kept[next(iter(kept))]
