"""Count refused requests of callers who are unknown: in bounded memory, however many there are."""

from typing import Final

from todoku.engine.audit_log.entries import REFUSED, AuditEntry

SOURCES_MAX: Final = 1_000
"""How many sources are told apart in one minute; the others are counted together."""


class RefusalCounts:
    """How many requests of each source were refused since the counts were taken last, by their outcome."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str | None, str], int] = {}

    def add(self, source: str | None, outcome: str, times: int = 1) -> None:
        """Count a refused request."""
        key = source, outcome
        if key not in self._counts and len(self._counts) >= SOURCES_MAX:
            key = None, outcome
        self._counts[key] = self._counts.get(key, 0) + times

    def take(self) -> list[AuditEntry]:
        """Return what was counted, and begin anew."""
        counts, self._counts = self._counts, {}
        return [
            AuditEntry(operation=REFUSED, outcome=outcome, source=source, times=times)
            for (source, outcome), times in counts.items()
        ]
