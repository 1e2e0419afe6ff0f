"""Test what happens between two statements of a transaction, on a database that processes share."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select

from todoku.engine.due_rows import DueRows
from todoku.engine.tables import PendingDelivery
from todoku.inventory.store import InventoryStore
from todoku.lab.simulation import SimulationPlan, simulate
from todoku.lab.simulation.database import empty_shared_database
from todoku.lab.simulation.row_locks import Row
from todoku.lab.simulation.shared_driver import shared_engine
from todoku.lab.simulation.shared_storage import SharedStorage
from todoku.shipping.service import bookings
from todoku.shipping.store import shipments

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OUTBOX = InventoryStore.tables.outbox


def refuse(row: Row) -> None:
    pytest.fail(f"{row} was changed without a lock")


def pending(event_id: str) -> PendingDelivery:
    return PendingDelivery(event_id, "inventory.reserved", b"{}", ("orders",))


def test_row_committed_during_adoption_stays_with_its_owner() -> None:
    """The owner's lease has expired, and it lives: the new row must not get a position that the adopting
    process gives to its next event."""
    storage = SharedStorage(empty_shared_database("todoku.inventory"), refuse)
    owner = shared_engine(storage, lambda: None)
    statements: list[int] = []

    def before_statement() -> None:
        statements.append(1)
        if len(statements) == 2:  # Between looking for rows and moving them.
            with owner.begin() as connection:
                OUTBOX.add(connection, "a", 1, [pending("second")], NOW)

    with owner.begin() as connection:
        OUTBOX.add(connection, "a", 0, [pending("first")], NOW)
    with shared_engine(storage, before_statement).begin() as connection:
        last = OUTBOX.adopt(connection, "b", 10, alive=[])

    columns = OUTBOX.table.c
    with owner.begin() as connection:
        rows = connection.execute(select(columns.event_id, columns.owner, columns.position)).all()
    assert last == 11
    assert set(map(tuple, rows)) == {("first", "b", 11), ("second", "a", 2)}


def test_due_row_that_another_process_has_locked_is_looked_for_later() -> None:
    """It is due still: looking for it at once, again and again, would keep the process busy."""
    storage = SharedStorage(empty_shared_database("todoku.shipping"), refuse)
    engine = shared_engine(storage, lambda: None)
    due_rows = [DueRows([bookings()], shared=True) for _ in range(2)]
    with engine.begin() as connection:
        shipment = {"id": "s", "order_id": "o", "number": 1, "status": "INITIATED", "attempts": 0}
        times = {"due_at": NOW, "created_at": NOW, "updated_at": NOW}
        connection.execute(insert(shipments).values(**shipment, **times, shipping_address=""))

    with engine.begin() as one, engine.begin() as other:
        found = [each.find(c, NOW, 10) for each, c in zip(due_rows, (one, other), strict=True)]
        next_due = due_rows[1].next_due(other, NOW)

    assert [[due.key for due in each] for each in found] == [["o"], []]
    assert next_due.effects_at == NOW + timedelta(seconds=1)


@pytest.mark.parametrize("seed", range(1, 7))
def test_no_seed_breaks_an_invariant_with_partitions(seed: int) -> None:
    """With one number of them, and while operators change it."""
    plan = SimulationPlan(seed=seed, replicas=3, partitions=(seed % 2) * 3)
    assert simulate(plan).violations == ()


@pytest.mark.parametrize("seed", range(1, 13))
def test_no_seed_breaks_an_invariant_with_replicas(seed: int) -> None:
    assert simulate(SimulationPlan(seed=seed, replicas=2 + seed % 2)).violations == ()
