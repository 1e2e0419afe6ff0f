"""The decisions of one transaction on commands, events and due rows."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, TypeGuard

import msgspec
import structlog

from todoku.broker.port import Delivery
from todoku.engine.agenda import Agenda
from todoku.engine.api_keys import InvalidApiKey, key_of_event, require_valid_key
from todoku.engine.audit_log.anchors import InvalidAnchor, require_valid
from todoku.engine.audit_log.requests import AuditRequest
from todoku.engine.by_type import ByType
from todoku.engine.config import RetryPolicy
from todoku.engine.dead_letters import (
    DEAD_LETTER_COMMANDS,
    DeadLetter,
    context_of,
)
from todoku.engine.decisions import Decide
from todoku.engine.due_window import DueWindow
from todoku.engine.failures import FailedAttempts, Failures, KeyHeld
from todoku.engine.idempotency import (
    Formats,
    IdempotencyKey,
    IdempotencyKeyReused,
    KeptAnswer,
    RequestInProgress,
    kept_answer,
)
from todoku.engine.messages import (
    Due,
    EventTooLarge,
    IncomingEvent,
    Message,
    PendingCommand,
    PendingEffect,
    Receipt,
    RepublishEvents,
    StoredEvents,
    UndecodableMessage,
)
from todoku.engine.pauses import OPEN, Gate
from todoku.engine.persons import erasures
from todoku.engine.post_commit import PostCommitActions
from todoku.engine.service import DeadLetterEvent, InsertsContexts, Service, UnitOfWork
from todoku.engine.stamps import stamped
from todoku.engine.tracing import BatchSpans
from todoku.events import (
    NO_CONTEXT,
    ApiKeyEvent,
    AuditAnchoredEvent,
    Context,
    Envelope,
    ErasureEvent,
    Event,
    InContext,
    encode,
    seal,
    trace_fields,
)
from todoku.identity.keys import ApiKey
from todoku.lifecycle import UnknownStatus

ENVELOPE_BYTES_MAX = 1_024
"""How much an envelope adds to the data of its event at most, the context aside."""

log = structlog.get_logger(__name__)

_IS_EVENT: ByType[bool] = ByType({Event: True, object: False})
_IS_KEPT: ByType[bool] = ByType(
    {AuditAnchoredEvent: True, ApiKeyEvent: True, ErasureEvent: True, object: False}
)
"""Whether an event is one on which nothing is decided, by its type."""


class Decided(msgspec.Struct, frozen=True, gc=False):
    """What one decision leads to: the new state, the events in their envelopes, the effects, and when the
    state falls due, by agenda."""

    state: object
    published: Sequence[tuple[Envelope, Event]]
    effects: Sequence[PendingEffect]
    context: Context
    due: Sequence[tuple[Agenda, datetime]]


class BatchContext:
    """The results of one transaction so far. A decision that raises leaves no trace in it.

    `effect_slots` is how many effects may start for rows that are due at once; `due_windows` tell which
    are, by agenda.
    `earlier_attempts` are those of messages that are retried.
    Nothing is decided on the `held_keys`. The `gate` tells what is paused. The `spans` are reported to, if
    the process is traced.
    """

    def __init__(
        self,
        service: Service,
        now: datetime,
        retry_policy: RetryPolicy,
        effect_slots: int,
        earlier_attempts: FailedAttempts,
        due_windows: Mapping[Agenda, DueWindow],
        held_keys: frozenset[str] = frozenset(),
        gate: Gate = OPEN,
        spans: BatchSpans | None = None,
    ) -> None:
        self.spans = spans
        self.held_keys = held_keys
        self.gate = gate
        self._gate_is_open = gate.is_open
        self.service = service
        self.now = now
        self.effect_slots = effect_slots
        self.due_windows = due_windows
        self.actions = PostCommitActions()
        self.commands: list[PendingCommand] = []
        self.letter_commands: list[PendingCommand] = []
        self.new_events: list[IncomingEvent] = []
        self.handled: list[IncomingEvent] = []
        self.anchors: list[AuditAnchoredEvent] = []
        self.api_keys: dict[str, ApiKey] = {}
        self.audited: list[AuditRequest] = []
        self.erasures: list[ErasureEvent] = []
        self.set_aside: list[IncomingEvent] = []
        self.undecodable: list[UndecodableMessage] = []
        self.receipts: list[Receipt] = []
        self.stored: list[tuple[int, int]] = []
        self.due: Sequence[Due] = ()
        self.failed_due: list[Due] = []
        self.published: list[tuple[Envelope, Event]] = []
        self.withdrawn: list[str] = []
        self.returned: list[DeadLetter] = []
        self.contexts: dict[Agenda, dict[str, Context]] = {}
        self.earliest_due: dict[Agenda, datetime] = {}
        self.still_timers: dict[str, set[str]] = {}
        self.handled_ids: list[str] = []
        self.failures = Failures(
            now, retry_policy, earlier_attempts, self.actions, self.handled_ids
        )
        self.event_ids: set[str] = set()
        self.seen_ids: set[str] = set()
        self.processed_ids: set[str] = set()
        self.used_keys: Mapping[str, KeptAnswer] = {}
        self.new_keys: set[str] = set()
        self.duplicates: list[tuple[Envelope, Delivery]] = []
        self.retry_at: datetime | None = None

    def sort(self, messages: Sequence[Message]) -> None:
        """Sort the messages by their kind."""
        stored: list[StoredEvents] = []
        kinds: dict[type, Callable[[Any], None]] = {
            IncomingEvent: self.new_events.append,
            PendingCommand: self.commands.append,
            Receipt: self.receipts.append,
            UndecodableMessage: self.undecodable.append,
            StoredEvents: stored.append,
        }
        for message in messages:
            kinds[type(message)](message)
        self.stored += [(message.after, message.up_to) for message in stored]
        self.event_ids = {message.envelope.id for message in self.new_events}

    def ids(self) -> set[str]:
        """Return the ids by which the inbox knows these messages, if it does."""
        envelopes = [message.envelope for message in self.undecodable]
        return self.event_ids.union(env.id for env in envelopes if env is not None)

    def keys(self) -> set[str]:
        """Return the idempotency keys of the commands."""
        return {command.key.id for command in self.commands if command.key is not None}

    def deduplicate(self, processed_ids: set[str], used_keys: Mapping[str, KeptAnswer]) -> None:
        """Acknowledge what was processed before, answer what was executed before; keep the others."""
        self.processed_ids, self.used_keys = processed_ids, used_keys
        if processed_ids or self.undecodable or len(self.event_ids) < len(self.new_events):
            self._drop_repeats()
        if self.service.sets_aside and any(_IS_KEPT[type(m.event)] for m in self.new_events):
            self._set_aside()
        commands, self.commands = self.commands, []
        for pending in commands:
            self._add_command(pending)

    def _drop_repeats(self) -> None:
        self.new_events = [
            m for m in self.new_events if not self._is_repeat(m.envelope, m.delivery)
        ]
        self.undecodable = [
            m for m in self.undecodable if not self._is_repeat(m.envelope, m.delivery)
        ]

    def _set_aside(self) -> None:
        """Set aside the anchors of other services' audit logs, erasures, and API keys: nothing is decided on
        them."""
        messages, self.new_events = self.new_events, []
        for message in messages:
            event = message.event
            if isinstance(event, (AuditAnchoredEvent, ApiKeyEvent, ErasureEvent)):
                self._set_valid_aside(message, event)
            else:
                self.new_events.append(message)

    def _set_valid_aside(
        self, message: IncomingEvent, event: AuditAnchoredEvent | ApiKeyEvent | ErasureEvent
    ) -> None:
        try:
            self.keep_event(event)
        except (InvalidAnchor, InvalidApiKey, erasures.InvalidErasure) as error:
            self.failures.add(message, error)
        else:
            self.set_aside.append(message)

    def keep_event(self, event: AuditAnchoredEvent | ApiKeyEvent | ErasureEvent) -> None:
        """Keep an event on which nothing is decided. Raises `InvalidAnchor`, `InvalidApiKey`,
        `InvalidErasure`."""
        if isinstance(event, ErasureEvent):
            erasures.require_valid(event)
            self.erasures.append(event)
            return
        if isinstance(event, AuditAnchoredEvent):
            require_valid(event)
            self.anchors.append(event)
            return
        require_valid_key(event)
        key, before = key_of_event(event), self.api_keys.get(event.key_id)
        if before is None or before.version < key.version:
            self.api_keys[key.id] = key

    def _add_command(self, pending: PendingCommand) -> None:
        if pending.key is not None and self._is_answered(pending, pending.key):
            return
        kind = type(pending.command)
        if kind in DEAD_LETTER_COMMANDS:
            self.letter_commands.append(pending)
        elif kind is RepublishEvents and self.service.republish is None:
            self.actions.answers.append((pending, ()))
        else:
            self.commands.append(pending)

    def _is_answered(self, pending: PendingCommand, key: IdempotencyKey) -> bool:
        """Answer a command whose key was used before, and return whether it was."""
        kept = self.used_keys.get(key.id)
        if kept is None and key.id not in self.new_keys:
            self.new_keys.add(key.id)
            return False
        answer: object = kept
        if kept is None:
            answer = RequestInProgress("The request with this key is in the same batch.")
        elif kept.fingerprint != key.fingerprint:
            answer = IdempotencyKeyReused("This key was sent before, with another request.")
        self.actions.answers.append((pending, answer))
        return True

    def kept_answers(self, formats: Formats) -> list[tuple[str, KeptAnswer]]:
        """Return what to keep with the keys that this batch uses first."""
        if not self.new_keys:
            return []
        return [
            (key.id, kept_answer(key, result, formats))
            for pending, result in self.actions.answers
            if (key := pending.key) is not None and key.id in self.new_keys and key.keeps(result)
        ]

    def _is_repeat(self, envelope: Envelope | None, delivery: Delivery) -> bool:
        """Return whether the event was delivered before. A processed one is confirmed again, because the
        first receipt may be lost. A duplicate within the batch shares the result of the first."""
        if envelope is None:
            return False
        event_id = envelope.id
        if event_id in self.processed_ids:
            self.actions.acks.append(delivery)
            self.actions.add_receipt(envelope, delivery)
            return True
        if event_id in self.seen_ids:
            self.duplicates.append((envelope, delivery))
            return True
        self.seen_ids.add(event_id)
        return False

    def resolve_duplicates(self) -> None:
        """Acknowledge the duplicates of handled messages; the others must be redelivered."""
        handled = set(self.handled_ids)
        for envelope, delivery in self.duplicates:
            if envelope.id in handled:
                self.actions.acks.append(delivery)
                self.actions.add_missing_receipt(envelope, delivery)
            else:
                self.failures.nack(delivery)

    def handle_all(self, unit_of_work: UnitOfWork) -> None:
        """Decide on the commands, the new events and the due rows."""
        for pending in self.commands:
            if type(pending.command) is RepublishEvents:
                self.republish(unit_of_work, pending)
            else:
                self.handle_command(unit_of_work, pending)
        for message in self.new_events:
            self.handle_event(unit_of_work, message)
        self._acknowledge(self.handled)
        for due in self.due:
            self.handle_due(unit_of_work, due)

    def handle_command(self, unit_of_work: UnitOfWork, pending: PendingCommand) -> None:
        """Execute a command, or answer with the error."""
        try:
            if self.spans is not None:
                self.spans.command(pending.context)
            decide = self.service.command_handlers[type(pending.command)]
            decided = self.decide(unit_of_work, decide, pending.command, pending.context)
            _require_publishable(decided.published, pending.event_bytes_max)
        except Exception as error:
            self.actions.answers.append((pending, error))
        else:
            self.keep(unit_of_work, pending.command, decided)
            self.actions.answers.append((pending, decided.state))

    def republish(self, unit_of_work: UnitOfWork, pending: PendingCommand) -> None:
        """Enqueue the events about an entity again for all subscribers, each as it was published first;
        subscribers that still have an event recognise its id."""
        assert self.service.republish is not None
        try:
            state = unit_of_work.view(pending.command)
            saga = self.service.saga
            context = saga.context(state, pending.context) if saga else pending.context
            published = [
                (seal(event, occurred_at, context), event)
                for event, occurred_at in self.service.republish(state)
            ]
        except Exception as error:
            self.actions.answers.append((pending, error))
        else:
            self.published += published
            self.actions.answers.append((pending, tuple(event for _, event in published)))

    def handle_event(self, unit_of_work: UnitOfWork, message: IncomingEvent) -> None:
        """Decide on an event; retry it later if that fails, and park it in the end."""
        envelope = message.envelope
        decide = self.handler_of(message.event, envelope, replayed=message.replayed)
        if decide is None:
            # This version of the saga does not need it here. Or an older version of this service created
            # the durable, with more handlers.
            self.handled.append(message)
            return
        spans = None if message.replayed else self.spans  # Those of what is replayed exist.
        try:
            context = (
                envelope.context
                if spans is None
                else spans.event(envelope, message.delivery.subject, message.delivery.attempt)
            )
            if self.held_keys and not message.replayed:
                self.require_not_held(envelope)
            decided = self.decide(
                unit_of_work,
                decide,
                message.event,
                context,
                occurred_at=envelope.time,
                cause=envelope.id,
            )
        except Exception as error:
            if spans is not None:
                spans.failed(error)
            self.failures.add(message, error)
        else:
            self.keep(unit_of_work, message.event, decided, incoming=envelope)
            self.handled.append(message)

    def handler_of(self, event: Event, envelope: Envelope, *, replayed: bool) -> Decide | None:
        """Return the handler of an event; for a replayed one, with the time at which it occurred."""
        if not replayed:
            return self.service.handler(type(event), envelope.sagaversion)
        replay = self.service.replay_handlers[type(event)]
        return lambda state, event, _: replay(state, event, envelope.time)

    def require_not_held(self, envelope: Envelope) -> None:
        """Raise `KeyHeld` if nothing may be decided on the key of this event."""
        if envelope.subject in self.held_keys:
            raise KeyHeld(
                f"an event of the {self.service.name} service about {envelope.subject} could not be "
                "replayed after a restore, and was discarded: what follows from it is not decided anew. "
                "Bring it to an end by hand, and discard this message."
            )

    def handle_due(self, unit_of_work: UnitOfWork, due: Due) -> None:
        """Decide on a due row; one that fails is postponed."""
        agenda = due.agenda
        if due.key in self.held_keys:
            self.failed_due.append(due)
            return
        spans: BatchSpans | None = None
        try:
            state = unit_of_work.view(due)
            due_at = agenda.due_at_of(state)
            if due_at is None or not self.due_windows[agenda].has_come(due_at):
                return  # Decided by a message of this batch.
            context = due.context
            if (spans := self.spans) is not None:
                context = spans.due(agenda.name, due.key, context)
            decided = self.decide(
                unit_of_work,
                lambda state, _, now: agenda.decide(state, now),
                due,
                context,
                cause=agenda.cause_of(state),
            )
            agenda.require_pause(decided.state, self.now)
        except UnknownStatus as error:
            log.warning(
                "due_row_of_newer_version", agenda=agenda.name, key=due.key, error=str(error)
            )
            self.failed_due.append(due)
        except Exception as error:
            if spans is not None:
                spans.failed(error)
            log.exception(
                "due_decision_failed",
                agenda=agenda.name,
                key=due.key,
                **trace_fields(due.context.traceparent),
            )
            self.failed_due.append(due)
        else:
            self.keep(unit_of_work, due, decided)

    def reject(self, error: Exception) -> None:
        """Fail the commands and events, whose results the database rejects."""
        self.actions.answers += [(pending, error) for pending in self.commands]
        for message in (*self.new_events, *self.set_aside):
            self.failures.add(message, error)
        self.anchors, self.erasures, self.set_aside = [], [], []
        self.api_keys = {}
        # A receipt or notice that the database rejects is dropped: it costs one redelivery.
        self.receipts.clear()
        self.stored.clear()

    def publish_letter(self, make: DeadLetterEvent | None, letter: DeadLetter) -> None:
        """Publish that a letter was parked or resolved, if that concerns other services."""
        if make is None:
            return
        try:
            event = make(letter)
            sealed = event and (seal(event, self.now, context_of(letter)), event)
        except Exception:
            log.exception("dead_letter_event_failed", letter_id=letter.id)
        else:
            # One about a parked event of its own kind might be parked as well, and so on without end.
            if sealed and type(sealed[1]).subject != letter.subject:
                self.published.append(sealed)

    def decide(
        self,
        unit_of_work: UnitOfWork,
        decide: Decide,
        subject: object,
        context: Context = NO_CONTEXT,
        *,
        occurred_at: datetime | None = None,
        cause: str | None = None,
    ) -> Decided:
        """Return what a decision leads to, without keeping it; `occurred_at` is the time of an event,
        `cause` its id.

        Raises what the decision raises.
        """
        before = unit_of_work.view(subject)
        state, outputs = decide(before, subject, self.now)
        if (saga := self.service.saga) is not None:
            # What follows from an event belongs to its saga; a command begins one.
            began_in = saga.version if cause is None else context.saga_version
            state, context = saga.begin(before, state, context, began_in)
        cause = cause or context.cause
        results = [(output, cause) for output in outputs] if outputs else []
        due: list[tuple[Agenda, datetime]] = []
        windows = self.due_windows
        decided_at_once = False
        for agenda in self.service.agendas:
            due_at = agenda.due_at_of(state)
            if due_at is None:
                continue
            if windows[agenda].has_come(due_at) and self._may_decide_at_once(agenda, state):
                because = agenda.cause_of(state) or cause
                state, more = agenda.decide(state, self.now)
                results += [(output, because) for output in more]
                decided_at_once = True
            else:
                due.append((agenda, due_at))
        if decided_at_once:
            due = self._due_times(state)
        state, at = stamped(before, state, occurred_at, self.now)
        published: list[tuple[Envelope, Event]] = []
        effects: list[PendingEffect] = []
        for result, because in results:
            if type(result) is InContext:
                published.append((seal(result.event, at, result.context), result.event))
            elif _is_event(result):
                published.append((seal(result, at, context, because), result))
            else:
                effects.append(PendingEffect(result, context.caused_by(because)))
        if context.cause is not None:
            context = context.caused_by(None)
        return Decided(state, published, effects, context, due)

    def _due_times(self, state: object) -> list[tuple[Agenda, datetime]]:
        """Return when the state falls due, by agenda."""
        return [
            (agenda, due_at)
            for agenda in self.service.agendas
            if (due_at := agenda.due_at_of(state)) is not None
        ]

    def keep(
        self,
        unit_of_work: UnitOfWork,
        subject: object,
        decided: Decided,
        *,
        incoming: Envelope | None = None,
    ) -> None:
        """Keep what was decided. If this raises, the whole batch is to be rejected."""
        if not self._gate_is_open:
            self._keep_while_paused(unit_of_work.view(subject), decided)
        unit_of_work.put(subject, decided.state)
        if incoming is not None:
            unit_of_work.record(incoming)
        if decided.published:
            for envelope, _ in decided.published:
                unit_of_work.record(envelope)
            self.published += decided.published
        if decided.effects and not self.gate.no_effects:
            self.actions.effects += decided.effects
        for agenda, due_at in decided.due:
            self._note_due(unit_of_work, agenda, due_at, subject, decided)

    def _keep_while_paused(self, before: object, decided: Decided) -> None:
        """Note which timers are set while they stand still, and which effects do not start."""
        for agenda in self.service.agendas:
            due_at = agenda.due_at_of(decided.state)
            was_due_at = None if before is None else agenda.due_at_of(before)
            is_set = due_at is not None and due_at != was_due_at and not agenda.instants
            if is_set and self.gate.stops(agenda, decided.state):
                key = agenda.key_of(decided.state)
                self.still_timers.setdefault(agenda.name, set()).add(key)
        if self.gate.no_effects and decided.effects:
            # As after a crash before it: the row that repeats the effect falls due after the pause.
            log.warning("effects_not_started_while_paused", count=len(decided.effects))

    def _note_due(
        self,
        unit_of_work: UnitOfWork,
        agenda: Agenda,
        due_at: datetime,
        subject: object,
        decided: Decided,
    ) -> None:
        """Note that a row will fall due: the first time of an agenda whose rows are not looked for in every
        batch, and the context, which a row that was due has already."""
        if agenda.look_every is not None:
            first = self.earliest_due.get(agenda)
            if first is None or due_at < first:
                self.earliest_due[agenda] = due_at
        if decided.context is NO_CONTEXT or not agenda.keeps_contexts:
            return
        if not (type(subject) is Due and subject.agenda is agenda):
            key = agenda.key_of(decided.state)
            if not (
                _inserts_contexts(unit_of_work)
                and unit_of_work.insert_context(key, decided.context)
            ):
                self.contexts.setdefault(agenda, {})[key] = decided.context

    def _may_decide_at_once(self, agenda: Agenda, state: object) -> bool:
        """Return whether what is due already may be decided on in this transaction."""
        if agenda.starts_effects and len(self.actions.effects) >= self.effect_slots:
            return False
        return self._gate_is_open or not (
            self.gate.stops(agenda, state)
            # It has its turn among the others that are due.
            or self.gate.limits(agenda, state)
        )

    def acknowledge_set_aside(self) -> None:
        """Acknowledge the anchors and the erasures, and confirm them."""
        self._acknowledge(self.set_aside)

    def _acknowledge(self, handled: Sequence[IncomingEvent]) -> None:
        """Acknowledge these handled events, and confirm those of other services."""
        actions, own = self.actions, self.service.name
        actions.acks += [message.delivery for message in handled]
        for message in handled:
            envelope = message.envelope
            if envelope.source != own:
                self.handled_ids.append(envelope.id)
                actions.add_receipt(envelope, message.delivery)


def _inserts_contexts(unit_of_work: UnitOfWork) -> TypeGuard[InsertsContexts]:
    return _kind_inserts_contexts(type(unit_of_work))


@cache
def _kind_inserts_contexts(kind: type) -> bool:
    """Return whether units of work of a kind insert contexts. This is asked for each row, and to find it out
    takes as long as all spans of an order."""
    return issubclass(kind, InsertsContexts)


def _is_event(result: object) -> TypeGuard[Event]:
    """Return whether a result of a decision is an event; the others are effects."""
    return _IS_EVENT[type(result)]


def _require_publishable(
    published: Sequence[tuple[Envelope, Event]], bytes_max: int | None
) -> None:
    """Raise `EventTooLarge` for the first event that the broker does not take."""
    if bytes_max is None:
        return
    for envelope, event in published:
        if len(bytes(envelope.data)) + ENVELOPE_BYTES_MAX <= bytes_max:
            continue
        size = len(encode(envelope))
        if size > bytes_max:
            raise EventTooLarge(type(event).__name__, size, bytes_max)
