"""Injects the faults that have a schedule: crashes, outages, losses, poison."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from todoku.broker.memory import MemoryBroker
from todoku.broker.partitions import durables_of
from todoku.contracts import Event
from todoku.database import Database
from todoku.engine import Topology
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.invariants import InvariantChecker
from todoku.lab.simulation.loop import VirtualClock
from todoku.lab.simulation.node import CLOCK_JUMP_SECONDS_MAX, Node
from todoku.lab.simulation.poison import Poison, make_outbox_row, make_poison
from todoku.lab.simulation.trace import Trace
from todoku.simulated import Action

PARTITION_SECONDS_MAX = 15.0
OUTAGE_SECONDS_MAX = 10.0
WIPED_SHARE = 0.3
NEAR_SECONDS = 5.0
HOURS_OFF = 8
KILLED_SHARE = 0.5


class Disturbances:
    """The scheduled faults of one run, and the poison that they have left."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        broker: MemoryBroker,
        topology: Topology,
        events: Sequence[type[Event]],
        faults: Faults,
        checker: InvariantChecker,
        trace: Trace,
    ) -> None:
        self._nodes = nodes
        self._broker = broker
        self._topology = topology
        self._events = events
        self._faults = faults
        self._checker = checker
        self._trace = trace
        self._poison_rows: list[Poison] = []
        self._poison_sent: list[tuple[int, Poison]] = []
        self._stopping: set[asyncio.Task[None]] = set()

    def actions(self) -> Mapping[str, Action]:
        """Return what injects each kind of scheduled fault."""
        return {
            "kill": self._kill,
            "stop": self._stop,
            "scale-down": self._scale_down,
            "partition": self._partition,
            "outage": self._outage,
            "wipe": self._wipe,
            "purge": self._purge,
            "roll-back": self._roll_back,
            "delete-durable": self._delete_durable,
            "database-away": self._take_database_away,
            "set-clock": self._set_clock,
            "poison": self._poison_stream,
        }

    def heal(self) -> None:
        """End every fault."""
        self._broker.start()
        for node in self._nodes.values():
            node.reconnect()
            node.database.away = False
            if node.clock_offset < -CLOCK_JUMP_SECONDS_MAX and _keeps_instants(node):
                node.set_clock(0.0)

    def add_undecodable_rows(self) -> None:
        """Leave outbox rows of a newer version, since rolled back, that subscribers cannot decode."""
        for name, node in {node.service.name: node for node in self._nodes.values()}.items():
            events = [event for event in self._events if event.publisher == name]
            if events and (dice := self._faults.strike("newer-version", name)):
                row, poison = make_outbox_row(dice, self._topology, events)
                with Database.transaction(node.database) as connection:
                    outbox = node.service.store.tables.outbox
                    outbox.add(connection, f"{name}-0", 0, [row], VirtualClock().now())
                node.database.committed(name)
                self._poison_rows.append(poison)

    def all_poison(self) -> list[Poison]:
        """Return all poison of the run."""
        return self._poison_rows + [poison for _, poison in self._poison_sent]

    def lasting_poison(self) -> Iterable[Poison]:
        """Return the poison that every subscriber must reach, because nothing has removed it."""
        return self._poison_rows + [
            poison
            for place, poison in self._poison_sent
            if self._broker.messages.get(place) is poison.message
        ]

    async def _kill(self, dice: Random) -> None:
        self._any_node(dice).crash("killed")

    async def _stop(self, dice: Random) -> None:
        # The process ends on its own, also after healing.
        task = asyncio.create_task(self._any_node(dice).stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _scale_down(self, dice: Random) -> None:
        """End a process for good, if others of its service stay."""
        node = self._any_node(dice)
        others = [
            other
            for other in self._nodes.values()
            if other.service is node.service and other is not node and not other.retired
        ]
        if others:
            node.retired = True
            node.crash("scaled down")

    async def _partition(self, dice: Random) -> None:
        node = self._any_node(dice)
        node.disconnect()
        await asyncio.sleep(dice.uniform(0, PARTITION_SECONDS_MAX))
        node.reconnect()

    async def _outage(self, dice: Random) -> None:
        self._broker.stop()
        await asyncio.sleep(dice.uniform(0, OUTAGE_SECONDS_MAX))
        if dice.random() < WIPED_SHARE and not self._faults.draws("restore"):
            self._trace.note("world", "fault", "the disk of the broker is wiped")
            self._broker.wipe()
        self._broker.start()

    async def _wipe(self, _: Random) -> None:
        self._broker.wipe()

    async def _purge(self, _: Random) -> None:
        self._broker.purge()

    async def _roll_back(self, dice: Random) -> None:
        """Restore the broker's disk as it was some seconds before, as a snapshot of its machine does."""
        image = self._broker.image()
        await asyncio.sleep(dice.uniform(0, OUTAGE_SECONDS_MAX))
        self._trace.note("world", "fault", f"the broker is back at {image.last_sequence}")
        self._broker.roll_back(image)

    async def _delete_durable(self, dice: Random) -> None:
        service = self._any_node(dice).service.name
        durables = [
            each for each in durables_of(service) if self._broker.consumed(each) is not None
        ]
        if durables:
            self._broker.delete_durable(dice.choice(durables) if len(durables) > 1 else durables[0])

    async def _take_database_away(self, dice: Random) -> None:
        database = self._any_node(dice).database
        database.away = True
        await asyncio.sleep(dice.uniform(0, OUTAGE_SECONDS_MAX))
        database.away = False

    async def _set_clock(self, dice: Random) -> None:
        """Set a wall clock to another time, or to the right one, as a time service or an operator does."""
        far = dice.uniform(-CLOCK_JUMP_SECONDS_MAX, CLOCK_JUMP_SECONDS_MAX)
        near = dice.uniform(-NEAR_SECONDS, NEAR_SECONDS)
        hours = dice.choice((-1, 1)) * HOURS_OFF * 3600.0
        node = self._any_node(dice)
        node.set_clock(dice.choice((far, near, hours, hours, 0.0)))
        if dice.random() < KILLED_SHARE:
            await asyncio.sleep(dice.uniform(0, OUTAGE_SECONDS_MAX))
            node.crash("killed after its clock was set")

    async def _poison_stream(self, dice: Random) -> None:
        if not self._broker.running or not self._events:
            return
        poison = make_poison(dice, self._events)
        message = poison.message
        self._trace.note("world", "poison", message.subject, message.body)
        self._poison_sent.append((self._broker.last_sequence + 1, poison))
        self._broker.store([message])

    def _any_node(self, dice: Random) -> Node:
        return self._nodes[dice.choice(tuple(self._nodes))]


def _keeps_instants(node: Node) -> bool:
    """Return whether something is due there at an instant that was told to somebody, such as a deadline. On
    a clock that stays hours behind, it comes hours late."""
    return any(agenda.instants for agenda in node.service.agendas)
