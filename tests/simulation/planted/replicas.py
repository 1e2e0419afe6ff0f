"""Bugs: two processes of a service get in each other's way, on a database that they share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import delete, insert, select, update

from simulation import planting
from simulation.planting import (
    Wrapped,
    mutant_of_crowds_at_replicas,
    mutant_of_pairs,
    mutant_of_replicas,
)
from todoku.engine.tables import LEASE_AHEAD_MAX
from todoku.inventory import store
from todoku.lab.simulation.shared_driver import SharedConnection
from todoku.lab.simulation.wiring import Wire

LOCK = "FOR UPDATE"
LOCK_IF_FREE = "FOR UPDATE SKIP LOCKED"


def locking(table: str, clause: str, instead: str) -> Wire:
    """Replace how a SELECT of a table locks the rows that it finds."""

    def execute(
        original: Callable[..., Any], sql: str, parameters: Sequence[Any]
    ) -> Any:  # As if the statement had been written so.
        words = sql.rstrip()
        if f"FROM {table} " in words and words.endswith(f"\n {clause}"):
            sql = words.removesuffix(clause) + instead
        return original(sql, parameters)

    class Database(Wrapped):
        @contextmanager
        def transaction(self) -> Iterator[Any]:
            with self.inner.transaction() as connection:
                driver = connection.connection.driver_connection
                if isinstance(driver, SharedConnection):
                    driver.execute = partial(execute, driver.execute)  # type: ignore[method-assign]
                yield connection

    return planting.database(Database)


@mutant_of_replicas
def orders_not_locked() -> Wire:
    """An order is loaded without a lock."""
    return locking("orders", LOCK, "")


@mutant_of_replicas
def products_not_locked() -> Wire:
    """A product is loaded without a lock."""
    return locking("products", LOCK, "")


@mutant_of_replicas
def reservations_not_locked() -> Wire:
    """A reservation is loaded without a lock."""
    return locking("reservations", LOCK, "")


@mutant_of_replicas
def shipments_not_locked() -> Wire:
    """A shipment is loaded without a lock."""
    return locking("shipments", LOCK, "")


@mutant_of_replicas
def due_rows_not_locked() -> Wire:
    """Due rows are found without a lock."""
    return locking("shipments", LOCK_IF_FREE, "")


@mutant_of_pairs
def due_rows_waited_for() -> Wire:
    """A due row on which another process decides is waited for."""
    return locking("shipments", LOCK_IF_FREE, LOCK)


@mutant_of_replicas
def lease_not_renewed() -> Wire:
    """A process that lives does not renew its lease."""
    renewed: set[str] = set()

    class Leases(Wrapped):
        def renew(self, connection: Any, owner: str, now: Any, lease_seconds: float) -> Any:
            if owner in renewed:
                return connection.scalars(select(self.inner.table.c.owner)).all()
            renewed.add(owner)
            return self.inner.renew(connection, owner, now, lease_seconds)

    return planting.tables("leases", Leases)


@mutant_of_replicas
def lease_too_short() -> Wire:
    """A lease expires before it is renewed."""

    class Leases(Wrapped):
        def renew(self, connection: Any, owner: str, now: Any, lease_seconds: float) -> Any:
            return self.inner.renew(connection, owner, now, lease_seconds / 5)

    return planting.tables("leases", Leases)


@mutant_of_pairs
def lease_of_a_wrong_clock_kept() -> Wire:
    """A process whose clock was hours ahead, and which has ended, counts as alive for hours."""

    class Leases(Wrapped):
        def renew(self, connection: Any, owner: str, now: Any, lease_seconds: float) -> Any:
            leases = self.inner.table
            latest = now + timedelta(seconds=lease_seconds) + LEASE_AHEAD_MAX
            ahead = connection.execute(
                select(leases).where(leases.c.expires_at > latest, leases.c.owner != owner)
            ).all()
            alive = self.inner.renew(connection, owner, now, lease_seconds)
            for row in ahead:
                connection.execute(insert(leases), row._asdict())
            return [*alive, *(row.owner for row in ahead)]

    return planting.tables("leases", Leases)


@mutant_of_replicas
def lease_ignored() -> Wire:
    """The events of a process that lives are adopted."""

    class Outbox(Wrapped):
        def adopt(self, connection: Any, new_owner: str, position: int, alive: Any) -> Any:
            return self.inner.adopt(connection, new_owner, position, alive and [])

    return planting.tables("outbox", Outbox)


@mutant_of_replicas
def owners_positions_ignored() -> Wire:
    """A process that starts overlooks what others have handled: only what dead processes have is common."""

    class Positions(Wrapped):
        def reached(self, connection: Any, stream: Any) -> int:
            common = self.inner.table
            sequence = select(common.c.sequence).where(common.c.incarnation == stream.stream_epoch)
            return connection.scalar(sequence) or 0

    return planting.tables("positions", Positions)


@mutant_of_replicas
def positions_of_the_dead_forgotten() -> Wire:
    """The positions of dead processes are deleted, and merged into nothing."""

    class Positions(Wrapped):
        def merge_dead(self, connection: Any, alive: Any) -> None:
            owned = self.inner.by_owner
            connection.execute(delete(owned).where(owned.c.owner.not_in(alive)))

    return planting.tables("positions", Positions)


def amounts(save_last: Callable[[Any, Any, Any], None]) -> Wire:
    """Replace how inventory writes the amounts of products that it has not locked:
    `save_last(original, connection, unit_of_work)`."""

    class Store(Wrapped):
        def save_last(self, connection: Any, unit_of_work: Any) -> None:
            if unit_of_work.floors is not None:
                save_last(self.inner.save_last, connection, unit_of_work)

    return planting.store(Store, "inventory")


@mutant_of_replicas
def difference_added_twice() -> Wire:
    """How a batch has moved the stock is added twice."""

    def twice(original: Callable[..., None], connection: Any, unit_of_work: Any) -> None:
        original(connection, unit_of_work)
        original(connection, unit_of_work)

    return amounts(twice)


@mutant_of_crowds_at_replicas
def amounts_written_as_read() -> Wire:
    """The amounts are written that follow from what was read, over what others have written since."""

    def absolute(original: Callable[..., None], connection: Any, unit_of_work: Any) -> None:
        original(connection, unit_of_work)
        table = store.products
        for key, after in unit_of_work.products.items():
            if after is not unit_of_work.products_before[key]:
                connection.execute(
                    update(table)
                    .where(table.c.id == key)
                    .values(stock_quantity=after.on_hand, reserved_quantity=after.reserved)
                )

    return amounts(absolute)


@mutant_of_crowds_at_replicas
def what_was_read_not_checked() -> Wire:
    """Differences are added whether or not so many pieces are left as the decisions took for granted."""

    def unchecked(_: Callable[..., None], connection: Any, unit_of_work: Any) -> None:
        table = store.products
        for key, after in sorted(unit_of_work.products.items()):
            before = unit_of_work.products_before[key]
            if after is before:
                continue
            connection.execute(select(table.c.id).where(table.c.id == key).with_for_update())
            connection.execute(
                update(table)
                .where(table.c.id == key)
                .values(
                    stock_quantity=table.c.stock_quantity + after.on_hand - before.on_hand,
                    reserved_quantity=table.c.reserved_quantity + after.reserved - before.reserved,
                )
            )

    return amounts(unchecked)
