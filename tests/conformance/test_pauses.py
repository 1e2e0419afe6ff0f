"""Pauses and still timers are kept alike in SQLite and in PostgreSQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

import pytest
from sqlalchemy import insert, select, text, update

from todoku.database import Database, DatabaseError, migrate
from todoku.engine import Pause, PauseRecord, PauseState, Resume, Topology
from todoku.engine.copies import BY
from todoku.engine.messages import PendingCommand
from todoku.engine.stream_positions import MARK_COPY
from todoku.engine.writer import Writer
from todoku.settings import Settings
from todoku.shipping.domain import RecordAnswer, Unknown
from todoku.shipping.service import shipping_service
from todoku.shipping.store import shipment_items, shipments

ADDED_SINCE = (
    *("pauses", "paused_timers", "api_keys", "audit_log", "audit_names", "audit_anchors"),
    *("erasures", "owner_positions"),
)
"""The tables that shipping has since its migration 0006."""

shipping = shipping_service(Settings())

NOW: Final = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
PAUSES: Final = shipping.store.tables.pauses
TIMERS: Final = shipping.store.tables.paused_timers


@pytest.fixture(params=["sqlite_url", "postgres_url"], ids=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database of shipping."""
    with Database.open(request.getfixturevalue(request.param)) as database:
        migrate(database, "todoku.shipping")
        yield database


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def writer(database: Database, owner: str = "one") -> Writer:
    return Writer(shipping, database, Topology([shipping]), owner=owner)


def pause(n: int = 1, target: str = "carrier") -> Pause:
    return Pause(id=f"pause {n}", target=target, by="alice", reason="closed")


def pack(database: Database, **products: list[str]) -> None:
    """Put one piece of each of these products into the parcels of orders."""
    rows = [
        {"shipment_id": f"shipment {order}", "product_id": product, "quantity": 1}
        for order, those in products.items()
        for product in those
    ]
    with database.transaction() as connection:
        connection.execute(insert(shipment_items), rows)


def booked(one: Writer, now: datetime) -> list[str]:
    """Return the orders whose carrier is called now."""
    return [pending.effect.order_id for pending in one.step([], now, 100).effects]


def add_shipments(database: Database, **due: float) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": f"shipment {order}",
            "order_id": order,
            "number": 1,
            "status": "INITIATED",
            "attempts": 0,
            "due_at": at(seconds),
            "shipping_address": "",
            "created_at": NOW,
            "updated_at": NOW,
        }
        for order, seconds in due.items()
    ]
    with database.transaction() as connection:
        connection.execute(insert(shipments), rows)


def due_in(database: Database) -> dict[str, float]:
    with database.read() as connection:
        found = connection.execute(select(shipments.c.order_id, shipments.c.due_at))
        return {order: (due_at - NOW).total_seconds() for order, due_at in found}


def test_resume_pushes_each_timer_by_as_long_as_it_stood_still(database: Database) -> None:
    one = writer(database)
    add_shipments(database, before=10.5, meanwhile=40)
    one.separate_commands.execute_pause(pause(), None, at(0))
    with database.transaction() as connection:
        TIMERS.note(connection, {"shipments.due_at": {"meanwhile"}}, at(30))
    resumed = one.separate_commands.execute_pause(
        Resume(pause_id="pause 1", by="bob"), None, at(100)
    )
    assert isinstance(resumed, PauseRecord)
    assert due_in(database) == {"before": 110.5, "meanwhile": 110.0}
    with database.read() as connection:
        assert connection.execute(select(TIMERS.table)).all() == []
        assert PAUSES.get(connection, "pause 1") == resumed


def test_pause_of_a_product_stops_the_orders_that_contain_it(database: Database) -> None:
    one = writer(database)
    one.separate_commands.execute_pause(pause(target="product:tea"), None, at(0))
    add_shipments(database, tea=-3, both=-2, coffee=-1)
    pack(database, tea=["tea"], both=["coffee", "tea"], coffee=["coffee"])
    assert booked(one, at(1)) == ["coffee"]
    again = writer(database)
    again.adopt(at(2), 10)
    assert booked(again, at(2)) == []
    again.separate_commands.execute_pause(Resume(pause_id="pause 1", by="bob"), None, at(3))
    assert booked(again, at(3)) == ["tea", "both"]


def test_timers_of_other_products_run_on(database: Database) -> None:
    one = writer(database)
    add_shipments(database, tea=10, both=20, coffee=30)
    pack(database, tea=["tea"], both=["coffee", "tea"], coffee=["coffee"])
    one.separate_commands.execute_pause(pause(target="product:tea"), None, at(0))
    one.separate_commands.execute_pause(Resume(pause_id="pause 1", by="bob"), None, at(100))
    assert due_in(database) == {"tea": 110, "both": 120, "coffee": 30}


@pytest.mark.parametrize("ends", [*permutations(range(3))], ids=str)
def test_time_in_which_several_pauses_stop_a_timer_counts_once(
    database: Database, ends: tuple[int, ...]
) -> None:
    """Two products and the carrier are paused one after the other, and resumed in any sequence."""
    one = writer(database)
    targets = ("product:tea", "carrier", "product:coffee")
    add_shipments(database, tea=1_000, both=1_000, coffee=1_000, cocoa=1_000)
    pack(database, tea=["tea"], both=["coffee", "tea"], coffee=["coffee"], cocoa=["cocoa"])
    for n, target in enumerate(targets):
        one.separate_commands.execute_pause(pause(n, target), None, at(10 * n))
    ended = {n: 100 + 10 * i for i, n in enumerate(ends)}
    for n, seconds in ended.items():
        one.separate_commands.execute_pause(
            Resume(pause_id=f"pause {n}", by="bob"), None, at(seconds)
        )
    assert due_in(database) == {
        "tea": 1_000 + max(ended[0], ended[1]),
        "both": 1_000 + max(ended.values()),
        "coffee": 1_000 + max(ended[1], ended[2]) - 10,
        "cocoa": 1_000 + ended[1] - 10,
    }


