"""How the engine reports what it does, so that it can be traced.

The engine makes no spans. With a `Tracer` it reports each batch, each effect and each publish, and passes
on the context that it gets; without one it checks an attribute, and does nothing else.
"""

from collections.abc import Sequence
from typing import Protocol

from todoku.engine.tables import OutboxRow
from todoku.events import Context, Envelope


class BatchSpans(Protocol):
    """The spans of one transaction. Those of one that is rolled back are dropped."""

    def command(self, context: Context) -> None:
        """Note that a command in this context is executed: what follows from it has this context."""

    def event(self, envelope: Envelope, subject: str, attempt: int = 1) -> Context:
        """Begin to decide on an event; return the context of what follows from it."""

    def due(self, agenda: str, key: str, context: Context) -> Context:
        """Begin to decide on a due row; return the context of what follows from it."""

    def failed(self, error: Exception) -> None:
        """Note that the decision that was begun last has failed."""

    def before_commit(self) -> None:
        """Store the spans so that they outlive the process: after the commit, events refer to them."""

    def committed(self, messages: int) -> None:
        """Note that the transaction, with so many messages of the stream, is committed."""


class EffectSpan(Protocol):
    """The span of one effect; its result has the `context`."""

    @property
    def context(self) -> Context:
        """Return the context of the result."""

    def end(self, error: Exception | str | None) -> None:
        """End the span; `error` is why the effect has failed, if it has."""


class Tracer(Protocol):
    """Makes the spans of one process. Its methods never raise, and never wait for another system."""

    def batch(self) -> BatchSpans:
        """Begin the spans of a transaction."""

    def effect(self, effect: object, context: Context) -> EffectSpan:
        """Begin the span of an effect, in the task that runs it."""

    def published(self, rows: Sequence[OutboxRow], seconds: float) -> None:
        """Note that the stream has stored these events, which took so long."""
