"""Explores every state that a scenario can reach, breadth first, and the shortest way to a broken invariant.

A state is the cases of all entities and what they share. Entities with the same plan are
interchangeable, so a state is kept with its cases sorted. The steps of an entity depend on its own case
and on the common part alone, so they are computed once for each such pair.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from time import process_time

import msgspec

from prove.cases import Cases
from prove.scenario import Scenario
from prove.state import Steps

State = tuple[int, ...]
"""The cases of all entities, sorted, and the common part."""


class Violation(msgspec.Struct, frozen=True):
    """A broken invariant, and the shortest way to it."""

    problem: str
    path: tuple[str, ...]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What an exploration found: it is closed if it has a violation or all states were visited."""

    states: int
    transitions: int
    quiescent: int
    cases: int
    decisions: int
    depth: int
    seconds: float
    closed: bool
    violation: Violation | None = None


def explore(scenario: Scenario, states_max: int | None = None) -> Result:
    """Explore a scenario until nothing new is found, an invariant is broken, or there are `states_max`."""
    return _Exploration(scenario).run(states_max)


class _Exploration:
    """Visits the states of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._cases = Cases(scenario)
        self._entities = len(scenario.plans)
        self._moves: dict[tuple[int, int], Steps] = {}
        self._measures: dict[int, tuple[int, ...]] = {}
        self._totals: dict[tuple[object, ...], Sequence[str]] = {}
        self._before: dict[State, State | None] = {}
        self._transitions = self._quiescent = self._depth = 0

    def run(self, states_max: int | None) -> Result:
        began = process_time()
        violation = self._visit_all(states_max)
        closed = violation is not None or states_max is None or len(self._before) < states_max
        if violation is None and closed:
            violation = self._find_livelock() or self._find_disagreement()
        return Result(
            states=len(self._before),
            transitions=self._transitions,
            quiescent=self._quiescent,
            cases=len(self._cases),
            decisions=self._cases.decisions,
            depth=self._depth,
            seconds=process_time() - began,
            closed=closed,
            violation=violation,
        )

    def _visit_all(self, states_max: int | None) -> Violation | None:
        cases, common = self._cases.begin()
        first = (*sorted(cases), common)
        self._before[first] = None
        level: list[State] = [first]
        while level:
            found: list[State] = []
            for state in level:
                if (violation := self._visit(state, found)) is not None:
                    return violation
            if states_max is not None and len(self._before) >= states_max:
                return None
            self._depth += bool(found)
            level = found
        return None

    def _visit(self, state: State, found: list[State]) -> Violation | None:
        """Check a state, and add those to `found` that follow from it and are new."""
        *cases, common = state
        if problem := self._problem(cases, common):
            return Violation(problem, self._path(state))
        before = self._before
        last = -1
        for n, case in enumerate(cases):
            if case == last:
                continue  # The steps of an interchangeable entity.
            last = case
            moves = self._moves.get((case, common)) or self._steps(case, common)
            if moves.broken is not None:
                return Violation(moves.broken.problem, (*self._path(state), moves.broken.step))
            self._transitions += moves.tried
            others = state[:n] + state[n + 1 : -1]
            for changed, also in moves.after:
                place = bisect(others, changed)
                after = (*others[:place], changed, *others[place:], also)
                if after not in before:
                    before[after] = state
                    found.append(after)
        for _, changed in self._cases.common_steps(common):
            self._transitions += 1
            after = (*cases, changed)
            if after not in before:
                before[after] = state
                found.append(after)
        return None

    def _steps(self, case: int, common: int) -> Steps:
        steps = self._moves[case, common] = self._cases.steps(case, common)
        return steps

    # Checks.

    def _problem(self, cases: Sequence[int], common: int) -> str | None:
        seen = [self._cases.seen(case) for case in cases]
        self._quiescent += all(each.silent for each in seen)
        measures = tuple(self._measure(case) for case in cases)
        known = (common, *sorted(measures))
        if (problems := self._totals.get(known)) is None:
            shared = self._cases.shared(common)
            problems = self._totals[known] = list(self._scenario.check_total(measures, shared))
        return problems[0] if problems else None

    def _measure(self, case: int) -> tuple[int, ...]:
        if (found := self._measures.get(case)) is None:
            found = self._measures[case] = self._scenario.measure(self._cases.seen(case))
        return found

    def _find_livelock(self) -> Violation | None:
        """Return a state from which no quiescent state can be reached without a client or a fault.

        An entity comes to rest by steps of its own, whatever the others do meanwhile: so if each does from
        each of its cases, all do, one after the other.
        """
        resting = self._resting()
        for state in self._before:
            *cases, common = state
            for case in cases:
                if (case, common) not in resting:
                    problem = "I3: from here, the entity never comes to rest by itself"
                    return Violation(problem, self._path(state))
        return None

    def _resting(self) -> set[tuple[int, int]]:
        """Return the pairs of a case and a common part from which the entity can come to rest."""
        before: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for pair, moves in self._moves.items():
            for step in moves.steps:
                if step.progress:
                    before[step.case, step.common].append(pair)
        resting = {pair for pair in self._moves if self._cases.seen(pair[0]).silent}
        todo = list(resting)
        while todo:
            for pair in before[todo.pop()]:
                if pair not in resting:
                    resting.add(pair)
                    todo.append(pair)
        return resting

    def _find_disagreement(self) -> Violation | None:
        """Return an entity that came to rest otherwise than another one of which the same is given: then the
        order in which messages arrived has decided something."""
        known: dict[object, object] = {}
        for number in dict.fromkeys(case for case, _ in self._moves):
            seen = self._cases.seen(number)
            if not seen.silent:
                continue
            given, outcome = self._scenario.outcome(seen)
            if (other := known.setdefault(given, outcome)) != outcome:
                problem = f"I4: given {given}, it ended as {other}, and here as {outcome}"
                state = next(state for state in self._before if number in state[:-1])
                return Violation(problem, self._path(state))
        return None

    # The way to a state.

    def _path(self, state: State) -> tuple[str, ...]:
        states = [state]
        while (before := self._before[states[-1]]) is not None:
            states.append(before)
        states.reverse()
        cases = list(self._cases.begin()[0])
        steps = []
        for before, after in pairwise(states):
            text, cases = self._step_between(cases, before[-1], after)
            steps.append(text)
        return tuple(steps)

    def _step_between(self, cases: list[int], common: int, after: State) -> tuple[str, list[int]]:
        """Return the step that leads from one state to the next, and the cases of the entities by name."""
        for n, text, changed, also in self._all_steps(cases, common):
            moved = [*cases[:n], changed, *cases[n + 1 :]] if n is not None else cases
            if (*sorted(moved), also) == after:
                name = "" if n is None or self._entities == 1 else f"{chr(ord('A') + n)}: "
                return f"{name}{text}", moved
        raise AssertionError("the states of a path follow from each other")

    def _all_steps(
        self, cases: list[int], common: int
    ) -> Iterator[tuple[int | None, str, int, int]]:
        for n, case in enumerate(cases):
            for step in self._moves[case, common].steps:
                yield n, step.text, step.case, step.common
        for text, changed in self._cases.common_steps(common):
            yield None, text, 0, changed
