"""The metrics of running services: what they show, and that reading them is cheap."""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from sqlalchemy import Connection

from engine.statements import listening
from system.test_dead_letters import GARBAGE, parked
from system.test_process import PRODUCT, Town, in_town, order_id, place
from todoku.database import DatabaseUnavailable
from todoku.engine import DatabaseMetrics, Process
from todoku.engine.readings import engine_readings
from todoku.engine.testing import START, inline, until
from todoku.orders.domain import OrderStatus
from todoku.orders.holding import HoldOrder, NewHold
from todoku.service_metrics import ServiceMetrics
from todoku.shipping.domain import Unknown
from todoku.system import system
from todoku.web import Backend, application

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
TEN_HOURS = 36_000

WORK_LISTS = ("catalogue_publications", "due_queues")
"""Tables that hold only what is due: every batch reads them in the same way."""


def backend_of(town: Town, process: Process) -> Backend:
    database: Any = town.disks[process.service.name]
    return Backend(process=process, database=database, run_read=inline)


async def scraped(town: Town, process: Process) -> CollectorRegistry:
    """Return the metrics of a process as they are now."""
    descriptor = system[process.service.name]
    metrics = ServiceMetrics.of(descriptor, process, backend_of(town, process))
    await metrics.refresh()
    registry = CollectorRegistry()
    for collector in metrics.collectors:
        registry.register(collector)
    return registry


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    async def scenario(town: Town) -> None:
        served: set[str] = set()
        for descriptor in system:
            process = await town.start(descriptor.name)
            backend = backend_of(town, process)
            metrics = ServiceMetrics.of(descriptor, process, backend)
            app = application(
                descriptor.build_api(backend),
                backend,
                collectors=metrics.collectors,
                refresh=metrics.refresh,
            )
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                text = (await http.get("/metrics")).text
            served |= set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
        documented = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
        assert {name for name in served if not name.endswith("_created")} == documented

    in_town(scenario)


def test_orders_are_counted_and_their_time_to_the_end_is_measured() -> None:
    async def scenario(town: Town) -> None:
        orders, inventory, _ = [await town.start(name) for name in town.services]
        value = (await scraped(town, orders)).get_sample_value
        # Counters are those of the Python process, in which other tests have run.
        accepted, ended, seconds = _counted(value)
        await inventory.execute(PRODUCT)
        await orders.execute(place())
        await until(lambda: town.statuses()[order_id()] == OrderStatus.COMPLETED)
        assert _counted(value)[:2] == (accepted + 1, ended + 1)
        assert 0 <= _counted(value)[2] - seconds < 10
        after = await scraped(town, orders)
        assert after.get_sample_value("todoku_orders_open", {"status": "PENDING"}) == 0

    in_town(scenario)


def _counted(value: Callable[..., float | None]) -> tuple[float, float, float]:
    completed = {"status": "COMPLETED"}
    return (
        value("todoku_orders_accepted_total") or 0,
        value("todoku_order_duration_seconds_count", completed) or 0,
        value("todoku_order_duration_seconds_sum", completed) or 0,
    )


def test_an_order_that_does_not_end_shows_its_age_and_what_is_awaited() -> None:
    async def scenario(town: Town) -> None:
        orders = await town.start("orders")
        await orders.execute(place())
        await asyncio.sleep(TEN_HOURS)
        registry = await scraped(town, orders)
        value = registry.get_sample_value
        assert value("todoku_orders_open", {"status": "PENDING"}) == 1
        assert (value("todoku_orders_oldest_open_seconds", {"status": "PENDING"}) or 0) >= TEN_HOURS
        assert value("todoku_orders_overdue") == 1
        inventory = {"subscriber": "inventory"}
        assert value("todoku_outbox_pending_deliveries", inventory) == 1
        assert (value("todoku_outbox_oldest_pending_seconds", inventory) or 0) >= TEN_HOURS
        assert (value("todoku_subscriber_lag_events", inventory) or 0) >= 1
        assert value("todoku_outbox_pending_deliveries", {"subscriber": "shipping"}) == 0

    in_town(scenario)


def test_a_held_order_is_counted_with_its_age() -> None:
    async def scenario(town: Town) -> None:
        orders = await town.start("orders")
        await orders.execute(place())
        hold = NewHold(holder="fraud", reason="review")
        await orders.execute(HoldOrder(order_id=order_id(), hold_id=order_id(9), hold=hold))
        await asyncio.sleep(60)
        registry = await scraped(town, orders)
        assert registry.get_sample_value("todoku_orders_held") == 1
        assert (registry.get_sample_value("todoku_orders_oldest_hold_seconds") or 0) >= 60

    in_town(scenario)


