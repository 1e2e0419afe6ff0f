"""What one transaction decides: commands, events and what is due, and what is to be done after it."""

import traceback
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog

from todoku.broker.port import Delivery
from todoku.contracts import Envelope, Event, ParkingEvent, seal
from todoku.database import ConstraintViolated
from todoku.engine.dead_letters import Attempt, DeadLetter, describe, letter_id, parked, shape
from todoku.engine.messages import Due, IncomingEvent, Message, PendingCommand, UndecodableMessage
from todoku.engine.service import Decide, Service, UnitOfWork
from todoku.engine.tables import OutboxRow

log = structlog.get_logger(__name__)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often a message that fails is tried before it is parked.

    A decision that raises may succeed once a neighbour's event or a new version has arrived;
    an unknown type waits for a rolling upgrade to pass.
    """

    failing_attempts_max: int = 5
    unknown_attempts_max: int = 12
    backoff_seconds_max: float = 60.0

    def delay_seconds(self, attempt: int) -> float:
        """The pause after the `attempt`-th delivery."""
        return min(2.0 ** min(attempt - 1, 32), self.backoff_seconds_max)


class PostCommitActions(msgspec.Struct):
    """What is to be done after a commit, and only then."""

    answers: list[tuple[PendingCommand, Any]] = []
    published: list[OutboxRow] = []
    acks: list[Delivery] = []
    naks: list[tuple[Delivery, float]] = []
    terms: list[Delivery] = []
    receipts: dict[str, list[str]] = {}
    effects: list[Any] = []
    next_due_at: datetime | None = None

    def receipt(self, envelope: Envelope) -> None:
        """Owe the event's publisher a receipt."""
        self.receipts.setdefault(envelope.source, []).append(envelope.id)

    def absorb(self, other: "PostCommitActions") -> None:
        """Do what the other asks for too."""
        self.answers += other.answers
        self.published += other.published
        self.acks += other.acks
        self.naks += other.naks
        self.terms += other.terms
        self.effects += other.effects
        for publisher, ids in other.receipts.items():
            self.receipts.setdefault(publisher, []).extend(ids)
        self.next_due_at = other.next_due_at


