"""The queue of a product: which orders wait for it, and how far the queue was walked.

An order waits in the queues of all its products, everywhere at the same place: that of its time, then of its
id. A queue is walked when something has changed that may let an order in it be served. The walk goes from
the first place to the last, and stops at the first order that the product's stock cannot serve.
"""

from datetime import datetime

import msgspec

Place = tuple[datetime, str]
"""Where an order waits: since when (UTC), and its id."""


class Queue(msgspec.Struct, frozen=True, omit_defaults=True):
    """The orders that wait for a product want `pieces` of it.

    A walk is due since `due_at` (UTC), and has come to `walked_to`; `again` says that it has to begin anew
    when it has ended. Without one, `stopped_at` is the first order that the stock of the product cannot
    serve; None if only other products are missing.
    """

    pieces: int = 0
    stopped_at: Place | None = None
    due_at: datetime | None = None
    walked_to: Place | None = None
    again: bool = False

    @property
    def flows(self) -> bool:
        """Return whether nobody waits for this very product: a new order may take of it."""
        return self.due_at is None and self.stopped_at is None

    def admits(self, place: Place) -> bool:
        """Return whether an order at this place may take of the product: nobody before it waits for it."""
        if self.due_at is not None:
            return self.walked_to is not None and place <= self.walked_to
        return self.stopped_at is None or place <= self.stopped_at

    def woken(self, now: datetime) -> "Queue":
        """Return the queue with a walk that is due."""
        if self.due_at is not None:
            return msgspec.structs.replace(self, again=True)
        return Queue(pieces=self.pieces, due_at=now)

    def joined(self, pieces: int, place: Place, *, short: bool) -> "Queue":
        """Return the queue with one more order; `short` says that the product's stock cannot serve it."""
        stop = self.stopped_at
        if short and self.due_at is None and (stop is None or place < stop):
            stop = place
        return msgspec.structs.replace(
            self,
            pieces=self.pieces + pieces,
            stopped_at=stop,
            # A walk may be beyond this place already.
            again=self.again or self.due_at is not None,
        )

    def without(self, pieces: int) -> "Queue | None":
        """Return the queue with fewer pieces; None if nobody waits any more. While a walk is due, it remains:
        the walk alone ends itself."""
        left = self.pieces - pieces
        assert left >= 0, self
        if not left and self.due_at is None:
            return None
        return msgspec.structs.replace(self, pieces=left)

    def walked(self, place: Place | None) -> "Queue":
        """Return the queue whose walk goes on behind this place."""
        return msgspec.structs.replace(self, walked_to=place)

    def ended(self, stop: Place | None, now: datetime) -> "Queue | None":
        """Return the queue after a walk that has stopped at this place, or has come to the end; None if
        nobody waits any more."""
        if not self.pieces:
            return None
        if self.again:
            return Queue(pieces=self.pieces, due_at=now)
        return Queue(pieces=self.pieces, stopped_at=stop)
