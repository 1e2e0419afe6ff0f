"""A pause: nothing starts, timers stand still, and a resume may have a rate."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, MetaData, Text

from engine.statements import listening
from todoku.database import Database, Timestamp, table
from todoku.engine import (
    Agenda,
    Clock,
    EngineConfig,
    EngineMetrics,
    IdempotencyKey,
    IdempotencyKeyReused,
    KeyedStore,
    NotPaused,
    Pause,
    PauseRecord,
    PausesPublication,
    PauseState,
    Process,
    Resume,
    Service,
    Topology,
    UnknownPause,
    UnknownPauseTarget,
)
from todoku.engine.pauses import Allowance
from todoku.engine.testing import (
    START,
    MemoryBroker,
    RunningProcess,
    VirtualClock,
    make_process,
    memory_database,
    run,
    running,
    until,
)
from todoku.events import Event


class Reminded(Event, frozen=True, kw_only=True):
    """A deadline has passed."""

    subject: ClassVar[str] = "tasks.reminded"
    publisher: ClassVar[str] = "tasks"
    key_field: ClassVar[str] = "task_id"

    task_id: str


class PausesTold(Event, frozen=True, kw_only=True):
    """What is paused."""

    subject: ClassVar[str] = "tasks.paused"
    publisher: ClassVar[str] = "tasks"
    key_field: ClassVar[str] = "of"

    of: str
    version: int
    ids: list[str]

    @property
    def fact(self) -> str:
        return f"PausesTold {self.version}"


def tell(pauses: Sequence[PauseRecord], version: int) -> PausesTold:
    return PausesTold(of="tasks", version=version, ids=[each.id for each in pauses])


class AddTask(msgspec.Struct, frozen=True, kw_only=True):
    """Add a task; it is called after so many seconds, or at once without any agenda."""

    task_id: str
    call_after: float | None = None
    remind_at: datetime | None = None
    at_once: bool = False


class Call(msgspec.Struct, frozen=True):
    task_id: str


class NoteCalled(msgspec.Struct, frozen=True, kw_only=True):
    task_id: str


class Task(msgspec.Struct, frozen=True, kw_only=True):
    task_id: str
    call_at: datetime | None
    remind_at: datetime | None


metadata = MetaData()
tasks = table(
    "tasks",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("call_at", Timestamp),
    Column("remind_at", Timestamp),
)

Outputs = Sequence[object]


def add_task(task: Task | None, command: AddTask, now: datetime) -> tuple[Task, Outputs]:
    after = command.call_after
    call_at = None if after is None else now + timedelta(seconds=after)
    added = Task(task_id=command.task_id, call_at=call_at, remind_at=command.remind_at)
    return added, [Call(command.task_id)] if command.at_once else []


def start_call(task: Task, now: datetime) -> tuple[Task, Outputs]:
    claimed = msgspec.structs.replace(task, call_at=now + timedelta(seconds=60))
    return claimed, [Call(task.task_id)]


def note_called(task: Task, command: NoteCalled, now: datetime) -> tuple[Task, Outputs]:
    return msgspec.structs.replace(task, call_at=None), []


def remind(task: Task, now: datetime) -> tuple[Task, Outputs]:
    return msgspec.structs.replace(task, remind_at=None), [Reminded(task_id=task.task_id)]


class World:
    """A service that calls somebody, and reminds at an instant; and when it did so."""

    def __init__(self, call_seconds: float = 0.0, grace_seconds: float = 0.0) -> None:
        self.calls: list[tuple[str, float]] = []
        self.call_seconds = call_seconds
        self.broker = MemoryBroker()
        self.service = Service(
            name="tasks",
            store=KeyedStore(Task, tasks, key="task_id"),
            event_handlers={},
            command_handlers={AddTask: add_task, NoteCalled: note_called},
            agendas=[
                Agenda(
                    due_at=tasks.c.call_at,
                    key=tasks.c.task_id,
                    decide=start_call,
                    due_at_of=attrgetter("call_at"),
                    key_of=attrgetter("task_id"),
                    starts_effects=True,
                    target="telephone",
                ),
                Agenda(
                    due_at=tasks.c.remind_at,
                    key=tasks.c.task_id,
                    decide=remind,
                    due_at_of=attrgetter("remind_at"),
                    key_of=attrgetter("task_id"),
                    grace_seconds=grace_seconds,
                    instants=True,
                ),
            ],
            effects={Call: self.call},
            publishes=(Reminded, PausesTold),
            pauses_event=PausesPublication(PausesTold, tell),
        )
        self.database: Database = memory_database(self.service)
        self.starts = 0

    async def call(self, effect: Call) -> NoteCalled:
        self.calls.append((effect.task_id, seconds()))
        await asyncio.sleep(self.call_seconds)
        return NoteCalled(task_id=effect.task_id)

    def process(self, *, clock: Clock | None = None, **config: Any) -> Process:
        self.starts += 1
        return make_process(
            self.service,
            self.broker,
            Topology([self.service]),
            self.database,
            owner=f"tasks-{self.starts}",
            config=EngineConfig(**config),
            clock=clock,
        )

    @property
    def called(self) -> list[str]:
        return [task_id for task_id, _ in self.calls]

    @property
    def told(self) -> list[list[str]]:
        found = [
            msgspec.json.decode(message.body)["data"]
            for message in self.broker.messages.values()
            if message.subject == PausesTold.subject
        ]
        return [each["ids"] for each in sorted(found, key=lambda each: int(each["version"]))]

    @property
    def reminded(self) -> list[str]:
        return [
            msgspec.json.decode(message.body)["subject"]
            for message in self.broker.messages.values()
            if message.subject == Reminded.subject
        ]


def seconds() -> float:
    return asyncio.get_running_loop().time()


def after(count: float) -> datetime:
    return START + timedelta(seconds=count)


async def wait_until(count: float) -> None:
    await asyncio.sleep(count - seconds())


def pause(pause_id: str = "p1", target: str = "service") -> Pause:
    return Pause(id=pause_id, target=target, by="alice", reason="a test")


def resume(pause_id: str = "p1", rate: int | None = None) -> Resume:
    return Resume(pause_id=pause_id, by="bob", rate=rate)


@pytest.mark.parametrize("target", ["service", "telephone"])
def test_paused_service_takes_commands_and_starts_nothing(target: str) -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(pause(target=target))
            await process.execute(AddTask(task_id="x", call_after=0))
            await asyncio.sleep(1_000)
            assert world.calls == []
            await process.execute(resume())
            await until(lambda: world.called == ["x"])

    run(scenario())


def test_pause_of_one_target_leaves_the_others() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(pause(target="telephone"))
            await process.execute(AddTask(task_id="x", call_after=1, remind_at=after(5)))
            await asyncio.sleep(10)
            assert (world.called, world.reminded) == ([], ["x"])

    run(scenario())


def test_what_is_left_of_a_timer_is_left_after_the_pause() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="before", call_after=10))
            await wait_until(4)
            await process.execute(pause())
            await wait_until(50)
            await process.execute(AddTask(task_id="meanwhile", call_after=8))
            await wait_until(104)
            await process.execute(resume())
            await until(lambda: len(world.calls) == 2)
        assert [(task, round(at)) for task, at in world.calls] == [
            ("before", 110),
            ("meanwhile", 112),
        ]

    run(scenario())


@pytest.mark.parametrize(
    ("pauses", "stood_still"),
    [
        ([(0, 20), (5, 10)], 20),
        ([(0, 10), (5, 20)], 20),
        ([(0, 10), (5, 30), (12, 20)], 30),
        ([(0, 20), (5, 10), (15, 30)], 30),
        ([(0, 10), (20, 30)], 20),
    ],
)
def test_timers_stand_still_while_any_pause_lasts(
    pauses: list[tuple[int, int]], stood_still: int
) -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="before", call_after=12))
            steps = [(at, n, pause(f"p{n}")) for n, (at, _) in enumerate(pauses)]
            steps += [(at, n, resume(f"p{n}")) for n, (_, at) in enumerate(pauses)]
            for at, _, command in sorted(steps, key=lambda step: step[:2]):
                await wait_until(at)
                await process.execute(command)
            await until(lambda: len(world.calls) == 1)
        assert round(world.calls[0][1]) == 12 + stood_still

    run(scenario())


def test_timer_set_during_overlapping_pauses_begins_when_the_last_one_ends() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(pause("p1"))
            await wait_until(3)
            await process.execute(AddTask(task_id="early", call_after=2))
            await wait_until(5)
            await process.execute(pause("p2", "telephone"))
            await wait_until(7)
            await process.execute(AddTask(task_id="late", call_after=4))
            await wait_until(10)
            await process.execute(resume("p1"))
            await wait_until(20)
            await process.execute(resume("p2"))
            await until(lambda: len(world.calls) == 2)
        assert [(task, round(at)) for task, at in world.calls] == [("early", 22), ("late", 24)]

    run(scenario())


def test_instants_stay_as_they_are_and_get_their_grace_after_the_pause() -> None:
    async def scenario() -> None:
        world = World(grace_seconds=60)
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="x", remind_at=after(100)))
            await wait_until(90)
            await process.execute(pause())
            await wait_until(500)
            assert world.reminded == []
            await process.execute(resume())
            await wait_until(558)
            assert world.reminded == []
            await until(lambda: world.reminded == ["x"], seconds=5)

    run(scenario())


def test_pause_survives_a_kill() -> None:
    async def scenario() -> None:
        world = World()
        first = RunningProcess(world.process())
        await first.started()
        await first.process.execute(AddTask(task_id="x", call_after=5))
        await first.process.execute(pause())
        first.kill()
        async with running(world.process()) as process:
            await asyncio.sleep(100)
            assert world.calls == []
            await process.execute(resume())
            await until(lambda: world.called == ["x"])
        assert round(world.calls[0][1]) == 105

    run(scenario())


def test_others_are_told_what_is_paused_at_each_change_and_at_each_start() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="x", call_after=0))
            await until(lambda: world.called == ["x"])
            assert world.told == [], "a service that is not paused publishes nothing"
            await process.execute(pause("p1"))
            await process.execute(pause("p2", "telephone"))
            await process.execute(resume("p1"))
            await until(lambda: len(world.told) == 3)
        async with running(world.process()):
            await until(lambda: len(world.told) == 4)
        assert world.told == [["p1"], ["p1", "p2"], ["p2"], ["p2"]]

    run(scenario())


def test_database_whose_pauses_have_all_ended_tells_so_at_the_start() -> None:
    """It may be a restored one, of which others know a pause that it has lost."""

    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(pause())
            await process.execute(resume())
            await until(lambda: len(world.told) >= 1)
        told = len(world.told)
        async with running(world.process()):
            await until(lambda: len(world.told) == told + 1)
        assert world.told[-1] == []

    run(scenario())


def test_news_is_the_latest_whatever_the_clocks_of_its_publishers_show() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process(clock=VirtualClock(3_600))) as process:
            await process.execute(pause())
            await until(lambda: world.told == [["p1"]])
        async with running(world.process(clock=VirtualClock(-3_600))) as process:
            await until(lambda: len(world.told) == 2)
            await process.execute(resume())
            await until(lambda: len(world.told) == 3)
        assert world.told[-1] == []

    run(scenario())


def test_restored_database_tells_what_is_paused_above_what_it_had_told_before() -> None:
    """The pause, and the version under which others were told of it, are lost with the database."""

    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="x", call_after=0))
            await until(lambda: world.called == ["x"])
        backup = world.database.serialize()
        async with running(world.process(clock=VirtualClock(3_600))) as process:
            await process.execute(pause())
            await until(lambda: world.told == [["p1"]])
        world.database = Database.in_memory(backup)
        with world.database.transaction() as connection:
            world.service.store.tables.positions.begin_recovery(connection, 1)
        async with running(world.process()):
            await until(lambda: len(world.told) == 2)
        assert world.told == [["p1"], []]

    run(scenario())


def test_call_under_way_ends_and_its_answer_is_recorded() -> None:
    async def scenario() -> None:
        world = World(call_seconds=20)
        async with running(world.process(effect_timeout_seconds=30)) as process:
            await process.execute(AddTask(task_id="x", call_after=0))
            await until(lambda: world.called == ["x"])
            await process.execute(pause())
            await asyncio.sleep(1_000)
            await process.execute(resume())
            await asyncio.sleep(1_000)
            assert world.called == ["x"], "its claim ended with the answer"

    run(scenario())


def test_effect_of_a_command_starts_when_its_row_falls_due_after_the_pause() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(pause())
            await process.execute(AddTask(task_id="x", call_after=5, at_once=True))
            await asyncio.sleep(10)
            assert world.calls == []
            await process.execute(resume())
            await until(lambda: world.called == ["x"], seconds=10)

    run(scenario())


def test_resume_with_a_rate_starts_no_more_until_the_backlog_is_through() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(pause())
            for n in range(20):
                await process.execute(AddTask(task_id=f"{n:02}", call_after=0))
            resumed_at = seconds()
            await process.execute(resume(rate=2))
            await until(lambda: len(world.calls) == 10)
            await process.execute(AddTask(task_id="new", call_after=0))
            await until(lambda: len(world.calls) == 21)
            await until(lambda: state(world) is PauseState.RESUMED)
            at = [each - resumed_at for _, each in world.calls]
            assert all(later - before >= 0.45 for before, later in pairwise(at))
            assert at[-1] <= 11
            for n in range(5):
                await process.execute(AddTask(task_id=f"after {n}", call_after=0))
            await until(lambda: len(world.calls) == 26, seconds=0.1)

    run(scenario())


def test_rate_holds_in_any_second_with_many_rows() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(pause(target="telephone"))
            for n in range(150):
                await process.execute(AddTask(task_id=f"{n:03}", call_after=0))
            await process.execute(resume(rate=50))
            await until(lambda: len(world.calls) == 150)
        at = [each for _, each in world.calls]
        assert max(sum(t <= other < t + 1 for other in at) for t in at) <= 50 * 1.1 + 1
        assert at[-1] - at[0] <= 3.2

    run(scenario())


def test_rate_survives_a_kill() -> None:
    async def scenario() -> None:
        world = World()
        first = RunningProcess(world.process())
        await first.started()
        await first.process.execute(pause())
        for n in range(10):
            await first.process.execute(AddTask(task_id=f"{n}", call_after=0))
        await first.process.execute(resume(rate=1))
        await until(lambda: len(world.calls) == 3)
        first.kill()
        async with running(world.process()):
            await until(lambda: len(world.calls) == 10)
        at = [each for _, each in world.calls]
        assert all(later - before >= 0.9 for before, later in pairwise(at))

    run(scenario())


@pytest.mark.parametrize(
    ("ahead_seconds", "allowed"),
    [(0.0, 1), (0.01, 0), (0.02, 0), (0.021, 1), (8 * 3600, 1)],
)
def test_next_start_far_ahead_was_written_by_another_clock(
    ahead_seconds: float, allowed: int
) -> None:
    """A rate of 50 has its next start 20 ms ahead at most: who waited longer would wait for a clock."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    ended = PauseRecord(
        id="p1",
        target="service",
        paused_at=now,
        paused_by="bob",
        reason="a test",
        resumed_at=now,
        resumed_by="bob",
        rate=50,
        next_at=now + timedelta(seconds=ahead_seconds),
    )
    assert Allowance([ended], now).limit([ended], wanted=10) == allowed


