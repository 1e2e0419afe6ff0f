"""On PostgreSQL a batch of any size costs a constant number of statements, in few round trips."""

from collections.abc import Sequence
from typing import Any, Final

import pytest

from engine.statements import listening
from system.test_statement_counts import CASES, INVENTORY, NOW, ORDERS, SHIPPING
from todoku.database import Database
from todoku.engine import Topology
from todoku.engine.messages import Message
from todoku.engine.writer import Writer

SIZES: Final = (1, 1, 50)
"""The first batch of a process also reads its position in the stream."""
ROUND_TRIPS_MAX: Final = {
    "placing": 2,
    "placing with keys": 3,
    "reserved": 3,
    "initiated": 3,
    "completed": 3,
    "created, in stock": 3,
    "deducting": 3,
    "initiating": 3,
}
"""The decisions on a plain order. Each batch reads what is known of its messages, then the states, and then
writes and commits, with which it asks when the next row is due."""


def cost(database: Database, writer: Writer, batch: Sequence[Message]) -> tuple[int, int]:
    """Return how many statements and how many round trips a batch costs."""
    with database.transaction() as connection:
        session: Any = connection.connection.driver_connection
    before = session.round_trips
    with listening() as statements:
        actions = writer.step(batch, NOW, 0)
    assert actions.naks == []
    assert [error for _, error in actions.answers if isinstance(error, Exception)] == []
    return len(statements), session.round_trips - before


@pytest.mark.parametrize("case", ROUND_TRIPS_MAX)
def test_batch_of_any_size_costs_the_same_few_round_trips(postgres_url: str, case: str) -> None:
    service, before, make = CASES[case]
    with Database.open(postgres_url) as database:
        with database.schema_change() as connection:
            service.store.metadata.create_all(connection)
        writer = Writer(service, database, Topology((ORDERS, INVENTORY, SHIPPING)), owner="test")
        writer.step([], NOW, 0)  # It looks when due rows are due next.
        costs = []
        first = 0
        for size in SIZES:
            numbers = range(first, first + size)
            for earlier in before:
                writer.step(
                    [earlier(n) for n in (*numbers, *range(numbers.stop, numbers.stop + 3))], NOW, 0
                )
            costs.append(cost(database, writer, [make(n) for n in numbers]))
            first = numbers.stop + 10
    _, (statements, round_trips), larger = costs
    assert larger == (statements, round_trips)
    assert round_trips <= ROUND_TRIPS_MAX[case]
