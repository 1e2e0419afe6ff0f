"""Tests of the audit: it finds each planted fault under the right invariant, and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Table, delete, insert, text, update

from todoku import system as systems
from todoku.audit import (
    AuditPart,
    Awaited,
    Finding,
    Known,
    ParkedLetters,
    Report,
    audit,
    orders_named,
)
from todoku.broker import Delivery
from todoku.contracts import (
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    OrderedItem,
    StockReleasedEvent,
    decode,
    fact_id,
    seal,
)
from todoku.database import Database
from todoku.descriptor import resolve
from todoku.engine import Pause, Service, Topology
from todoku.engine.messages import IncomingEvent, PendingCommand, Receipt, StoredEvents
from todoku.engine.writer import PostCommitActions, Writer
from todoku.inventory.domain import SetProduct
from todoku.inventory.store import products, reservations, stock_ledger
from todoku.lifecycle import Lifecycle, Stage, Status
from todoku.orders.placing import PlaceOrder
from todoku.orders.store import order_events, orders
from todoku.settings import Span
from todoku.shipping.domain import Accepted, Answer, RecordAnswer, Rejected
from todoku.shipping.store import shipment_items, shipments

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
LATER: Final = NOW + timedelta(hours=1)

COMPLETED: Final = "0198c2f0-7b1a-7c3e-9d55-000000000001"
FAILED: Final = "0198c2f0-7b1a-7c3e-9d55-000000000002"
NO_STOCK: Final = "0198c2f0-7b1a-7c3e-9d55-000000000003"
NEW: Final = "0198c2f0-7b1a-7c3e-9d55-000000000004"
GHOST: Final = "0198c2f0-7b1a-7c3e-9d55-000000000009"


class System:
    """The three services without a broker: each event is handed to its subscribers directly."""

    def __init__(self) -> None:
        self.services = {
            service.name: service
            for service in systems.system.build(
                systems.system.settings(carrier_delay_seconds=Span(0, 0))
            )
        }
        self.topology = Topology(self.services.values())
        self.databases = {name: _empty(service) for name, service in self.services.items()}
        self.writers = {
            name: Writer(service, self.databases[name], self.topology, owner=name)
            for name, service in self.services.items()
        }
        self.answers: dict[str, Answer] = {}

    def execute(self, name: str, command: Any) -> None:
        """Execute a command, and everything that follows from it."""
        self._follow(
            name, self.writers[name].step([PendingCommand(command, lambda _: None)], NOW, 1)
        )

    def _follow(self, name: str, actions: PostCommitActions) -> None:
        for row in actions.published:
            envelope, event = decode(row.body)
            incoming = IncomingEvent(
                Delivery(row.subject, row.body, 1, 1, token=None), envelope, event
            )
            for reader in self.topology.readers(type(event)):
                self._follow(reader, self.writers[reader].step([incoming], NOW, 1))
                self.writers[name].step([Receipt(reader, (envelope.id,))], NOW, 0)
            self.writers[name].step([StoredEvents(row.position - 1, row.position)], NOW, 0)
        for booking in (pending.effect for pending in actions.effects):
            answer = RecordAnswer(order_id=booking.order_id, answer=self.answers[booking.order_id])
            self.execute("shipping", answer)

    def place(self, order_id: str, quantity: int, answer: Answer = Accepted("SIM-1")) -> None:  # noqa: B008
        self.answers[order_id] = answer
        items = tuple(
            OrderedItem(product_id=key, quantity=quantity, price=100) for key in ("a", "b")
        )
        command = PlaceOrder(order_id=order_id, user_id="user", items=items, currency="JPY")
        self.execute("orders", command)

    def place_undelivered(self, order_id: str) -> None:
        """Place an order whose event is still to be delivered."""
        items = (OrderedItem(product_id="a", quantity=1, price=100),)
        command = PlaceOrder(order_id=order_id, user_id="user", items=items, currency="JPY")
        self.writers["orders"].step([PendingCommand(command, lambda _: None)], NOW, 0)

    def follow_event(self, name: str, event: Event) -> None:
        """Hand an event to one subscriber, and what follows from it to all others that know the order."""
        incoming = IncomingEvent(
            Delivery(event.subject, b"", 1, 1, token=None), seal(event, NOW), event
        )
        self._follow(name, self.writers[name].step([incoming], NOW, 1))

    def plant(self, name: str, *statements: Any) -> None:
        """Change a database without the program."""
        with self.databases[name].transaction() as connection:
            connection.execute(text("PRAGMA ignore_check_constraints = ON"))
            for statement in statements:
                connection.execute(statement)

    def audit(self, now: datetime = LATER, overdue_minutes: float = 10) -> Report:
        with ExitStack() as stack:
            connections = {
                name: stack.enter_context(database.read())
                for name, database in self.databases.items()
            }
            return systems.system.audit(
                connections, now, overdue_after=timedelta(minutes=overdue_minutes)
            )


def _empty(service: Service) -> Database:
    database = Database.in_memory()
    with database.transaction() as connection:
        service.store.metadata.create_all(connection)
    return database


@pytest.fixture
def system() -> Iterator[System]:
    """Return a quiescent system with one order of each ending."""
    system = System()
    for key, pieces in (("a", 10), ("b", 5)):
        system.execute(
            "inventory", SetProduct(product_id=key, name=key, price=100, stock_quantity=pieces)
        )
    system.place(COMPLETED, 2)
    system.place(FAILED, 1, Rejected("no room"))
    system.place(NO_STOCK, 9)
    yield system
    for database in system.databases.values():
        database.close()


def row(table: Table, **values: Any) -> Any:
    return insert(table).values(**values)


class TestInOrder:
    def test_quiescent_system_has_no_finding(self, system: System) -> None:
        assert system.audit() == Report(
            findings=(),
            orders={"CANCELLED_NO_STOCK": 1, "COMPLETED": 1, "SHIPMENT_FAILED": 1},
            awaited=(),
            dead_letters=(),
        )
        assert system.audit().clean
        assert system.audit().settled

    def test_empty_databases_have_no_finding(self) -> None:
        report = System().audit()
        assert report.clean
        assert report.settled
        assert report.orders == {}

    def test_refusal_may_have_only_the_products_that_were_short(self, system: System) -> None:
        """As one that was rebuilt from the stream does."""
        system.plant(
            "inventory",
            delete(reservations).where(
                reservations.c.order_id == NO_STOCK, reservations.c.product_id == "b"
            ),
        )
        assert system.audit().clean

    def test_pending_deliveries_are_counted_by_service_and_subscriber(self, system: System) -> None:
        system.place_undelivered(NEW)
        report = system.audit(LATER)
        assert report.awaited == (Awaited("orders", "inventory", 1, NOW),)
        assert report.backlog == {"orders → inventory": 1}
        assert not report.settled

    def test_open_order_is_no_finding_until_it_is_overdue(self, system: System) -> None:
        system.place_undelivered(NEW)
        assert system.audit(NOW + timedelta(minutes=10), overdue_minutes=10).clean
        assert not system.audit(NOW + timedelta(minutes=10), overdue_minutes=10).settled

    def test_open_order_is_overdue_after_its_deadline(self, system: System) -> None:
        system.place_undelivered(NEW)
        system.plant("orders", update(orders).where(orders.c.id == NEW).values(deadline=LATER))
        assert system.audit(LATER, overdue_minutes=90).clean
        (finding,) = system.audit(LATER + timedelta(seconds=1), overdue_minutes=90).findings
        assert (finding.invariant, finding.subject) == ("I3", NEW)
        assert finding.problem.startswith("in PENDING after its deadline, 20")

    @pytest.mark.parametrize("name", systems.system.names)
    def test_order_with_a_parked_message_is_no_finding(self, system: System, name: str) -> None:
        system.place_undelivered(NEW)
        system.plant(name, a_letter(system, name, state="PARKED"))
        report = system.audit()
        assert report.dead_letters == (ParkedLetters(name, 1, (NEW,)),)
        assert report.parked == {name: 1}
        assert report.findings == ()

    @pytest.mark.parametrize("error", ["ReplayFailed: StockLost: …", "DatabaseLost: …"])
    @pytest.mark.parametrize("name", systems.system.names)
    def test_service_that_decides_nothing_is_a_finding(
        self, system: System, name: str, error: str
    ) -> None:
        system.plant(name, a_letter(system, name, state="PARKED", error=error))
        (finding,) = system.audit().findings
        assert (finding.invariant, finding.subject) == ("I3", name)
        assert f"`todoku dead retry --all --service {name}`" in finding.advice

    def test_overdue_order_with_a_resolved_message_is_a_finding(self, system: System) -> None:
        system.place_undelivered(NEW)
        closed = a_letter(system, "inventory", state="RETRIED", closed_at=NOW)
        system.plant("inventory", closed)
        report = system.audit()
        assert report.parked == {}
        assert [(finding.invariant, finding.subject) for finding in report.findings] == [
            ("I3", NEW)
        ]


def a_letter(system: System, name: str, **values: Any) -> Any:
    """A dead letter about the new order."""
    return row(
        system.services[name].store.metadata.tables["dead_letters"],
        **{
            "id": "letter",
            "subject": "s",
            "body": b"",
            "error": "e",
            "attempts": 5,
            "order_id": NEW,
            "parked_at": NOW,
            **values,
        },
    )


def of_order(table: Table, order_id: str) -> Any:
    """The rows of an order, to be changed."""
    return update(table).where(table.c.order_id == order_id)


def ending(order_id: str, status: str) -> Any:
    return update(orders).where(orders.c.id == order_id).values(status=status)


def a_deduction(order_id: str, **changes: Any) -> Any:
    values = {
        "product_id": "a",
        "location": "main",
        "order_id": order_id,
        "reason": "SHIPMENT",
        "quantity": -2,
        "entered_at": NOW,
    }
    return row(stock_ledger, **values | changes)


def set_stock(**changes: Any) -> Any:
    return update(products).where(products.c.id == "a").values(**changes)


def a_reservation(order_id: str, state: str = "RESERVED") -> Any:
    return row(
        reservations,
        order_id=order_id,
        product_id="a",
        location="main",
        quantity=1,
        state=state,
        created_at=NOW,
        updated_at=NOW,
    )


def a_shipment(order_id: str) -> Any:
    return row(
        shipments,
        id="shipment",
        order_id=order_id,
        number=1,
        status="INITIATED",
        attempts=0,
        due_at=NOW,
        shipping_address="",
        created_at=NOW,
        updated_at=NOW,
    )


def shipped(product_id: str, quantity: int) -> Any:
    """The items of the planted shipment."""
    return row(shipment_items, shipment_id="shipment", product_id=product_id, quantity=quantity)


def shipment_of(order_id: str) -> str:
    return fact_id(order_id, "Shipment")


Planted = tuple[str, list[Any], set[tuple[str, str, str]]]

PLANTED: Final[dict[str, Planted]] = {
    # What is wrong: where, how it is planted, and (promise, subject, words) of every finding.
    "an accepted order is gone": (
        "orders",
        [delete(orders).where(orders.c.id == COMPLETED)],
        {
            (
                "I1",
                COMPLETED,
                "does not have it, but its reservation is SHIPPED and its shipment is COMPLETED",
            )
        },
    ),
    "a reservation without an order": (
        "inventory",
        [a_reservation(GHOST), set_stock(reserved_quantity=1)],
        {("I1", GHOST, "does not have it, but its reservation is RESERVED")},
    ),
    "a shipment without an order": (
        "shipping",
        [a_shipment(GHOST)],
        {("I1", GHOST, "does not have it, but its shipment is INITIATED")},
    ),
    "a deduction without an order": (
        "inventory",
        [a_deduction(GHOST), set_stock(stock_quantity=6)],
        {("I1", GHOST, "does not have it, but the ledger deducts pieces for it")},
    ),
    "a history without its beginning": (
        "orders",
        [delete(order_events).where(order_events.c.type == "OrderCreatedEvent")],
        {
            ("I1", order_id, "does not begin with its OrderCreatedEvent")
            for order_id in (COMPLETED, FAILED, NO_STOCK)
        },
    ),
    "a piece too many on hand": (
        "inventory",
        [set_stock(stock_quantity=9)],
        {("I2", "a", "9 on hand, but the ledger adds up to 8")},
    ),
    "a ledger entry is missing": (
        "inventory",
        [delete(stock_ledger).where(stock_ledger.c.product_id == "a")],
        {
            ("I2", "a", "8 on hand, but the ledger adds up to 0"),
            ("I4", COMPLETED, "{'a': 2, 'b': 2} SHIPPED, but the ledger deducts {'b': 2}"),
        },
    ),
    "a reserved piece that nobody has reserved": (
        "inventory",
        [set_stock(reserved_quantity=1)],
        {("I2", "a", "1 reserved, but live reservations add up to 0")},
    ),
    "more promised than is there": (
        "inventory",
        [set_stock(reserved_quantity=9)],
        {
            ("I2", "a", "9 reserved, but live reservations add up to 0"),
            ("I2", "a", "8 on hand and 9 reserved"),
        },
    ),
    "fewer than none": (
        "inventory",
        [set_stock(stock_quantity=-1)],
        {
            ("I2", "a", "-1 on hand, but the ledger adds up to 8"),
            ("I2", "a", "-1 on hand and 0 reserved"),
        },
    ),
    "a reservation of what is no product": (
        "inventory",
        [delete(products).where(products.c.id == "b")],
        {("I2", "b", "0 on hand, but the ledger adds up to 3")},
    ),
    "a live reservation of what never was a product": (
        "inventory",
        [
            row(
                reservations,
                order_id=NO_STOCK,
                product_id="ghost",
                location="main",
                quantity=4,
                state="RESERVED",
                created_at=NOW,
                updated_at=NOW,
            )
        ],
        {
            ("I2", "ghost", "0 reserved, but live reservations add up to 4"),
            ("I4", NO_STOCK, "{'a': 9, 'b': 9} ordered, but the reservation is for"),
            ("I4", NO_STOCK, "in several states"),
            ("I5", NO_STOCK, "stock is still reserved"),
        },
    ),
    "an order that has ended is still reserved for": (
        "inventory",
        [of_order(reservations, FAILED).values(state="RESERVED")],
        {
            ("I5", FAILED, "SHIPMENT_FAILED, but stock is still reserved"),
            ("I2", "a", "0 reserved, but live reservations add up to 1"),
            ("I2", "b", "0 reserved, but live reservations add up to 1"),
        },
    ),
    "a completed order whose stock was released": (
        "inventory",
        [of_order(reservations, COMPLETED).values(state="RELEASED")],
        {
            ("I4", COMPLETED, "COMPLETED, but its reservation is RELEASED"),
            ("I4", COMPLETED, "RELEASED, but the ledger deducts {'a': 2, 'b': 2}"),
        },
    ),
    "a reservation of which one line has another state": (
        "inventory",
        [
            of_order(reservations, COMPLETED)
            .where(reservations.c.product_id == "a")
            .values(state="RELEASED")
        ],
        {("I4", COMPLETED, "its reservation is in several states")},
    ),
    "a refusal of something else than was ordered": (
        "inventory",
        [of_order(reservations, NO_STOCK).values(quantity=8)],
        {("I4", NO_STOCK, "{'a': 9, 'b': 9} ordered, but the reservation is for {'a': 8, 'b': 8}")},
    ),
    "a reservation of less than was ordered": (
        "inventory",
        [
            delete(reservations).where(
                reservations.c.order_id == FAILED, reservations.c.product_id == "b"
            )
        ],
        {("I4", FAILED, "{'a': 1, 'b': 1} ordered, but the reservation is for {'a': 1}")},
    ),
    "an order without its reservation": (
        "inventory",
        [delete(reservations).where(reservations.c.order_id == NO_STOCK)],
        {("I4", NO_STOCK, "CANCELLED_NO_STOCK, but it has no reservation")},
    ),
    "an order without its shipment": (
        "shipping",
        [delete(shipments).where(shipments.c.order_id == FAILED)],
        {("I4", FAILED, "SHIPMENT_FAILED, but it has no shipment")},
    ),
    "a shipment that ended otherwise than its order": (
        "shipping",
        [of_order(shipments, COMPLETED).values(status="FAILED", tracking_number=None)],
        {("I4", COMPLETED, "COMPLETED, but its shipment is FAILED")},
    ),
    "a completed shipment without items": (
        "shipping",
        [delete(shipment_items).where(shipment_items.c.shipment_id == shipment_of(COMPLETED))],
        {("I4", COMPLETED, "{'a': 2, 'b': 2} ordered, but the shipment is for {}")},
    ),
    "a failed shipment without one of its items": (
        "shipping",
        [
            delete(shipment_items).where(
                shipment_items.c.shipment_id == shipment_of(FAILED),
                shipment_items.c.product_id == "b",
            )
        ],
        {("I4", FAILED, "{'a': 1, 'b': 1} ordered, but the shipment is for {'a': 1}")},
    ),
    "a shipment for a cancelled order": (
        "shipping",
        [a_shipment(NO_STOCK), shipped("a", 9), shipped("b", 9)],
        {("I4", NO_STOCK, "CANCELLED_NO_STOCK, but its shipment is INITIATED")},
    ),
    "a second shipment of an order": (
        "shipping",
        [
            of_order(shipments, FAILED).values(number=2, order_id=COMPLETED),
        ],
        {
            ("I4", COMPLETED, "it has 2 shipments"),
            ("I4", FAILED, "SHIPMENT_FAILED, but it has no shipment"),
        },
    ),
    "a deduction made twice": (
        "inventory",
        [a_deduction(COMPLETED, location="other"), set_stock(stock_quantity=6)],
        {("I4", COMPLETED, "but the ledger deducts")},
    ),
    "a deduction of another number of pieces": (
        "inventory",
        [
            of_order(stock_ledger, COMPLETED)
            .where(stock_ledger.c.product_id == "a")
            .values(quantity=-1),
            set_stock(stock_quantity=9),
        ],
        {("I4", COMPLETED, "but the ledger deducts {'a': 1, 'b': 2}")},
    ),
    "a deduction for an order whose shipment failed": (
        "inventory",
        [a_deduction(FAILED, quantity=-1), set_stock(stock_quantity=7)],
        {("I4", FAILED, "RELEASED, but the ledger deducts {'a': 1}")},
    ),
    "an order that is stuck": (
        "orders",
        [ending(NO_STOCK, "PENDING")],
        {("I3", NO_STOCK, "in PENDING for over 600 s")},
    ),
    "an order that ended in another way": (
        "orders",
        [ending(FAILED, "CANCELLED_NO_STOCK")],
        {
            ("I4", FAILED, "CANCELLED_NO_STOCK, but its reservation is RELEASED"),
            ("I4", FAILED, "CANCELLED_NO_STOCK, but its shipment is FAILED"),
        },
    ),
}


HANGING: Final[dict[str, tuple[str, list[tuple[str, Any]], str | None]]] = {
    # How far an order has come that is PENDING or AWAITING_SHIPMENT after its time: its status, what
    # else is changed, and which service may say again what it knows.
    "nobody else knows it": ("PENDING", [], "orders"),
    "it was refused": ("PENDING", [("inventory", a_reservation(NEW, "REFUSED"))], "inventory"),
    "its stock is reserved": (
        "AWAITING_SHIPMENT",
        [("inventory", a_reservation(NEW)), ("inventory", set_stock(reserved_quantity=1))],
        "inventory",
    ),
    "its shipment is open": (
        "PENDING",
        [
            ("inventory", a_reservation(NEW)),
            ("inventory", set_stock(reserved_quantity=1)),
            ("shipping", a_shipment(NEW)),
            ("shipping", shipped("a", 1)),
        ],
        "shipping",
    ),
    # Where decisions exclude each other, to say one of them again helps nobody.
    "it awaits what was refused": (
        "AWAITING_SHIPMENT",
        [("inventory", a_reservation(NEW, "REFUSED"))],
        None,
    ),
    # What another decision was built upon is lost: nobody may decide on it anew.
    "its reservation is lost": ("AWAITING_SHIPMENT", [], None),
    "its shipment is lost": ("PENDING", [("inventory", a_reservation(NEW, "RELEASED"))], None),
}


@pytest.mark.parametrize("how", HANGING)
def test_service_that_is_furthest_on_is_asked_to_republish_for_an_overdue_order(
    system: System, how: str
) -> None:
    status, planted, asked = HANGING[how]
    system.place_undelivered(NEW)
    system.plant("orders", ending(NEW, status))
    for name, statement in planted:
        system.plant(name, statement)
    findings = system.audit().findings
    assert {finding.subject for finding in findings} == {NEW}
    assert [finding.asks for finding in findings if finding.invariant == "I3"] == [asked]
    assert {finding.asks for finding in findings} - {None} == {asked} - {None}
    assert any(finding.invariant == "I4" for finding in findings) == (asked is None)


CANCELLING: Final[dict[str, tuple[list[tuple[str, Any]], set[str]]]] = {
    # How far a cancellation has come that is not answered, and which services may say again what they know.
    "nobody else knows the order": ([], {"orders"}),
    "its stock is reserved": (
        [("inventory", a_reservation(NEW)), ("inventory", set_stock(reserved_quantity=1))],
        {"orders"},
    ),
    "its stock was refused": ([("inventory", a_reservation(NEW, "REFUSED"))], {"inventory"}),
    "its shipment is open": (
        [
            ("inventory", a_reservation(NEW)),
            ("inventory", set_stock(reserved_quantity=1)),
            ("shipping", a_shipment(NEW)),
            ("shipping", shipped("a", 1)),
        ],
        {"orders"},
    ),
    "its shipment is cancelled": (
        [
            ("inventory", a_reservation(NEW, "RELEASED")),
            ("shipping", a_shipment(NEW).values(status="CANCELLED", due_at=None)),
            ("shipping", shipped("a", 1)),
        ],
        {"shipping", "inventory"},
    ),
}


@pytest.mark.parametrize("how", CANCELLING)
def test_whoever_may_have_missed_a_cancellation_is_told_again(system: System, how: str) -> None:
    planted, asked = CANCELLING[how]
    system.place_undelivered(NEW)
    system.plant("orders", ending(NEW, "CANCELLING"))
    for name, statement in planted:
        system.plant(name, statement)
    findings = system.audit().findings
    assert {(finding.invariant, finding.subject) for finding in findings} == {("I3", NEW)}
    assert {finding.asks for finding in findings} == asked


def test_order_that_was_cancelled_is_in_order(system: System) -> None:
    """Whether it was cancelled before it arrived or after its stock was reserved."""
    change = {"order_id": NEW, "change_id": "change", "whole": True}
    items = (CancelledItem(product_id="a", quantity=1), CancelledItem(product_id="b", quantity=1))
    released = StockReleasedEvent(**change, items=items, outcome="NEVER_RESERVED")
    system.follow_event("shipping", CancellationRequestedEvent(**change, items=items))
    system.place(NEW, 1)
    system.follow_event("orders", released)
    assert system.audit().orders["CANCELLED"] == 1
    assert system.audit().findings == ()


def test_shipping_is_asked_to_republish_if_stock_is_reserved_for_an_ended_order(
    system: System,
) -> None:
    system.plant("inventory", of_order(reservations, FAILED).values(state="RESERVED"))
    assert ("I5", "shipping") in {
        (finding.invariant, finding.asks) for finding in system.audit().findings
    }


def test_shipping_is_not_asked_if_its_shipment_contradicts_the_order(system: System) -> None:
    system.plant("inventory", of_order(reservations, FAILED).values(state="RESERVED"))
    system.plant("orders", ending(FAILED, "CANCELLED_NO_STOCK"))
    assert {finding.asks for finding in system.audit().findings} == {None}


def test_wrong_reserved_quantity_names_the_orders(system: System) -> None:
    system.plant("inventory", of_order(reservations, FAILED).values(state="RESERVED"))
    advice = [finding.advice for finding in system.audit().findings if finding.subject == "a"]
    assert [FAILED in each for each in advice] == [True]


def test_long_list_of_orders_is_cut() -> None:
    assert orders_named([]) == "no order"
    assert orders_named(["1", "2"]) == "1, 2"
    assert orders_named([str(n) for n in range(7)]) == "0, 1, 2, 3, 4 and 2 more"


def open_shipment(order_id: str, *items: tuple[str, int], **changes: Any) -> list[tuple[str, Any]]:
    """The statements that open a shipment for these items."""
    parcel = a_shipment(order_id).values(**changes)
    pieces = [("shipping", shipped(key, n)) for key, n in items]
    return [("shipping", parcel), *pieces]


class TestCarrier:
    """What is found about a shipment that does not end."""

    @pytest.fixture
    def advice(self, system: System) -> Callable[..., str]:
        def of(**changes: Any) -> str:
            system.place_undelivered(NEW)
            reserved = [a_reservation(NEW), set_stock(reserved_quantity=1)]
            system.plant("inventory", *reserved)
            for name, statement in open_shipment(NEW, ("a", 1), **changes):
                system.plant(name, statement)
            (finding,) = system.audit().findings
            assert (finding.invariant, finding.asks) == ("I3", "shipping")
            return finding.advice

        return of

    def test_carrier_that_was_not_called_is_not_blamed(self, advice: Callable[..., str]) -> None:
        found = advice()
        assert found.startswith(
            "Its carrier was not called yet; the call is due at 2030-01-01 00:00:00"
        )

    @pytest.mark.parametrize(("paused", "overdue"), [("shipping", False), ("orders", True)])
    def test_parcel_that_waits_for_the_end_of_a_pause_is_not_overdue(
        self, system: System, advice: Callable[..., str], paused: str, overdue: bool
    ) -> None:
        advice()
        pause = Pause(id="1", by="alice", reason="closed")
        system.writers[paused].separate_commands.execute_pause(pause, None, NOW)
        report = system.audit()
        assert [(each.service, each.by, each.reason) for each in report.paused] == [
            (paused, "alice", "closed")
        ]
        assert report.clean is not overdue

    def test_carrier_without_an_answer_is_shown_with_its_calls_and_its_last_answer(
        self, advice: Callable[..., str]
    ) -> None:
        found = advice(status="BOOKING", attempts=3, reason="TimeoutError")
        assert "has not accepted or rejected the parcel after 3 calls" in found
        assert "last answer: TimeoutError" in found


class TestAsOrdered:
    """A forged StockReservedEvent tells shipping something else than was ordered."""

    def planted(self, system: System, *items: tuple[str, int], address: str = "") -> list[Finding]:
        system.place_undelivered(NEW)
        system.plant("inventory", a_reservation(NEW), set_stock(reserved_quantity=1))
        for name, statement in open_shipment(NEW, *items, shipping_address=address):
            system.plant(name, statement)
        return [finding for finding in system.audit(NOW).findings if finding.subject == NEW]

    def test_shipment_as_ordered_is_no_finding(self, system: System) -> None:
        assert self.planted(system, ("a", 1)) == []

    def test_shipment_of_more_pieces_than_ordered_is_found(self, system: System) -> None:
        (finding,) = self.planted(system, ("a", 99))
        assert finding.invariant == "I4"
        assert finding.problem == "{'a': 1} ordered, but the shipment is for {'a': 99}"

    def test_open_shipment_without_items_is_found(self, system: System) -> None:
        (finding,) = self.planted(system)
        assert finding.invariant == "I4"
        assert finding.problem == "{'a': 1} ordered, but the shipment is for {}"

    def test_open_shipment_without_an_address_is_found(self, system: System) -> None:
        assert self.planted(system, ("a", 1)) == []
        address = update(orders).where(orders.c.id == NEW).values(shipping_address="1-1 Here")
        system.plant("orders", address)
        (finding,) = system.audit(NOW).findings
        assert finding.invariant == "I4"
        assert finding.problem == "the address of its shipment is not the one that was ordered"

    def test_shipment_to_another_address_is_found_without_showing_the_addresses(
        self, system: System
    ) -> None:
        (finding,) = self.planted(system, ("a", 1), address="2-2 Elsewhere")
        assert finding.invariant == "I4"
        assert finding.problem == "the address of its shipment is not the one that was ordered"
        assert "Elsewhere" not in finding.advice

    def test_reservation_with_another_address_is_found(self, system: System) -> None:
        system.plant(
            "inventory", of_order(reservations, COMPLETED).values(shipping_address="2-2 Elsewhere")
        )
        (finding,) = system.audit().findings
        assert (finding.invariant, finding.subject) == ("I4", COMPLETED)
        assert "address of its reservation" in finding.problem


def test_service_without_a_part_has_its_pending_deliveries_and_dead_letters_checked(
    system: System,
) -> None:
    system.place_undelivered(NEW)
    system.plant("orders", a_letter(system, "orders", state="PARKED"))
    with system.databases["orders"].read() as connection:
        report = audit(
            {"outside": None}, {"outside": connection}, LATER, overdue_after=timedelta(0)
        )
    assert report.awaited == (Awaited("outside", "inventory", 1, NOW),)
    assert report.dead_letters == (ParkedLetters("outside", 1, (NEW,)),)
    assert report.findings == ()


def test_entity_of_an_outside_service_is_compared_with_the_endings_of_the_orders(
    system: System,
) -> None:
    class BonusStatus(Status):
        GIVEN = "GIVEN", Stage(meaning="The bonus is given.")

    outside = AuditPart(
        entity="bonus",
        lifecycle=Lifecycle("bonus", BonusStatus),
        known=lambda _: [Known(order_id=order_id, status="GIVEN") for order_id in (FAILED, GHOST)],
        expected={"COMPLETED": ("GIVEN",), "SHIPMENT_FAILED": (None,)},
    )
    parts = {name: resolve(systems.system[name].audit) for name in systems.system.names}
    with ExitStack() as stack:
        connections = {
            name: stack.enter_context(database.read())
            for name, database in system.databases.items()
        }
        report = audit(
            {**parts, "loyalty": outside},
            {**connections, "loyalty": connections["orders"]},
            LATER,
            overdue_after=timedelta(0),
        )
    assert {(f.invariant, f.subject, f.problem) for f in report.findings} == {
        ("I1", GHOST, "the orders service does not have it, but its bonus is GIVEN"),
        ("I4", FAILED, "the order is SHIPMENT_FAILED, but its bonus is GIVEN"),
        ("I4", COMPLETED, "the order is COMPLETED, but it has no bonus"),
    }


def matches(finding: Finding, expected: tuple[str, str, str]) -> bool:
    promise, subject, words = expected
    return (finding.invariant, finding.subject) == (promise, subject) and words in finding.problem


@pytest.mark.parametrize("wrong", PLANTED)
def test_planted_fault_is_found_under_the_right_invariant_and_nothing_else(
    system: System, wrong: str
) -> None:
    service, statements, expected = PLANTED[wrong]
    system.plant(service, *statements)
    findings = system.audit().findings
    for each in expected:
        assert any(matches(finding, each) for finding in findings), findings
    assert all(finding.advice.endswith((".", "?")) for finding in findings)
    for finding in findings:
        assert any(matches(finding, each) for each in expected), finding


def test_findings_are_sorted(system: System) -> None:
    system.plant("inventory", set_stock(stock_quantity=9, reserved_quantity=1))
    system.plant("orders", ending(FAILED, "CANCELLED_NO_STOCK"))
    findings = system.audit().findings
    assert list(findings) == sorted(findings)
    assert findings == system.audit().findings
