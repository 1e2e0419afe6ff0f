"""The stream counts as a subscriber of every event that no service subscribes to."""

import pytest
from sqlalchemy import select

from engine.test_agendas import AddTask, Reminded, World, after
from todoku.engine import STREAM, Topology
from todoku.engine.testing import RunningProcess, make_process, run, running, until


def pending(world: World) -> list[str]:
    """Return for whom events wait in the outbox."""
    outbox = world.service.store.tables.outbox.table
    with world.database.read() as connection:
        return list(connection.scalars(select(outbox.c.reader)))


def test_event_without_subscribers_waits_until_the_broker_has_stored_it() -> None:
    async def scenario() -> None:
        world = World()
        async with running(world.process()) as process:
            await until(lambda: process.connected)
            world.broker.stop()
            await process.execute(AddTask(task_id="x", remind_at=after(5)))
            await until(lambda: pending(world) == [STREAM])
            world.broker.start()
            await until(lambda: pending(world) == [])
            assert len(world.published(Reminded)) == 1

    run(scenario())


def test_event_without_subscribers_survives_a_crash_between_commit_and_publish() -> None:
    class Killed(BaseException):
        """As by `kill -9`."""

    def die(point: str) -> None:
        if point == "before-publish":
            raise Killed

    async def scenario() -> None:
        world = World()
        first = RunningProcess(
            make_process(
                world.service,
                world.broker,
                Topology([world.service]),
                world.database,
                owner="tasks-0",
                failpoint=die,
            )
        )
        await first.started()
        await until(lambda: first.process.connected)
        await first.process.execute(AddTask(task_id="x", remind_at=after(5)))
        await until(lambda: pending(world) == [STREAM])
        with pytest.raises(Killed):
            await first.ended()
        assert world.published(Reminded) == []
        async with running(world.process()):
            await until(lambda: len(world.published(Reminded)) == 1)
            await until(lambda: pending(world) == [])

    run(scenario())


def test_lost_notice_that_it_is_stored_costs_one_repeat() -> None:
    async def scenario() -> None:
        world = World()
        first = RunningProcess(world.process())
        await first.started()
        first.process.relay._on_stored = lambda _: None
        await first.process.execute(AddTask(task_id="x", remind_at=after(5)))
        await until(lambda: len(world.published(Reminded)) == 1)
        await first.stop()
        assert pending(world) == [STREAM]
        async with running(world.process()):
            await until(lambda: pending(world) == [])
        assert len(world.published(Reminded)) == 2

    run(scenario())


def test_process_with_a_dead_loop_is_not_ready() -> None:
    async def scenario() -> None:
        world = World()
        running_process = RunningProcess(world.process())
        await running_process.started()
        process = running_process.process
        assert process.ready

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        process.writer.step = broken  # type: ignore[method-assign,assignment]
        process.mailbox.wake()
        await until(lambda: not process.ready)
        with pytest.raises(ZeroDivisionError):
            await running_process.ended()

    run(scenario())
