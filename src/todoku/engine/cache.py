"""What the last transactions left in the database, so that the next ones need not load it again."""

from collections.abc import Collection, Hashable, Mapping
from typing import Any

CACHED_LINES_MAX = 20
"""Orders with more lines are not remembered, so that memory stays small whatever is ordered."""


class StateCache:
    """Keeps up to `kept_max` of the states of each kind that were touched last.

    It is right as long as nobody else has written and the end of each of our own transactions is
    known. Whoever uses it says so by `validate`: before each transaction, with a number that changes when
    somebody else has committed, or None where nobody can tell.
    """

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._kept: dict[str, dict[Any, Any]] = {}
        self._version: int | None = None

    def validate(self, version: int | None) -> None:
        """Go on remembering if the database is as we left it; else forget everything."""
        if version is None or version != self._version:
            self.clear()
        self._version = version

    def clear(self) -> None:
        """Forget everything, for instance after a commit of which nobody knows the end."""
        self._kept.clear()
        self._version = None

    def get(self, kind: str, keys: Collection[Hashable]) -> dict[Any, Any]:
        """What is remembered of these, by key."""
        kept = self._kept.get(kind)
        if not kept:
            return {}
        return {key: kept[key] for key in keys if key in kept}

    def put(self, kind: str, states: Mapping[Any, Any]) -> None:
        """Remember these, which are committed, and forget what was not touched for longest."""
        if self._version is None:
            return
        kept = self._kept.setdefault(kind, {})
        for key, state in states.items():
            kept.pop(key, None)
            kept[key] = state
        while len(kept) > self._kept_max:
            del kept[next(iter(kept))]
