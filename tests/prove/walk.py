"""One way through a scenario, step by step, on which databases are also restored to an earlier moment.

A restored service has lost what it committed since. It replays its own events in the order of the stream,
which holds everything that was published, and then handles again what it had handled since the backup.
What a client entered that is no event is entered again first.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

from prove.cases import Cases
from prove.numbers import bits_of, replaced
from prove.state import Case, Common
from todoku.events import Event

WRITES_LEDGER: Final = "inventory"
"""The service whose database has what decisions have written beyond their states."""


class Place(NamedTuple):
    """Where the walk is: the cases of the entities and their common part."""

    cases: tuple[int, ...]
    common: int


class Walk:
    """A walk that begins where nothing has happened; `told` are its steps."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases
        first = Place(*cases.begin())
        self._places = [first]
        self._stream: list[tuple[int, Event]] = []
        self.told: list[str] = []

    @property
    def place(self) -> Place:
        """Where the walk is now."""
        return self._places[-1]

    @property
    def steps(self) -> int:
        """The number of steps so far."""
        return len(self.told)

    @property
    def at_rest(self) -> bool:
        """Whether nothing happens any more by itself."""
        return all(self._cases.seen(case).silent for case in self.place.cases)

    def options(self, *, progress: bool = False) -> Sequence[tuple[str, Place]]:
        """Return what may happen now, or only what happens by itself, and where each leads."""
        cases, common = self.place
        found = []
        for n, case in enumerate(cases):
            steps = self._cases.steps(case, common)
            if steps.broken is not None:
                raise AssertionError(self._failed(steps.broken.problem, steps.broken.step))
            for step in steps.steps:
                if step.progress or not progress:
                    place = Place(replaced(cases, n, step.case), step.common)
                    found.append((f"{chr(ord('A') + n)}: {step.text}", place))
        if not progress:
            for text, changed in self._cases.common_steps(common):
                found.append((text, Place(cases, changed)))
        return found

    def go(self, text: str, place: Place) -> None:
        """Take a step; raise `AssertionError` if what the entities share does not add up."""
        self.told.append(text)
        for n, (before, after) in enumerate(zip(self.place.cases, place.cases, strict=True)):
            new = self._cases.seen(after).published - self._cases.seen(before).published
            self._stream += [(n, event) for event in sorted(new, key=_name)]
        self._places.append(place)
        self._check()

    def restore(self, name: str, at: int) -> None:
        """Restore the database of a service to where it was after `at` steps."""
        self.told.append(f"{name} is restored to step {at}")
        cases, common = self._rolled_back(name, self._places[at])
        waiting = [(n, event) for n, event in self._stream if self._replays(name, event)]
        while waiting:
            cases, common, failed = self._replay(name, cases, common, waiting)
            assert len(failed) < len(waiting), self._failed(f"{failed} cannot be replayed")
            waiting = failed
        numbers = tuple(map(self._cases.number_of, cases))
        self._places.append(Place(numbers, self._cases.number_of_common(common)))
        for case in numbers:
            for problem in self._cases.scenario.check(self._cases.seen(case)):
                raise AssertionError(self._failed(problem))
        self._check()

    def _rolled_back(self, name: str, then: Place) -> tuple[list[Case], Common]:
        """Return the present, with what this service had then."""
        service = self._cases.index[name]
        old = self._cases.common(then.common)
        common = self._cases.common(self.place.common)
        entered = [
            asked
            for bit, asked in enumerate(self._cases.scenario.common)
            if asked.service == name and (common.asked & ~old.asked) >> bit & 1
        ]
        common = common._replace(rows=replaced(common.rows, service, old.rows[service]))
        if name == WRITES_LEDGER:
            common = common._replace(written=old.written)
        for asked in entered:
            common = self._cases.ask_common(common, asked)
        cases = [
            self._case_rolled_back(name, self._cases.case(now), self._cases.case(before))
            for now, before in zip(self.place.cases, then.cases, strict=True)
        ]
        return cases, common

    def _case_rolled_back(self, name: str, now: Case, then: Case) -> Case:
        service = self._cases.index[name]
        again = 0
        for bit in bits_of(now.handled & ~then.handled):
            if self._cases.message(bit)[0] == name:
                again |= 1 << bit
        calls = any(agenda.starts_effects for agenda in self._cases.services[service].agendas)
        return now._replace(
            rows=replaced(now.rows, service, then.rows[service]),
            handled=now.handled & ~again,
            waiting=now.waiting | again,
            calls=() if calls else now.calls,
            written=then.written if name == WRITES_LEDGER else now.written,
        )

    def _replays(self, name: str, event: Event) -> bool:
        return type(event) in self._cases.services[self._cases.index[name]].replay_handlers

    def _replay(
        self, name: str, cases: list[Case], common: Common, events: Sequence[tuple[int, Event]]
    ) -> tuple[list[Case], Common, Sequence[tuple[int, Event]]]:
        """Replay these events; return also those that failed, which are retried at the end."""
        cases, failed = list(cases), []
        for n, event in events:
            try:
                cases[n], common = self._cases.replay(cases[n], common, name, event)
            except Exception:
                failed.append((n, event))
        return cases, common, failed

    def _check(self) -> None:
        cases, common = self.place
        scenario = self._cases.scenario
        measures = [scenario.measure(self._cases.seen(case)) for case in cases]
        for problem in scenario.check_total(measures, self._cases.shared(common)):
            raise AssertionError(self._failed(problem))

    def _failed(self, problem: object, *steps: str) -> str:
        return "\n".join(chain((str(problem),), self.told, steps))


def _name(event: Event) -> str:
    return type(event).__name__
