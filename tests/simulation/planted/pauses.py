"""Bugs: what is paused starts all the same, or its timers run on."""

from typing import Any

import msgspec

from simulation import planting
from simulation.planting import Wrapped, mutant, mutant_of_crowds
from todoku.contracts import InventoryPausesChangedEvent, ShippingPausesChangedEvent
from todoku.engine.pauses import SERVICE
from todoku.lab.simulation.wiring import Wire


@mutant
def pause_forgotten_at_restart() -> Wire:
    """What is paused starts again with the next process."""

    class Pauses(Wrapped):
        def __init__(self, *inner: Any) -> None:
            super().__init__(*inner)
            self.own: set[str] = set()

        def add(self, connection: Any, pause: Any) -> None:
            self.own.add(pause.id)
            self.inner.add(connection, pause)

        def open(self, connection: Any) -> Any:
            found = self.inner.open(connection)
            return [each for each in found if each.id in self.own or each.resumed_at is not None]

    return planting.tables("pauses", Pauses)


@mutant
def pause_of_the_carrier_ignored() -> Wire:
    """Only pauses of the whole service stop anything."""

    class Pauses(Wrapped):
        def open(self, connection: Any) -> Any:
            found = self.inner.open(connection)
            return [each for each in found if each.target == SERVICE or each.resumed_at is not None]

    return planting.tables("pauses", Pauses)


@mutant
def timers_run_on_while_paused() -> Wire:
    """What is left of a timer goes by during a pause."""
    return planting.agenda("shipping", push=lambda original, *arguments, **options: None)


@mutant_of_crowds
def rate_of_a_resume_ignored() -> Wire:
    """When a resume has started something last is forgotten, so that each look may start more."""

    class Pauses(Wrapped):
        def lock(self, *arguments: Any) -> Any:
            found = self.inner.lock(*arguments)
            return [msgspec.structs.replace(pause, next_at=None) for pause in found]

    return planting.tables("pauses", Pauses)


@mutant
def pause_of_a_product_ignored() -> Wire:
    """What is paused of one product only is shipped all the same."""

    class Pauses(Wrapped):
        def open(self, connection: Any) -> Any:
            found = self.inner.open(connection)
            return [each for each in found if not _is_of_a_product(each)]

    return planting.tables("pauses", Pauses)


@mutant
def timers_of_a_paused_product_run_on() -> Wire:
    """The end of a pause of one product pushes no timers."""

    def push(original: Any, connection: Any, timers: Any, span: Any, **options: Any) -> None:
        if not span.only:
            original(connection, timers, span, **options)

    return planting.agenda("shipping", push=push)


@mutant_of_crowds
def resume_of_a_product_pushes_all_timers() -> Wire:
    """The end of a pause of one product pushes the timers of all others, which have run on."""

    def push(original: Any, connection: Any, timers: Any, span: Any, **options: Any) -> None:
        original(connection, timers, msgspec.structs.replace(span, only=()), **options)

    return planting.agenda("shipping", push=push)


@mutant
def end_of_a_pause_not_noted() -> Wire:
    """Orders keeps the pauses of another service until the next one begins there."""

    def decide(original: Any, state: Any, event: Any, now: Any) -> Any:
        return original(state, event, now) if event.pauses else (state, [])

    return planting.together(
        planting.events("orders", ShippingPausesChangedEvent, decide),
        planting.events("orders", InventoryPausesChangedEvent, decide),
    )


@mutant
def version_of_pauses_by_the_clock() -> Wire:
    """News of pauses has the time as its version: later news of a clock that is behind counts as late."""

    class Positions(Wrapped):
        def next_version(self, connection: Any, name: str, at_least: int) -> int:
            self.inner.next_version(connection, name, at_least)
            return at_least

    return planting.tables("positions", Positions)


def _is_of_a_product(pause: Any) -> bool:
    return pause.target.startswith("product:") and pause.resumed_at is None
