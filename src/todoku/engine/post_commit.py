"""What happens after a commit, in order."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from todoku.broker.port import Delivery
from todoku.engine.due_rows import DueTimes
from todoku.engine.failpoints import Failpoint
from todoku.engine.messages import PendingCommand, PendingEffect
from todoku.engine.receipts import Publisher, ReceiptMessage, encode_receipt, receipt_subject
from todoku.engine.tables import OutboxRow
from todoku.events import Envelope


class PostCommitActions(msgspec.Struct):
    """What must happen after a commit, and only then.

    `ended` are the keys of the entities that have ended. `next_due` says when rows of agendas are due
    next, and `retry_at` when a dead letter is.
    """

    answers: list[tuple[PendingCommand, object]] = []
    published: list[OutboxRow] = []
    acks: list[Delivery] = []
    naks: list[tuple[Delivery, float]] = []
    terms: list[Delivery] = []
    receipts: dict[Publisher, list[str]] = {}
    effects: list[PendingEffect] = []
    ended: list[str] = []
    next_due: DueTimes = DueTimes()
    retry_at: datetime | None = None

    def add_receipt(self, envelope: Envelope, delivery: Delivery) -> None:
        """Add a receipt for the event's publisher."""
        publisher = envelope.source, delivery.owner
        ids = self.receipts.get(publisher)  # type: ignore[call-overload]  # Equal to a Publisher.
        if ids is None:
            ids = self.receipts[Publisher(*publisher)] = []
        ids.append(envelope.id)

    def add_missing_receipt(self, envelope: Envelope, delivery: Delivery) -> None:
        """Add a receipt for another process that has published the event again."""
        if envelope.id not in self.receipts.get(Publisher(envelope.source, delivery.owner), ()):
            self.add_receipt(envelope, delivery)

    def absorb(self, other: "PostCommitActions") -> None:
        """Append the actions of another transaction."""
        self.answers += other.answers
        self.published += other.published
        self.acks += other.acks
        self.naks += other.naks
        self.terms += other.terms
        self.effects += other.effects
        self.ended += other.ended
        for publisher, ids in other.receipts.items():
            self.receipts.setdefault(publisher, []).extend(ids)
        self.next_due = other.next_due
        self.retry_at = other.retry_at


class Publishes(Protocol):
    """The part of the relay that publishes what was committed."""

    def offer(self, rows: Sequence[OutboxRow]) -> None: ...
    def enqueue(self, position: int) -> None: ...


class Acknowledges(Protocol):
    """The part of the consumer that acknowledges messages."""

    def acknowledge(self, actions: PostCommitActions) -> None: ...


class StartsEffects(Protocol):
    """The part of the effects that starts them."""

    def start(self, effect: PendingEffect) -> None: ...


def run_post_commit(
    actions: PostCommitActions,
    position: int,
    *,
    service: str,
    relay: Publishes,
    consumer: Acknowledges,
    effects: StartsEffects,
    notify: Callable[[str, bytes], None],
    failpoint: Failpoint,
) -> None:
    """Run the actions of a committed batch. A crash between any two of them loses nothing: what was
    not published is in the outbox, what was not acknowledged is redelivered, what was not confirmed is
    resent, and an effect whose result is missing falls due again.

    1. Callers get their answers.
    2. The relay publishes the new events, and whatever the outbox holds up to `position`, because a
       commit whose result was unknown may have added more.
    3. The stream's messages are acknowledged, nacked or terminated.
    4. The publishers of handled events get receipts.
    5. Effects start.
    """
    for pending, result in actions.answers:
        pending.answer(result)
    relay.offer(actions.published)
    relay.enqueue(position)
    consumer.acknowledge(actions)
    for publisher, ids in actions.receipts.items():
        failpoint("before-receipt")
        receipt = ReceiptMessage(service, tuple(ids))
        notify(receipt_subject(publisher, service), encode_receipt(receipt))
        failpoint("after-receipt")
    for effect in actions.effects:
        effects.start(effect)
