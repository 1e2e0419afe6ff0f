"""Several agendas in one service: their budgets, their contexts, and what a restart keeps."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
import pytest
from sqlalchemy import Column, Connection, MetaData, Text, insert, select

from engine.statements import listening
from todoku.database import Database, Timestamp, table
from todoku.engine import Agenda, EngineConfig, KeyedStore, Service, Topology, context_column
from todoku.engine.testing import (
    START,
    MemoryBroker,
    RunningProcess,
    make_process,
    memory_database,
    run,
    running,
    until,
)
from todoku.events import Context, Event

CONTEXT = Context("alice", "00-trace-01", "vendor=1")


class Reminded(Event, frozen=True, kw_only=True):
    """A deadline has passed."""

    subject: ClassVar[str] = "tasks.reminded"
    publisher: ClassVar[str] = "tasks"
    key_field: ClassVar[str] = "task_id"

    task_id: str


class Called(Event, frozen=True, kw_only=True):
    """The call outside was made."""

    subject: ClassVar[str] = "tasks.called"
    publisher: ClassVar[str] = "tasks"
    key_field: ClassVar[str] = "task_id"

    task_id: str


class AddTask(msgspec.Struct, frozen=True, kw_only=True):
    task_id: str
    call_at: datetime | None = None
    remind_at: datetime | None = None


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
    context_column(),
)

Outputs = Sequence[object]


def add_task(task: Task | None, command: AddTask, now: datetime) -> tuple[Task, Outputs]:
    return Task(task_id=command.task_id, call_at=command.call_at, remind_at=command.remind_at), []


def start_call(task: Task, now: datetime) -> tuple[Task, Outputs]:
    claimed = msgspec.structs.replace(task, call_at=now + timedelta(seconds=60))
    return claimed, [Call(task.task_id)]


def note_called(task: Task, command: NoteCalled, now: datetime) -> tuple[Task, Outputs]:
    return msgspec.structs.replace(task, call_at=None), [Called(task_id=task.task_id)]


def remind(task: Task, now: datetime) -> tuple[Task, Outputs]:
    return msgspec.structs.replace(task, remind_at=None), [Reminded(task_id=task.task_id)]


class World:
    """The service, its broker and its database, and the calls that it makes outside."""

    def __init__(self, call_seconds: float = 0.0, **reminders: float) -> None:
        self.calls: list[str] = []
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
                ),
                Agenda(
                    due_at=tasks.c.remind_at,
                    key=tasks.c.task_id,
                    decide=remind,
                    due_at_of=attrgetter("remind_at"),
                    key_of=attrgetter("task_id"),
                    **reminders,
                ),
            ],
            effects={Call: self.call},
            publishes=(Reminded, Called),
        )
        self.database: Database = memory_database(self.service)
        self.starts = 0

    async def call(self, effect: Call) -> NoteCalled:
        self.calls.append(effect.task_id)
        await asyncio.sleep(self.call_seconds)
        return NoteCalled(task_id=effect.task_id)

    def process(self, **config: Any) -> Any:
        self.starts += 1
        return make_process(
            self.service,
            self.broker,
            Topology([self.service]),
            self.database,
            owner=f"tasks-{self.starts}",
            config=EngineConfig(**config),
        )

    def published(self, event: type[Event]) -> list[dict[str, Any]]:
        return [
            msgspec.json.decode(message.body)
            for message in self.broker.messages.values()
            if message.subject == event.subject
        ]


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_deadline_fires_while_all_effect_slots_are_taken() -> None:
    async def scenario() -> None:
        world = World(call_seconds=1_000)
        async with running(world.process(effects_max=1, effect_timeout_seconds=2_000)) as process:
            for n in range(3):
                await process.execute(AddTask(task_id=f"call {n}", call_at=after(1)))
            await until(lambda: len(world.calls) == 1)
            await process.execute(AddTask(task_id="deadline", remind_at=after(5)))
            await until(lambda: len(world.published(Reminded)) == 1, seconds=10)
            assert len(world.calls) == 1

    run(scenario())


def test_due_row_of_a_process_that_is_gone_is_found() -> None:
    """On a shared database, also by a process that has nothing else to do."""

    async def scenario() -> None:
        world = World()
        world.database.exclusive = False
        async with running(world.process()) as process:
            await until(lambda: process.counts.batches > 0)  # It has looked, and waits.
            with world.database.transaction() as connection:
                connection.execute(insert(tasks).values(task_id="x", remind_at=after(2)))
            await until(lambda: len(world.published(Reminded)) == 1, seconds=10)

    run(scenario())


def test_one_task_may_be_on_two_agendas() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="x", call_at=after(2), remind_at=after(2)))
            await until(lambda: len(world.published(Reminded)) == 1)
            await until(lambda: len(world.published(Called)) == 1)

    run(scenario())


@pytest.mark.parametrize("agenda", ["call_at", "remind_at"])
def test_context_of_command_reaches_event_of_due_row(agenda: str) -> None:
    async def scenario() -> None:
        world = World()
        event = Called if agenda == "call_at" else Reminded
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="x", **{agenda: after(9)}), CONTEXT)
            await until(lambda: len(world.published(event)) == 1)
        (message,) = world.published(event)
        assert Context(message["actor"], message["traceparent"], message["tracestate"]) == CONTEXT

    run(scenario())


def test_context_survives_a_kill_between_claim_and_answer() -> None:
    async def scenario() -> None:
        world = World(call_seconds=1_000)
        first = RunningProcess(world.process(effect_timeout_seconds=2_000))
        await first.started()
        await first.process.execute(AddTask(task_id="x", call_at=after(1)), CONTEXT)
        await until(lambda: world.calls == ["x"])
        first.kill()
        world.call_seconds = 0
        async with running(world.process()):
            await until(lambda: len(world.published(Called)) == 1)
        (message,) = world.published(Called)
        assert (message["actor"], message["traceparent"]) == ("alice", "00-trace-01")
        assert world.calls == ["x", "x"]

    run(scenario())


def test_row_without_context_has_none_and_costs_no_statement() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="x", remind_at=after(1)))
            await until(lambda: len(world.published(Reminded)) == 1)
        assert "actor" not in world.published(Reminded)[0]
        with world.database.read() as connection:
            assert contexts(connection) == [None]

    run(scenario())


def contexts(connection: Connection) -> list[str | None]:
    return list(connection.scalars(select(tasks.c.context)))


def test_row_that_fell_due_while_nothing_ran_waits_for_the_period_of_grace() -> None:
    async def scenario() -> None:
        world = World(grace_seconds=60)
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="x", remind_at=after(100)))
        await asyncio.sleep(1_000)
        started_at = asyncio.get_running_loop().time()
        async with running(world.process()):
            await until(lambda: len(world.published(Reminded)) == 1, every_seconds=1, seconds=90)
            waited = asyncio.get_running_loop().time() - started_at
        assert 60 <= waited <= 62

    run(scenario())


def test_row_that_is_due_at_once_waits_for_the_period_of_grace_too() -> None:
    async def scenario() -> None:
        world = World(grace_seconds=60)
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="x", remind_at=after(0)))
            assert world.published(Reminded) == []
            await asyncio.sleep(65)
            assert len(world.published(Reminded)) == 1
            await process.execute(AddTask(task_id="y", remind_at=after(0)))
            await until(lambda: len(world.published(Reminded)) == 2)

    run(scenario())


def test_rows_far_ahead_cost_most_batches_no_statement() -> None:
    async def scenario() -> None:
        world = World(look_seconds=30)
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="far", remind_at=after(86_400)))
            with listening() as statements:
                for n in range(5):
                    await process.execute(AddTask(task_id=f"task {n}"))
            assert not any("min(tasks.remind_at)" in each for each in statements)
            assert not any("tasks.remind_at <=" in each for each in statements)
            assert any("min(tasks.call_at)" in each for each in statements), "the other agenda"

    run(scenario())


def test_own_row_is_on_time_although_rows_are_rarely_looked_for() -> None:
    async def scenario() -> None:
        world = World(look_seconds=3_000)
        async with running(world.process()) as process:
            await process.execute(AddTask(task_id="far", remind_at=after(86_400)))
            await process.execute(AddTask(task_id="near", remind_at=after(50)))
            await asyncio.sleep(49)
            assert world.published(Reminded) == []
            await asyncio.sleep(2)
            assert [message["subject"] for message in world.published(Reminded)] == ["near"]

    run(scenario())


def test_row_of_another_process_is_found_at_the_next_look() -> None:
    async def scenario() -> None:
        world = World(look_seconds=30)
        async with running(world.process()):
            await asyncio.sleep(1)
            with world.database.transaction() as connection:
                connection.execute(insert(tasks).values(task_id="theirs", remind_at=after(2)))
            await until(lambda: len(world.published(Reminded)) == 1, every_seconds=1, seconds=35)

    run(scenario())