def test_other_replica_knows_of_a_pause_within_a_second() -> None:
    async def scenario() -> None:
        world = World()
        world.database.exclusive = False
        async with running(world.process()) as one, running(world.process()) as other:
            await one.execute(pause())
            await asyncio.sleep(1.01)
            await other.execute(AddTask(task_id="x", call_after=0))
            await asyncio.sleep(100)
            assert world.calls == []
            await one.execute(resume())
            await until(lambda: world.called == ["x"], seconds=1.1)

    run(scenario())


def test_refused_commands_change_nothing_and_say_why() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            with pytest.raises(UnknownPauseTarget, match="it has service, telephone"):
                await process.execute(pause(target="fax"))
            with pytest.raises(UnknownPause, match="no pause 'p9'"):
                await process.execute(resume("p9"))
            await process.execute(pause())
            await process.execute(resume())
            with pytest.raises(NotPaused, match="resumed by bob"):
                await process.execute(resume())

    run(scenario())


def test_repeated_request_is_answered_as_the_first_time() -> None:
    async def scenario() -> None:
        world = World()
        key = IdempotencyKey("k1", "f1")
        async with running(world.process()) as process:
            first: PauseRecord = await process.execute(pause("p1"), key=key)
            again: PauseRecord = await process.execute(pause("p2"), key=key)
            assert again == first
            with pytest.raises(IdempotencyKeyReused):
                await process.execute(pause("p3"), key=IdempotencyKey("k1", "f2"))
            ending = IdempotencyKey("k2", "f1", frozenset({NotPaused}))
            await process.execute(resume(), key=ending)
            assert (await process.execute(resume(), key=ending)).state is PauseState.RESUMED
            refused = IdempotencyKey("k3", "f1", frozenset({NotPaused}))
            for _ in range(2):
                with pytest.raises(NotPaused):
                    await process.execute(resume(), key=refused)

    run(scenario())


def test_service_that_is_not_paused_reads_no_pauses() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="first", call_after=0))
            with listening() as statements:
                for n in range(5):
                    await process.execute(AddTask(task_id=f"{n}", call_after=0))
            assert not any("pause" in each for each in statements)

    run(scenario())


def test_metric_counts_what_is_paused() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            registry = CollectorRegistry()
            registry.register(EngineMetrics(process))
            assert registry.get_sample_value("todoku_pauses") == 0
            await process.execute(pause())
            await until(lambda: registry.get_sample_value("todoku_pauses") == 1)
            await process.execute(resume())
            await until(lambda: registry.get_sample_value("todoku_pauses") == 0)

    run(scenario())


def state(world: World) -> PauseState:
    with world.database.read() as connection:
        pauses = world.service.store.tables.pauses.page(connection, limit=10)
    return pauses[0].state