class BatchContext:
    """What one transaction has decided so far. A decision that raises leaves no trace in it.

    `room` is how many effects may be started for what is due at once. `earlier` are the failed
    attempts at messages that are still being tried, by the ids that their letters would have.
    """

    def __init__(
        self,
        service: Service,
        now: datetime,
        retry_policy: RetryPolicy,
        effect_slots: int,
        earlier: Mapping[str, Sequence[Attempt]],
    ) -> None:
        self.service = service
        self.now = now
        self.retry_policy = retry_policy
        self.effect_slots = effect_slots
        self.earlier = earlier
        self.actions = PostCommitActions()
        self.published: list[tuple[Envelope, Event]] = []
        self.settled: list[str] = []
        self.parked: list[DeadLetter] = []
        self.attempts: list[Attempt] = []
        self.failed_attempts: list[Attempt] = []
        self.met: set[str] = set()
        self.known: set[str] = set()
        self.copies: list[tuple[str, Delivery]] = []

    def deduplicate(
        self, batch: Sequence[Message], known: set[str]
    ) -> tuple[list[IncomingEvent], list[UndecodableMessage]]:
        """The events of the batch that are new, and those of them that cannot be read."""
        self.known = known
        fresh: list[IncomingEvent] = []
        undecodable: list[UndecodableMessage] = []
        for message in batch:
            if isinstance(message, IncomingEvent) and not self._is_repeat(message, known):
                fresh.append(message)
            elif isinstance(message, UndecodableMessage) and not self._is_repeat(message, known):
                undecodable.append(message)
        return fresh, undecodable

    def _is_repeat(self, message: IncomingEvent | UndecodableMessage, known: set[str]) -> bool:
        """Whether the event was met before. One that is known is receipted again: the first receipt
        may be lost. A copy within the batch waits for what becomes of the first."""
        envelope = message.envelope
        if envelope is None:
            return False
        if envelope.id in known:
            self.actions.acks.append(message.delivery)
            self.actions.receipt(envelope)
            return True
        if envelope.id in self.met:
            self.copies.append((envelope.id, message.delivery))
            return True
        self.met.add(envelope.id)
        return False

    def resolve_duplicates(self) -> None:
        """Let copies share the fate of the first: what was not dealt with must come again."""
        settled = set(self.settled)
        for event_id, delivery in self.copies:
            if event_id in settled:
                self.actions.acks.append(delivery)
            else:
                self._again(delivery)

    def handle_command(self, unit_of_work: UnitOfWork, ask: PendingCommand) -> None:
        """Carry out a command, or answer with what keeps it from being carried out."""
        if ask.id in self.known:
            self.actions.answers.append((ask, unit_of_work.view(ask.command)))
            return
        try:
            decide = self.service.commands[type(ask.command)]
            state = self.apply(
                unit_of_work, decide, ask.command, actor=ask.actor, traceparent=ask.traceparent
            )
        except Exception as error:
            self.actions.answers.append((ask, error))
        else:
            self.actions.answers.append((ask, state))
            if ask.id is not None:
                self.settled.append(ask.id)

    def republish(self, unit_of_work: UnitOfWork, ask: PendingCommand) -> None:
        """Owe anew, to all who read them, the facts about an order, each as it was said the first
        time; what nobody has lost they know by its id."""
        try:
            facts = (
                self.service.republish(unit_of_work.view(ask.command))
                if self.service.republish
                else ()
            )
            published = [(seal(event, said_at), event) for event, said_at in facts]
        except Exception as error:
            self.actions.answers.append((ask, error))
        else:
            self.published += published
            self.actions.answers.append((ask, tuple(event for _, event in published)))

    def handle_event(self, unit_of_work: UnitOfWork, message: IncomingEvent) -> None:
        """Decide on an event; one that fails is tried again later, and in the end parked."""
        envelope = message.envelope
        decide = self.decision_on(message.event, envelope.time, replayed=message.replayed)
        if decide is None:
            # A durable keeps the subjects of the version that made it, and that one reacted to more.
            self._settle(message)
            return
        try:
            self.apply(
                unit_of_work,
                decide,
                message.event,
                incoming=envelope,
                actor=envelope.actor,
                traceparent=envelope.traceparent,
            )
        except Exception as error:
            self._fail(message, error)
        else:
            self._settle(message)

    def decision_on(self, event: Event, said_at: datetime, *, replayed: bool) -> Decide | None:
        """What this service does about an event of others; or about one of its own, for which the
        time stands still at the instant at which it was said."""
        if not replayed:
            return self.service.event_handlers.get(type(event))
        recall = self.service.replay_handlers[type(event)]
        return lambda state, event, _: recall(state, event, said_at)

    def handle_due(self, unit_of_work: UnitOfWork, due: Due) -> bool:
        """Decide on what is due; whether that went well."""
        agenda = self.service.agenda
        assert agenda is not None
        try:
            self.apply(unit_of_work, lambda state, _, now: agenda.decide(state, now), due)
        except Exception:
            log.exception("deciding on what is due failed", key=due.key)
            return False
        return True

    def refuse(
        self,
        asked: Sequence[PendingCommand],
        fresh: Sequence[IncomingEvent],
        error: ConstraintViolated,
    ) -> None:
        """The database will not have what this message leads to."""
        self.actions.answers += [(ask, error) for ask in asked]
        for message in fresh:
            self._fail(message, error)

    def retry_or_park_undecodable(self, message: UndecodableMessage) -> None:
        """Wait for a version that can read this, or park it."""
        attempts_max = self.retry_policy.unknown_attempts_max if message.again else 1
        self._retry_or_park(
            message.delivery, message.envelope, message.error, message.traceback, attempts_max
        )

    def publish_parked(self, kind: type[ParkingEvent] | None, letter: DeadLetter) -> None:
        """Tell the others about a letter, if it can be about an order: those have UUIDs for ids."""
        if kind is None or letter.order_id is None or not _is_uuid(letter.order_id):
            return
        event = kind(
            order_id=letter.order_id,
            letter_id=letter.id,
            message_type=letter.event_type or "",
            error=letter.error_class,
            parked_at=letter.parked_at,
        )
        self.published.append((seal(event, self.now), event))

    def apply(
        self,
        unit_of_work: UnitOfWork,
        decide: Decide,
        subject: Any,
        *,
        incoming: Envelope | None = None,
        actor: str | None = None,
        traceparent: str | None = None,
    ) -> Any:
        """Decide, and keep what follows; the state that is left. Raises what the decision raises."""
        state, outputs = decide(unit_of_work.view(subject), subject, self.now)
        agenda = self.service.agenda
        if agenda is not None and self._due_at_once(state):
            state, more = agenda.decide(state, self.now)
            outputs = [*outputs, *more]
        published = [
            (seal(output, self.now, actor=actor, traceparent=traceparent), output)
            for output in outputs
            if isinstance(output, Event)
        ]
        unit_of_work.put(subject, state)
        if incoming is not None:
            unit_of_work.record(incoming)
        for envelope, _ in published:
            unit_of_work.record(envelope)
        self.published += published
        self.actions.effects += [output for output in outputs if not isinstance(output, Event)]
        return state

    def _due_at_once(self, state: Any) -> bool:
        """Whether what was decided wants attention already, and there is room to give it."""
        due_at: datetime | None = state.due_at
        has_room = len(self.actions.effects) < self.effect_slots
        return has_room and due_at is not None and due_at <= self.now

    def _settle(self, message: IncomingEvent) -> None:
        self.actions.acks.append(message.delivery)
        if message.envelope.source != self.service.name:
            self.settled.append(message.envelope.id)
            self.actions.receipt(message.envelope)

    def _fail(self, message: IncomingEvent, error: Exception) -> None:
        self._retry_or_park(
            message.delivery,
            message.envelope,
            describe(error),
            "".join(traceback.format_exception(error)),
            self.retry_policy.failing_attempts_max,
        )

    def _retry_or_park(
        self,
        delivery: Delivery,
        envelope: Envelope | None,
        error: str,
        trace: str,
        attempts_max: int,
    ) -> None:
        """Have the message again later, or park it after too many attempts."""
        attempt = Attempt(letter_id=letter_id(delivery, envelope), at=self.now, error=error)
        if delivery.attempt >= attempts_max:
            self.attempts += [*self.earlier.get(attempt.letter_id, ()), attempt]
            self._park(parked(delivery, envelope, error, trace, self.now), delivery, envelope)
            return
        self.failed_attempts.append(attempt)
        self._again(delivery)
        log.warning(
            "a message could not be dealt with, trying again later",
            subject=delivery.subject,
            event_id=envelope and envelope.id,
            order_id=envelope and envelope.subject,
            attempt=delivery.attempt,
            error=shape(error),
        )

    def _again(self, delivery: Delivery) -> None:
        self.actions.naks.append((delivery, self.retry_policy.delay_seconds(delivery.attempt)))

    def _park(self, letter: DeadLetter, delivery: Delivery, envelope: Envelope | None) -> None:
        log.error(
            "a message is parked",
            letter_id=letter.id,
            subject=letter.subject,
            order_id=letter.order_id,
            error=shape(letter.error or ""),
        )
        self.parked.append(letter)
        self.actions.terms.append(delivery)
        if envelope is not None:
            self.settled.append(envelope.id)
            self.actions.receipt(envelope)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