def test_timer_that_is_set_while_its_product_is_paused_keeps_what_was_left(
    database: Database,
) -> None:
    one = writer(database)
    add_shipments(database, tea=500, coffee=500)
    pack(database, tea=["tea"], coffee=["coffee"])
    with database.transaction() as connection:
        connection.execute(update(shipments).values(status="BOOKING", attempts=1))
    one.separate_commands.execute_pause(pause(target="product:tea"), None, at(0))
    failed = [
        PendingCommand(RecordAnswer(order_id=order_id, answer=Unknown("no answer")), print)
        for order_id in ("tea", "coffee")
    ]
    one.step(failed, at(60), 0)
    assert due_in(database) == {"tea": 62, "coffee": 62}
    one.separate_commands.execute_pause(Resume(pause_id="pause 1", by="bob"), None, at(100))
    assert due_in(database) == {"tea": 102, "coffee": 62}


def test_rate_of_a_product_limits_its_orders_alone(database: Database) -> None:
    one = writer(database)
    add_shipments(database, **{f"{product}{n}": -1 for product in ("tea", "cup") for n in range(4)})
    pack(database, **{f"{product}{n}": [product] for product in ("tea", "cup") for n in range(4)})
    one.separate_commands.execute_pause(pause(target="product:tea"), None, at(0))
    one.separate_commands.execute_pause(Resume(pause_id="pause 1", by="bob", rate=1), None, at(0))
    assert booked(one, at(0.5)) == ["tea0", "cup0", "cup1", "cup2", "cup3"]
    assert [booked(one, at(seconds)) for seconds in (0.9, 1.6, 2.7)] == [[], ["tea1"], ["tea2"]]
    assert booked(one, at(3.8)) == ["tea3"]
    booked(one, at(5))
    with database.read() as connection:
        assert PAUSES.open(connection) == []


def test_pauses_are_listed_by_state_the_latest_first(database: Database) -> None:
    one = writer(database)
    for n in range(4):
        one.separate_commands.execute_pause(pause(n), None, at(n))
    one.separate_commands.execute_pause(Resume(pause_id="pause 0", by="bob"), None, at(10))
    one.separate_commands.execute_pause(Resume(pause_id="pause 2", by="bob", rate=5), None, at(10))
    with database.read() as connection:
        listed = {
            state: [each.id for each in PAUSES.page(connection, state=state, limit=9)]
            for state in (None, *PauseState)
        }
        page = PAUSES.page(connection, before=(at(2), "pause 2"), limit=1)
    assert listed == {
        None: ["pause 3", "pause 2", "pause 1", "pause 0"],
        PauseState.PAUSED: ["pause 3", "pause 1"],
        PauseState.RESUMING: ["pause 2"],
        PauseState.RESUMED: ["pause 0"],
    }
    assert [each.id for each in page] == ["pause 1"]


def test_rate_is_shared_by_all_processes(database: Database) -> None:
    """Each process takes what the others have left of the rate."""
    one, other = writer(database, "one"), writer(database, "other")
    add_shipments(database, **{f"order{n}": -1 for n in range(9)})
    one.separate_commands.execute_pause(pause(), None, at(0))
    one.separate_commands.execute_pause(Resume(pause_id="pause 1", by="bob", rate=2), None, at(1))
    for each in (one, other):
        each.adopt(at(1), 10)
    started = [
        (seconds, len(each.step([], at(seconds), 100).effects))
        for seconds in (1, 1.5, 1.6, 2)
        for each in (one, other)
    ]
    assert sum(count for _, count in started) == 3
    assert [sum(c for s, c in started if s == at) for at in (1, 1.5, 1.6, 2)] == [1, 1, 0, 1]


def test_other_process_takes_nothing_a_second_after_a_pause(database: Database) -> None:
    one, other = writer(database, "one"), writer(database, "other")
    database.exclusive = False
    shared = writer(database, "shared")
    shared.step([], at(0), 100)
    add_shipments(database, order=-1)
    one.separate_commands.execute_pause(pause(), None, at(0.5))
    assert shared.step([], at(1), 100).effects == []
    other.adopt(at(1), 10)
    assert other.step([], at(1), 100).effects == []


def test_pause_without_who_resumed_it_is_refused_by_the_table(database: Database) -> None:
    with pytest.raises(DatabaseError), database.transaction() as connection:
        connection.execute(
            insert(PAUSES.table).values(
                id="x",
                target="service",
                paused_at=NOW,
                paused_by="alice",
                reason="why",
                resumed_at=NOW,
            )
        )


def test_copy_of_an_earlier_version_is_paused_when_it_is_migrated(database: Database) -> None:
    with database.transaction() as connection:
        for name in ADDED_SINCE:
            connection.execute(text(f"DROP TABLE {name}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
        if database.dialect_name == "sqlite":
            connection.execute(text(MARK_COPY))
    migrate(database, "todoku.shipping")
    with database.read() as connection:
        found = PAUSES.open(connection)
    copied = database.dialect_name == "sqlite"
    assert [(each.target, each.paused_by) for each in found] == [("service", BY)] * copied
