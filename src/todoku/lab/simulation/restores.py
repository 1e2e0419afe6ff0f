"""Restores databases to an earlier commit, and acts as the operator who enters again what is lost.

A process is killed and its database goes back to an image of one of its commits, also in the middle of an
earlier recovery. If nothing tells the service of it, because it lacks no message that it had
acknowledged, the image is marked as a copy, as `todoku backup` does. The stream of such a run loses nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from random import Random

import msgspec

from todoku.broker.memory import MemoryBroker
from todoku.broker.partitions import durables_of, most_consumed, without_slot
from todoku.database import ConstraintViolated, sqlite
from todoku.engine.copies import mark_copy
from todoku.engine.dead_letters import HOLDING, DeadLetterError, RetryDeadLetter
from todoku.engine.pauses import PauseError, Resume
from todoku.lab.simulation.database import SimulatedDatabase
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.invariants import InvariantChecker
from todoku.lab.simulation.loop import VirtualClock
from todoku.lab.simulation.node import Node
from todoku.lab.simulation.part import ServiceWorld
from todoku.lab.simulation.pauses import PauseChecker
from todoku.simulated import Action, SimulatedService

RECENT = 12
"""How many images of the last commits are kept, and as many of earlier ones."""

RECENT_EVERY = 8
"""How many commits lie between two of the earlier images."""

NEAREST_SHARE = 0.5
"""How often the image is one that lacks as few messages as possible, but at least one."""

COPY_SHARE = 0.3
"""How often another image is marked as a copy although the service could tell."""

UNPUBLISHED_SHARE = 0.3
"""How often a restored service is one that was updated lately: the version before published less."""

SECOND_CRASHES = (0, 0, 1, 2, 3)
SECOND_CRASH_SECONDS_MAX = 4.0
OPERATOR_SECONDS = 1.0

_HOLDING = " OR ".join(f"error LIKE '{name}:%'" for name in HOLDING)
_LETTERS = (
    f"SELECT id FROM dead_letters WHERE state = 'PARKED' AND ({_HOLDING}) ORDER BY parked_at, id"
)
_PAUSES = "SELECT id FROM pauses WHERE resumed_at IS NULL ORDER BY id"
_POSITIONS = "SELECT incarnation, sequence FROM stream_positions"


class Image(msgspec.Struct, frozen=True):
    """The pages of a database at one of its commits, which events were consumed by then, and the stream
    positions that it has. The `number` grows with each commit."""

    number: int
    pages: bytes
    consumed: frozenset[str]
    positions: Mapping[str, int]


class _Published(msgspec.Struct):
    id: str
    source: str
    type: str
    subject: str


class Restores:
    """The images of the databases of one run, and their restores.

    Only services whose part of the simulation is `restorable` are restored.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        broker: MemoryBroker,
        parts: Mapping[str, SimulatedService],
        worlds: Mapping[str, ServiceWorld],
        faults: Faults,
        checker: InvariantChecker,
        pause_checkers: Mapping[str, PauseChecker],
    ) -> None:
        self._pause_checkers = pause_checkers
        self._all = tuple(nodes.values())
        self._nodes = {
            name: node
            for name, node in nodes.items()
            if parts[node.service.name].restorable and node.database.exclusive
        }
        self._broker = broker
        self._parts = parts
        self._worlds = worlds
        self._checker = checker
        self._images: dict[str, list[deque[Image]]] = {}
        self._commits: dict[str, int] = {}
        self._operators: dict[str, asyncio.Task[None]] = {}
        if faults.draws("restore"):
            for name, node in self._nodes.items():
                self._images[name] = [deque(maxlen=RECENT), deque(maxlen=RECENT)]
                node.database.committed = partial(self._committed, node.database.committed)

    def actions(self) -> Mapping[str, Action]:
        """Return what injects the fault."""
        return {"restore": self._restore} if self._images else {}

    def unfinished(self) -> list[str]:
        """Return which services the operator still works on, or have not consumed what is in the stream:
        the outbox of a restored publisher does not tell that any more."""
        recovering = [
            f"{name} recovers" for name, task in self._operators.items() if not task.done()
        ]
        if recovering or not self._operators:
            return recovering
        last = self._broker.last_sequence
        names = {node.service.name for node in self._all}
        return [
            f"{name} has not consumed all" for name in sorted(names) if self._behind(name, last)
        ]

    def _behind(self, name: str, last: int) -> bool:
        consumed = self._consumed(name)
        return consumed is not None and consumed < last

    def _consumed(self, name: str) -> int | None:
        """Return up to where a service has acknowledged everything, through whichever durables it reads."""
        places = {each: self._broker.consumed(each) for each in durables_of(name)}
        known = {each: place for each, place in places.items() if place is not None}
        return most_consumed(known, name)

    def cancel(self) -> None:
        """End the operators."""
        for task in self._operators.values():
            task.cancel()

    # Images.

    def _committed(self, then: Callable[[str], None], name: str) -> None:
        then(name)
        recent, earlier = self._images[name]
        database = self._nodes[name].database
        changes = database.bare().total_changes
        if changes == self._commits.get(name):
            return
        self._commits[name] = changes
        image = Image(
            changes,
            database.serialize(),
            frozenset(self._checker.consumed(name)),
            dict(self._checker.rows(name, _POSITIONS)),
        )
        recent.append(image)
        if changes % RECENT_EVERY == 0:
            earlier.append(image)

    def _choose(self, name: str, dice: Random) -> tuple[Image, bool] | None:
        """Return an image, and whether it is to be marked as a copy."""
        recent, earlier = self._images[name]
        if dice.random() < NEAREST_SHARE:
            lost = [(self._lost(name, image), image) for image in recent]
            telling = [(count, image) for count, image in lost if count > 0]
            if telling:
                fewest = min(count for count, _ in telling)
                return dice.choice([image for count, image in telling if count == fewest]), False
        if not recent:
            return None
        image = dice.choice([*earlier, *recent])
        known = self._lost(name, image) > 0 or "recovery" in image.positions
        return image, not known or dice.random() < COPY_SHARE

    # The fault.

    async def _restore(self, dice: Random) -> None:
        name = dice.choice(tuple(self._images))
        node = self._nodes[name]
        node.crash("killed")
        # Callers learn of what was answered before the kill.
        await asyncio.sleep(0.05)
        node.crash("its database is restored")
        chosen = self._choose(name, dice)
        if chosen is None:
            return
        image, copy = chosen
        self._forget_after(name, image)
        replace(node.database, image.pages)
        if copy:
            mark_copy(node.database.bare(), VirtualClock().now())
        if dice.random() < UNPUBLISHED_SHARE:
            self._take_out(self._parts[name].unpublished_before)
        published = self._published(name)
        self._checker.restored(name, image.consumed, {each.id for each in published})
        self._pause_checkers[name].restored()
        self._parts[name].restored({(each.subject, each.type) for each in published})
        if operator := self._operators.get(name):
            operator.cancel()
        self._operators[name] = asyncio.create_task(self._operate(name), name=f"operator of {name}")
        self._operators[name].add_done_callback(self._ended)
        for _ in range(dice.choice(SECOND_CRASHES)):
            await asyncio.sleep(dice.uniform(0, SECOND_CRASH_SECONDS_MAX))
            node.crash("killed while it recovers")

    def _forget_after(self, name: str, image: Image) -> None:
        """Forget the images of a history that is undone now."""
        for kept in self._images[name]:
            while kept and kept[-1].number > image.number:
                kept.pop()

    def _lost(self, name: str, image: Image) -> int:
        """Return how many messages an image lacks that its service has acknowledged behind its position: by
        these the service can tell that it was restored."""
        reached = image.positions.get(self._broker.stream_epoch, 0)
        consumed = self._consumed(name) or 0
        subjects = {event.subject for event in self._nodes[name].service.event_handlers}
        return sum(
            reached < sequence <= consumed and without_slot(message.subject) in subjects
            for sequence, message in self._broker.messages.items()
        )

    def _take_out(self, subjects: Collection[str]) -> None:
        """Take events out of the stream, as if a version had decided on them that did not publish them."""
        for sequence, message in list(self._broker.messages.items()):
            if without_slot(message.subject) in subjects:
                self._broker.messages[sequence] = msgspec.structs.replace(
                    message, subject="unpublished"
                )
                self._checker.taken_out(message.body)

    def _published(self, name: str) -> Sequence[_Published]:
        """Return the events of this service that the stream holds."""
        found = []
        for message in self._broker.messages.values():
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                event = msgspec.json.decode(message.body, type=_Published)
                if event.source == name and message.subject != "unpublished":
                    found.append(event)
        return found

    # The operator.

    async def _operate(self, name: str) -> None:
        """Enter again what is not in the stream, and retry dead letters until the service has recovered. A
        copy is paused: resume it."""
        await self._parts[name].enter_again(recovered=False)
        await self._resume(name)
        while not self._has_recovered(name):
            for (letter_id,) in self._checker.rows(name, _LETTERS):
                with suppress(DeadLetterError, ConstraintViolated):
                    await self._worlds[name].execute(
                        RetryDeadLetter(letter_id=letter_id, by="operator")
                    )
            await asyncio.sleep(OPERATOR_SECONDS)
        await self._parts[name].enter_again(recovered=True)

    async def _resume(self, name: str) -> None:
        while paused := self._checker.rows(name, _PAUSES):
            for (pause_id,) in paused:
                with suppress(PauseError):
                    await self._worlds[name].execute(Resume(pause_id=pause_id, by="operator"))
            await asyncio.sleep(OPERATOR_SECONDS)

    def _ended(self, operator: asyncio.Task[None]) -> None:
        if not operator.cancelled() and (error := operator.exception()):
            self._checker.fail("I3", f"the {operator.get_name()} failed: {error!r}")

    def _has_recovered(self, name: str) -> bool:
        process = self._nodes[name].process
        holding: Collection[object] = self._checker.rows(name, _LETTERS)
        return process is not None and process.consumer.caught_up and not holding


def replace(database: SimulatedDatabase, pages: bytes) -> None:
    """Replace the contents of a database that no process uses."""
    with closing(sqlite.connect_copy(pages)) as image:
        image.backup(database.bare())