def test_parked_messages_are_counted_by_the_shape_of_their_error() -> None:
    async def scenario(town: Town) -> None:
        orders = await town.start("orders")
        town.publish(GARBAGE, GARBAGE + b"!")
        letter = await parked(town, "orders", 2)
        registry = await scraped(town, orders)
        group = {"error_group": letter.error_group, "error_class": "UndecodableEvent"}
        assert registry.get_sample_value("todoku_dead_letters_parked") == 2
        assert registry.get_sample_value("todoku_dead_letter_group_size", group) == 2

    in_town(scenario)


def test_a_carrier_that_does_not_answer_shows() -> None:
    async def scenario(town: Town) -> None:
        town.courier.answers = [Unknown("no route")] * 1_000
        orders, inventory, shipping = [await town.start(name) for name in town.services]
        await inventory.execute(PRODUCT)
        await orders.execute(place())
        await until(lambda: len(town.courier.calls) > 2)
        registry = await scraped(town, shipping)
        assert registry.get_sample_value("todoku_shipments_open", {"status": "BOOKING"}) == 1
        assert registry.get_sample_value("todoku_shipments_failing") == 1
        unknown = {"answer": "unknown"}
        assert (registry.get_sample_value("todoku_carrier_calls_total", unknown) or 0) >= 2

    in_town(scenario)


def test_batches_are_measured() -> None:
    async def scenario(town: Town) -> None:
        orders = await town.start("orders")
        await orders.execute(place())
        registry = await scraped(town, orders)
        batches = registry.get_sample_value("todoku_batches_total")
        assert registry.get_sample_value("todoku_batch_messages_count") == batches
        assert registry.get_sample_value("todoku_batch_duration_seconds_count") == batches

    in_town(scenario)


def test_commits_are_measured() -> None:
    async def scenario(town: Town) -> None:
        seconds: list[float] = []
        database = town.disks["orders"].database
        database.observe_commit = seconds.append
        with database.transaction():
            assert not seconds
        assert len(seconds) == 1
        with pytest.raises(ZeroDivisionError), database.transaction():
            raise ZeroDivisionError
        assert len(seconds) == 1

    in_town(scenario)


@pytest.mark.parametrize("name", system.names)
def test_no_reading_scans_a_table(name: str) -> None:
    async def scenario(town: Town) -> None:
        process = await town.start(name)
        with listening() as statements:
            await scraped(town, process)
        reading = [each for each in statements if each.lstrip().upper().startswith("SELECT")]
        assert reading
        with town.disks[name].database.read() as connection:
            scans = {each: _scans(connection, each) for each in reading}
        assert not {each: found for each, found in scans.items() if found}

    in_town(scenario)


def _scans(connection: Connection, statement: str) -> list[str]:
    """Return where SQLite would read all of a table, rather than a part of it by an index."""
    values = tuple("1" for _ in range(statement.count("?")))
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    steps = [row[-1] for row in plan]
    steps = [step for step in steps if not step.endswith(WORK_LISTS)]
    return [step for step in steps if re.match(r"SCAN (?!anon|\(|CONSTANT|.*USING.* INDEX)", step)]


def test_a_database_that_does_not_answer_delays_no_scrape_for_long() -> None:
    async def scenario(town: Town) -> None:
        async def never(query: Any) -> list[Metric]:
            await asyncio.Event().wait()
            raise AssertionError

        process = await town.start("orders")
        readings = engine_readings(process, town.disks["orders"].database)
        metrics = DatabaseMetrics(readings, never, process.clock.now)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await metrics.refresh()
        assert loop.time() - began < 3
        assert [metric.name for metric in metrics.collect()] == [
            "todoku_database_metrics_age_seconds"
        ]

    in_town(scenario)


def test_a_database_that_is_unavailable_fails_no_scrape() -> None:
    async def scenario(town: Town) -> None:
        async def failing(query: Any) -> list[Metric]:
            raise DatabaseUnavailable("it does not answer")

        metrics = DatabaseMetrics([], failing, lambda: START + timedelta(1))
        await metrics.refresh()
        (age,) = metrics.collect()
        assert not age.samples

    in_town(scenario)
