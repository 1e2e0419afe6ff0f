"""Tests of the lifecycles: what follows from a table, and that everything that lists statuses agrees."""

import importlib
import re
import sqlite3
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from todoku.contracts import (
    EVENTS,
)
from todoku.database import Database, migrate
from todoku.descriptor import resolve
from todoku.inventory.domain import RESERVATION
from todoku.lifecycle import InvalidLifecycle, Lifecycle, Stage, Status, UnknownStatus
from todoku.orders.domain import ORDER, OrderStatus
from todoku.shipping.domain import SHIPMENT
from todoku.system import system


class Paid:
    """An event of the example."""


class Sent:
    """An event of the example."""


class Cancelled:
    """An event of the example."""


class ParcelStatus(Status):
    """The example: a parcel that may be cancelled until it is sent."""

    OPEN = "OPEN", Stage(meaning="It is open.")
    PAID = "PAID", Stage(meaning="It is paid.", after=("OPEN",), on=(Paid,))
    SENT = "SENT", Stage(meaning="It is sent.", after=("PAID",), on=(Sent,))
    CANCELLED = (
        "CANCELLED",
        Stage(meaning="It is cancelled.", after=("OPEN", "PAID"), on=(Cancelled,), failure=True),
    )


OPEN, PAID, SENT, CANCELLED = ParcelStatus
PARCEL: Final = Lifecycle("parcel", ParcelStatus)


class TestTable:
    @pytest.mark.parametrize(
        ("status", "cause", "expected"),
        [
            (OPEN, Paid, PAID),
            (OPEN, Sent, SENT),
            (PAID, Paid, PAID),
            (SENT, Paid, SENT),
            (PAID, Cancelled, CANCELLED),
            (CANCELLED, Paid, CANCELLED),
            (CANCELLED, Sent, None),
            (SENT, Cancelled, None),
        ],
    )
    def test_event_moves_forward_is_late_or_contradicts(
        self, status: ParcelStatus, cause: type, expected: ParcelStatus | None
    ) -> None:
        assert PARCEL.next_status(status, cause) is expected

    def test_contradictions_are_the_events_of_statuses_that_exclude_each_other(self) -> None:
        assert {status: PARCEL.contradictions(status) for status in ParcelStatus} == {
            OPEN: frozenset(),
            PAID: frozenset(),
            SENT: frozenset({Cancelled}),
            CANCELLED: frozenset({Sent}),
        }

    def test_terminal_statuses_are_those_that_none_comes_after(self) -> None:
        assert PARCEL.terminal == (SENT, CANCELLED)

    def test_successors_are_direct_and_reachable_statuses_are_not_only(self) -> None:
        assert PARCEL.successors(OPEN) == {PAID, CANCELLED}
        assert PARCEL.reachable(OPEN) == {PAID, SENT, CANCELLED}

    def test_rank_is_the_longest_way(self) -> None:
        assert [PARCEL.rank(status) for status in ParcelStatus] == [0, 1, 2, 2]

    def test_history_has_only_what_lies_on_every_way(self) -> None:
        assert PARCEL.history(SENT) == {Paid, Sent}
        assert PARCEL.history(CANCELLED) == {Cancelled}

    def test_diagram_draws_each_status_once(self) -> None:
        assert PARCEL.diagram().splitlines() == [
            "OPEN",
            "├─ Paid ─▶ PAID",
            "│     ├─ Sent ─▶ SENT",
            "│     └─ Cancelled ─▶ CANCELLED",
            "└─ Cancelled ─▶ CANCELLED (see above)",
        ]

    def test_check_names_the_statuses_in_sql(self) -> None:
        assert (
            PARCEL.check("status")
            == "status = 'OPEN' OR status = 'PAID' OR status = 'SENT' OR status = 'CANCELLED'"
        )
        assert PARCEL.check("s", terminal=True) == "s = 'SENT' OR s = 'CANCELLED'"

    def test_unknown_predecessor_is_refused(self) -> None:
        class Wrong(Status):
            OPEN = "OPEN", Stage(meaning="", after=("LOST",))

        with pytest.raises(InvalidLifecycle, match="OPEN comes after LOST"):
            Lifecycle("wrong", Wrong)

    def test_circle_is_refused(self) -> None:
        class Wrong(Status):
            HERE = "HERE", Stage(meaning="", after=("THERE",))
            THERE = "THERE", Stage(meaning="", after=("HERE",))

        with pytest.raises(InvalidLifecycle, match="comes after itself"):
            Lifecycle("wrong", Wrong)

    def test_event_that_leads_to_two_statuses_is_refused(self) -> None:
        class Wrong(Status):
            OPEN = "OPEN", Stage(meaning="")
            ONE = "ONE", Stage(meaning="", after=("OPEN",), on=(Paid,))
            OTHER = "OTHER", Stage(meaning="", after=("OPEN",), on=(Paid,))

        with pytest.raises(InvalidLifecycle, match="Paid leads from OPEN to ONE and to OTHER"):
            Lifecycle("wrong", Wrong)


