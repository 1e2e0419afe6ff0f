"""The steps of one entity, such as an order: a `Case` holds all that the services have and wait for about it.

A message is a pair of a subscriber and an event. It waits from the commit that publishes it until its
subscriber has handled it: lost or late, the outbox keeps it, so a loss is a message that goes on waiting.
What was handled may be handled once more at any time: a duplicate that arrives after the inbox was pruned
(one that arrives before changes nothing). A crash loses the calls to the outside that are running;
everything else is committed. None of these faults is counted: each may happen any number of times.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from prove.decisions import (
    Outcome,
    Rows,
    decide,
    decide_due,
    is_due,
    republished,
    state_of,
)
from prove.moves import Moves
from prove.numbers import Table, bits_of, replaced
from prove.scenario import Asked, Scenario, Seen
from prove.state import Broken, Case, Common, Step, Steps
from todoku.engine import STREAM, Due, Topology
from todoku.events import Event

CALLS_MAX: Final = 2
"""How many calls about the same effect run at once at most."""


ABOUT_ORDERS = ("orders", "shipments")
"""The tables whose due rows are about one order each."""


class Cases:
    """Computes the steps of cases, each once."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.services = scenario.services
        self.topology = Topology(scenario.services)
        self.saga_version = max((s.saga.version for s in self.services if s.saga), default=1)
        self._keys = {key for key, _ in scenario.plans}
        self.index = {service.name: n for n, service in enumerate(self.services)}
        self._rows, self._messages, self._effects = Table(), Table(), Table()
        self._written = Table()
        self._cases, self._commons = Table(), Table()
        self._decided: dict[Any, Outcome] = {}
        self._seen: dict[int, Seen] = {}
        self._again: set[Event] = set()
        self._steps: dict[tuple[int, int], Steps] = {}
        self._nothing = self._written.number(())
        self._no_rows = (self._rows.number(frozenset()),) * len(self.services)

    def __len__(self) -> int:
        return len(self._cases)

    @property
    def decisions(self) -> int:
        """Return how many different decisions were made."""
        return len(self._decided)

    def begin(self) -> tuple[tuple[int, ...], int]:
        """Return the case of each entity before anything has happened, and the common part.

        Entities with the same plan have the same cases.
        """
        common = Common(self._no_rows, 0, self._nothing)
        for asked in self.scenario.setup:
            common = self.ask_common(common, asked)
        plans = self.scenario.plans
        cases = [
            self._cases.number(Case(plans.index(plan), self._no_rows, written=self._nothing))
            for plan in plans
        ]
        return tuple(cases), self._commons.number(common)

    def common_steps(self, number: int) -> Iterator[tuple[str, int]]:
        """Yield what clients may ask that is about no entity, with the common part afterwards."""
        common: Common = self._commons.values[number]
        for bit, asked in enumerate(self.scenario.common):
            if not common.asked >> bit & 1:
                after = self.ask_common(common, asked)
                after = after._replace(asked=after.asked | 1 << bit)
                yield asked.text, self._commons.number(after)

    def steps(self, case: int, common: int) -> Steps:
        """Return the steps that an entity can make."""
        if (found := self._steps.get((case, common))) is None:
            found = self._steps[case, common] = self._find_steps(case, common)
        return found

    def _find_steps(self, case: int, common: int) -> Steps:
        steps: list[Step] = []
        broken, tried = None, 0
        try:
            for step in self._try_steps(case, common):
                tried += 1
                if (step.case, step.common) != (case, common):
                    steps.append(step)
        except Broken as error:
            broken = error
        after = dict.fromkeys((step.case, step.common) for step in steps)
        return Steps(steps, tuple(after), broken, tried)

    def _try_steps(self, case: int, common: int) -> Iterator[Step]:
        """Yield the steps; raise `Broken` for one that breaks an invariant."""
        before, shared = self._cases.values[case], self._commons.values[common]
        for text, after, also, progress in Moves(self, before, shared).all():
            number = self._cases.number(after)
            if number != case:
                for problem in (
                    *self.scenario.check_step(self.seen(case), self.seen(number)),
                    *self.scenario.check(self.seen(number)),
                ):
                    raise Broken(text, problem)
            yield Step(text, number, self._commons.number(also), progress)

    def seen(self, number: int) -> Seen:
        """Return what there is about an entity, as the checks see it."""
        if (found := self._seen.get(number)) is None:
            found = self._seen[number] = self._look(self._cases.values[number])
        return found

    def shared(self, number: int) -> Mapping[str, Any]:
        """Return what the entities share: the rows of each service, and what was written."""
        common: Common = self._commons.values[number]
        rows = {
            service.name: dict(self._rows.values[n])
            for service, n in zip(self.services, common.rows, strict=True)
        }
        return {**rows, "written": self._written.values[common.written]}

    def case(self, number: int) -> Case:
        """Return the case with this number."""
        found: Case = self._cases.values[number]
        return found

    def common(self, number: int) -> Common:
        """Return the common part with this number."""
        found: Common = self._commons.values[number]
        return found

    def number_of(self, case: Case) -> int:
        """Return the number of a case."""
        return self._cases.number(case)

    def number_of_common(self, common: Common) -> int:
        """Return the number of a common part."""
        return self._commons.number(common)

    def key(self, case: Case) -> str:
        return self.scenario.plans[case.plan][0]

    def commands(self, case: Case) -> Sequence[Asked]:
        return self.scenario.plans[case.plan][1]

    def _look(self, case: Case) -> Seen:
        key = self.key(case)
        rows = [dict(self._rows.values[n]) for n in case.rows]
        waiting = frozenset(self.messages(case.waiting))
        published = {event for _, event in (*waiting, *self.messages(case.handled))}
        due = any(
            is_due(service, rows[n], agenda, key)
            for n, service in enumerate(self.services)
            for agenda in service.agendas
            if agenda.starts_effects
        )
        return Seen(
            key=key,
            states={s.name: state_of(s, rows[n], key) for n, s in enumerate(self.services)},
            published=frozenset(published),
            reworded=frozenset(published & self._again),
            waiting=waiting,
            calls=tuple(self._effects.values[n] for n in case.calls),
            outside={
                self._effects.values[n]: self.scenario.outside.answers[answer]
                for n, answer in case.outside
            },
            asked=frozenset(
                asked.command
                for bit, asked in enumerate(self.commands(case))
                if case.asked >> bit & 1
            ),
            written=self._written.values[case.written],
            silent=not (waiting or case.calls or due),
        )

    # What decisions do to a case.

    def messages(self, bits: int) -> Iterator[tuple[str, Event]]:
        """Return the messages of a set."""
        return map(self.message, bits_of(bits))

    def message(self, bit: int) -> tuple[str, Event]:
        """Return the subscriber and the event of a message."""
        found: tuple[str, Event] = self._messages.values[bit]
        return found

    def effect(self, number: int) -> Any:
        return self._effects.values[number]

    def rows_of(self, case: Case, common: Common, service: int) -> Rows:
        """Return what a service has stored about an entity, and about what it shares with others."""
        return dict(self._rows.values[case.rows[service]] | self._rows.values[common.rows[service]])

    def decided(
        self, case: Case, common: Common, name: str, subject: Hashable, kind: Hashable = None
    ) -> Outcome:
        """Return the outcome of a decision of the service called `name`."""
        n = self.index[name]
        memo = (n, case.rows[n], common.rows[n], kind or subject)
        if (outcome := self._decided.get(memo)) is None:
            outcome = self._decided[memo] = self._decide(self.rows_of(case, common, n), n, subject)
        return outcome

    def replay(self, case: Case, common: Common, name: str, event: Event) -> tuple[Case, Common]:
        """Return the case and the common part after a service that was restored has replayed an event;
        raise what the decision raises."""
        n = self.index[name]
        handler = self.services[n].replay_handlers[type(event)]
        outcome = decide(self.services[n], self.rows_of(case, common, n), event, handler)
        if outcome.error is not None:
            raise outcome.error
        return self.keep(case, common, name, outcome)

    def ask_common(self, common: Common, asked: Asked) -> Common:
        """Return the common part after a command that is about no entity."""
        n = self.index[asked.service]
        rows = dict(self._rows.values[common.rows[n]])
        outcome = self._decide(rows, n, asked.command)
        if outcome.error is not None:
            raise outcome.error
        rows.update(outcome.rows)
        return common._replace(
            rows=replaced(common.rows, n, self._rows.number(frozenset(rows.items()))),
            written=self._wrote(common.written, outcome.written),
        )

    def _decide(self, rows: Rows, n: int, subject: Any) -> Outcome:
        service = self.services[n]
        match subject:
            case Due():
                return decide_due(service, rows, subject)
            case Event():
                handler = service.handler(type(subject), self.saga_version)
                if handler is None:
                    return Outcome()
                return decide(service, rows, subject, handler)
            case _:
                return decide(service, rows, subject, service.command_handlers[type(subject)])

    def keep(self, case: Case, common: Common, name: str, outcome: Outcome) -> tuple[Case, Common]:
        """Return the case and the common part after a decision of this service was committed."""
        n, key = self.index[name], self.key(case)
        own = dict(self._rows.values[case.rows[n]])
        others = dict(self._rows.values[common.rows[n]])
        for place, state in outcome.rows.items():
            assert place[1] == key or place[1] not in self._keys, f"{name} has changed {place}"
            (own if place[1] == key else others)[place] = state
        case = case._replace(
            rows=replaced(case.rows, n, self._rows.number(frozenset(own.items()))),
            waiting=case.waiting | self.publish(case, outcome.events),
            calls=self._started(case.calls, outcome.effects),
            written=self._wrote(case.written, outcome.written),
        )
        if unread := self._unread(outcome.events):
            case = case._replace(handled=case.handled | unread)
        rows = replaced(common.rows, n, self._rows.number(frozenset(others.items())))
        return case, common._replace(rows=rows)

    def publish(self, case: Case, events: Sequence[Event]) -> int:
        """Return the messages of these events that no subscriber has had yet."""
        bits = 0
        for event in events:
            for reader in self.topology.readers(type(event)):
                bits |= 1 << self._messages.number((reader, event))
        return bits & ~case.handled

    def publish_again(self, case: Case, events: Sequence[Event]) -> int:
        """Return the messages of events that are published again, in words of today: a fact that is kept
        without its details, or with what has changed since."""
        known = {event for _, event in self.messages(case.waiting | case.handled)}
        self._again |= {event for event in events if event not in known}
        return self.publish(case, events)

    def _unread(self, events: Sequence[Event]) -> int:
        """Return what only the stream subscribes to."""
        bits = 0
        for event in events:
            if not self.topology.readers(type(event)):
                bits |= 1 << self._messages.number((STREAM, event))
        return bits

    def _started(self, calls: tuple[int, ...], effects: Sequence[Any]) -> tuple[int, ...]:
        for effect in effects:
            number = self._effects.number(effect)
            if calls.count(number) < CALLS_MAX:
                calls = tuple(sorted((*calls, number)))
        return calls

    def _wrote(self, written: int, more: tuple[Any, ...]) -> int:
        if not more:
            return written
        return self._written.number((*self._written.values[written], *more))

    @cached_property
    def agendas(self) -> Sequence[tuple[str, Any]]:
        """Return the agendas about orders. Those about products have nothing to do here: no order waits for
        stock, and the catalogue is no part of a case."""
        return [
            (service.name, agenda)
            for service in self.services
            for agenda in service.agendas
            if agenda.key_column.table.name in ABOUT_ORDERS
        ]

    def due(self, case: Case, name: str, agenda: Any) -> bool:
        n = self.index[name]
        return is_due(
            self.services[n], dict(self._rows.values[case.rows[n]]), agenda, self.key(case)
        )

    def republished(self, case: Case, common: Common) -> Iterator[tuple[str, Sequence[Event]]]:
        """Yield what each service would publish again about an entity."""
        for n, service in enumerate(self.services):
            yield service.name, republished(service, self.rows_of(case, common, n), self.key(case))
