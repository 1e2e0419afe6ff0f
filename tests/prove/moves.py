"""What may happen next to one entity: deliveries, due rows, calls and their answers, commands, faults."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prove.decisions import Outcome
from prove.numbers import bits_of
from prove.state import Broken, Case, Common
from todoku.engine import STREAM, Due

if TYPE_CHECKING:
    from prove.cases import Cases

Move = tuple[str, Case, Common, bool]
"""What happens, the case and the common part afterwards, and whether it happens by itself."""


class Moves:
    """The steps of one case."""

    def __init__(self, cases: "Cases", case: Case, common: Common) -> None:
        self._cases = cases
        self._case = case
        self._common = common

    def all(self) -> Iterator[Move]:
        """Yield every step: what happens by itself first."""
        yield from self._deliveries()
        yield from self._due()
        yield from self._calls()
        yield from self._commands()
        yield from self._duplicates()
        if self._cases.scenario.republishes:
            yield from self._republished()

    def _deliveries(self) -> Iterator[Move]:
        for bit in bits_of(self._case.waiting):
            taken = self._case._replace(
                waiting=self._case.waiting & ~(1 << bit), handled=self._case.handled | 1 << bit
            )
            yield self._handle(bit, taken, "handles", progress=True)

    def _duplicates(self) -> Iterator[Move]:
        for bit in bits_of(self._case.handled):
            if self._cases.message(bit)[0] != STREAM:
                yield self._handle(bit, self._case, "handles a duplicate of", progress=False)

    def _handle(self, bit: int, taken: Case, verb: str, *, progress: bool) -> Move:
        reader, event = self._cases.message(bit)
        text = f"{reader} {verb} {type(event).__name__}"
        outcome = self._cases.decided(self._case, self._common, reader, event)
        return (*self._after(text, taken, reader, outcome), progress)

    def _after(
        self, text: str, case: Case, name: str, outcome: Outcome
    ) -> tuple[str, Case, Common]:
        if outcome.error is not None:
            error = outcome.error
            raise Broken(text, f"I3: {name} cannot: {type(error).__name__}: {error}")
        return (text, *self._cases.keep(case, self._common, name, outcome))

    def _due(self) -> Iterator[Move]:
        for name, agenda in self._cases.agendas:
            if self._cases.due(self._case, name, agenda):
                due = Due(self._cases.key(self._case), agenda)
                outcome = self._cases.decided(
                    self._case, self._common, name, due, kind=("due", agenda.name)
                )
                after = self._after(f"{name}: {agenda.name} has come", self._case, name, outcome)
                yield (*after, agenda.starts_effects)

    def _calls(self) -> Iterator[Move]:
        """Yield how a call ends: the outside has decided or not, and its answer arrives or is lost.

        A crash loses it without an answer.
        """
        outside = self._cases.scenario.outside
        for number in sorted(set(self._case.calls)):
            effect = self._cases.effect(number)
            known = dict(self._case.outside)
            name = next(n for n, agenda in self._cases.agendas if agenda.starts_effects)
            left = list(self._case.calls)
            left.remove(number)
            ended = self._case._replace(calls=tuple(left))
            for choice, answer in enumerate(outside.answers):
                if known.get(number, choice) != choice:
                    continue
                decided = ended._replace(outside=tuple(sorted((known | {number: choice}).items())))
                what = f"{type(effect).__name__} ends with {answer}"
                yield self._answer(what, decided, name, effect, answer, progress=True)
                if number not in known:
                    yield from self._lost(f"{what}, and ", decided, name, effect)
            yield from self._lost(f"{type(effect).__name__}: ", ended, name, effect)

    def _lost(self, what: str, case: Case, name: str, effect: Any) -> Iterator[Move]:
        unknown = self._cases.scenario.outside.unknown
        yield self._answer(f"{what}its answer is lost", case, name, effect, unknown, progress=False)
        yield f"{what}{name} crashes", case, self._common, False

    def _answer(
        self, text: str, case: Case, name: str, effect: Any, answer: Any, *, progress: bool
    ) -> Move:
        command = self._cases.scenario.outside.command(effect, answer)
        outcome = self._cases.decided(self._case, self._common, name, command)
        return (*self._after(text, case, name, outcome), progress)

    def _commands(self) -> Iterator[Move]:
        for bit, asked in enumerate(self._cases.commands(self._case)):
            outcome = self._cases.decided(self._case, self._common, asked.service, asked.command)
            if outcome.error is None:  # Else it is refused, and nothing has changed.
                again = " again" if self._case.asked >> bit & 1 else ""
                case = self._case._replace(asked=self._case.asked | 1 << bit)
                text = f"a client asks to {asked.text}{again}"
                yield (*self._after(text, case, asked.service, outcome), False)

    def _republished(self) -> Iterator[Move]:
        for name, events in self._cases.republished(self._case, self._common):
            if events:
                more = self._cases.publish_again(self._case, events)
                case = self._case._replace(waiting=self._case.waiting | more)
                yield f"{name} publishes again", case, self._common, False