DECLARED: Final[dict[str, tuple[Lifecycle[Any], str, str, str]]] = {
    # The lifecycle, the module whose docstring shows it, and the table and column that keep it.
    "order": (ORDER, "todoku.orders.domain", "orders", "status"),
    "reservation": (RESERVATION, "todoku.inventory.domain.stock", "reservations", "state"),
    "shipment": (SHIPMENT, "todoku.shipping.domain", "shipments", "status"),
}


def test_every_service_of_the_system_declares_its_lifecycle() -> None:
    parts = [resolve(service.audit) for service in system if service.audit is not None]
    assert {part.entity: part.lifecycle for part in parts} == {
        entity: lifecycle for entity, (lifecycle, *_) in DECLARED.items()
    }


@pytest.mark.parametrize("entity", DECLARED)
class TestDeclared:
    def test_docstring_of_the_domain_shows_the_diagram(self, entity: str) -> None:
        lifecycle, module, _, _ = DECLARED[entity]
        shown = importlib.import_module(module).__doc__ or ""
        indented = "\n".join(f"    {line}" for line in lifecycle.diagram().splitlines())
        assert indented in shown, f"put this into the docstring of {module}:\n{indented}"

    def test_architecture_page_shows_the_diagram(self, entity: str) -> None:
        page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
        assert DECLARED[entity][0].diagram() in page, "run `make docs`"

    def test_check_of_the_migrated_table_names_the_same_statuses(
        self, entity: str, tmp_path: Path
    ) -> None:
        lifecycle, module, table, column = DECLARED[entity]
        file = tmp_path / "migrated.db"
        with Database.open(str(file)) as database:
            migrate(database, ".".join(module.split(".")[:2]))
        with sqlite3.connect(file) as connection:
            (sql,) = connection.execute(
                "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
            ).fetchone()
        connection.close()
        check = re.search(rf"_known\W+CHECK \(({column} = .*?)\)", sql)
        assert check is not None, sql
        assert set(check[1].split(" OR ")) == set(lifecycle.check(column).split(" OR "))

    def test_events_of_the_lifecycle_are_in_the_contracts(self, entity: str) -> None:
        for status in DECLARED[entity][0].statuses:
            assert set(status.stage.publishes) <= set(EVENTS.values())


class Refused:
    """An event of the example: the parcel goes on."""


class Left:
    """An event of the example: nothing left the shop."""


class DetourStatus(Status):
    """The example: a parcel whose return is a detour, which may lead back."""

    OPEN = "OPEN", Stage(meaning="It is open.")
    PAID = "PAID", Stage(meaning="It is paid.", after=("OPEN",), on=(Paid,))
    SENT = "SENT", Stage(meaning="It is sent.", after=("PAID",), on=(Sent,))
    UNPAID = "UNPAID", Stage(meaning="It was never paid.", after=("OPEN",), on=(Cancelled,))
    STOPPING = (
        "STOPPING",
        Stage(
            meaning="It is to be stopped.",
            after=("OPEN", "PAID"),
            on=("stop",),
            returns_to="PAID",
            returns_on=(Refused,),
        ),
    )
    STOPPED = "STOPPED", Stage(meaning="It stopped.", after=("STOPPING",), on=(Left,))


