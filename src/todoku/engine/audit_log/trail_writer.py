"""Write the audit log beside the batches: its beginning, rows of requests without a batch, its anchors."""

from collections.abc import Sequence
from datetime import datetime

from todoku.engine.audit_log.entries import AuditEntry, Head
from todoku.engine.audit_log.trail import Trail
from todoku.engine.transactions import Transactions
from todoku.events import AuditAnchoredEvent


class TrailWriter:
    """Writes to the chain of this process, each time in a transaction of its own. `anchor_event` makes the
    event that publishes its head; without one, nothing is published."""

    def __init__(
        self,
        transactions: Transactions,
        trail: Trail,
        *,
        service: str,
        anchor_event: type[AuditAnchoredEvent] | None,
    ) -> None:
        self._transactions = transactions
        self._trail = trail
        self._service = service
        self._anchor_event = anchor_event
        self._anchored: Head | None = None

    def begin_trail(self, now: datetime) -> None:
        """Begin the chain that this process writes to the audit log."""
        with self._transactions.open() as connection:
            self._trail.begin(connection, now)

    def add_to_trail(self, entries: Sequence[AuditEntry], now: datetime) -> None:
        """Add rows to the audit log."""
        with self._transactions.open() as connection:
            self._trail.add(connection, entries, now)

    def anchor_trail(self, now: datetime) -> bool:
        """Publish the head of the chain, if there are rows behind the last one that was published."""
        self._trail.forget_names()
        head = self._trail.head
        if head is None or self._anchor_event is None or head == self._anchored:
            return False
        event = self._anchor_event(
            service=self._service,
            chain=head.chain,
            sequence=head.sequence,
            hash=head.hash.hex(),
        )
        self._transactions.publish(event, now)
        self._anchored = head
        return True