DETOUR: Final = Lifecycle("parcel", DetourStatus)


class TestDetour:
    @pytest.mark.parametrize(
        ("status", "cause", "expected"),
        [
            ("OPEN", "stop", "STOPPING"),
            ("PAID", "stop", "STOPPING"),
            ("STOPPING", "stop", "STOPPING"),
            ("STOPPING", Paid, "STOPPING"),  # late: it interrupts this status
            ("STOPPING", Sent, "SENT"),  # ahead of a status that it interrupts
            ("STOPPING", Cancelled, "UNPAID"),
            ("STOPPING", Refused, "PAID"),
            ("STOPPING", Left, "STOPPED"),
            ("OPEN", Refused, "PAID"),  # the beginning of the detour is lost
            ("SENT", Refused, "SENT"),
            ("PAID", Left, "STOPPED"),
            ("STOPPED", Paid, "STOPPED"),
            ("PAID", Cancelled, None),  # no way through the detour makes this right
            ("UNPAID", Paid, None),
            ("UNPAID", "stop", None),
            ("STOPPED", Sent, None),
        ],
    )
    def test_detour_is_decided_as_the_statuses_that_it_interrupts(
        self, status: str, cause: Any, expected: str | None
    ) -> None:
        found = DETOUR.next_status(DetourStatus(status), cause)
        assert found == expected

    def test_way_back_is_reachable_and_drawn(self) -> None:
        assert DETOUR.reachable(DetourStatus.STOPPING) == {"PAID", "SENT", "UNPAID", "STOPPED"}
        assert "│           └─ Refused ─▶ PAID (see above)" in DETOUR.diagram().splitlines()
        assert not DetourStatus.STOPPING.terminal

    def test_way_back_to_what_it_does_not_interrupt_is_refused(self) -> None:
        class Wrong(Status):
            OPEN = "OPEN", Stage(meaning="")
            AWAY = "AWAY", Stage(meaning="", returns_to="OPEN", returns_on=(Refused,))

        with pytest.raises(InvalidLifecycle, match="AWAY returns to OPEN"):
            Lifecycle("wrong", Wrong)

    def test_entity_may_begin_where_others_arrive(self) -> None:
        class Begun(Status):
            OPEN = "OPEN", Stage(meaning="", after=("EXPECTED",), on=(Paid,), begins=True)
            EXPECTED = "EXPECTED", Stage(meaning="", on=("wait",))

        assert Lifecycle("parcel", Begun).diagram().splitlines() == [
            "OPEN",
            "EXPECTED",
            "└─ Paid ─▶ OPEN (see above)",
        ]


def test_every_status_implied_elsewhere_exists_there() -> None:
    for lifecycle, *_ in DECLARED.values():
        for status in lifecycle.statuses:
            for entity, allowed in status.stage.implies.items():
                assert set(allowed) - {None} <= set(DECLARED[entity][0].statuses), (status, entity)


def test_every_ending_of_an_order_implies_what_the_others_have() -> None:
    for status in ORDER.terminal:
        assert status.stage.implies.keys() == {"reservation", "shipment"}


def test_status_of_a_newer_version_is_read_and_nothing_is_decided_on_it() -> None:
    known = OrderStatus.stored("COMPLETED")
    assert known is OrderStatus.COMPLETED
    known.require_known("order", "1")
    newer = OrderStatus.stored("RETURNED")
    assert (newer, newer.value, newer.terminal) == ("RETURNED", "RETURNED", False)
    assert msgspec.json.encode(newer) == b'"RETURNED"'
    with pytest.raises(UnknownStatus, match="order 1 has the status 'RETURNED'"):
        newer.require_known("order", "1")
    with pytest.raises(ValueError, match="RETURNED"):
        OrderStatus("RETURNED")
