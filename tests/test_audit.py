"""The audit: silent about what is in order, and it finds what is planted, under the right promise."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Table, delete, insert, text, update

from todoku import system as systems
from todoku.audit import SERVICES, Awaited, Finding, ParkedLetters, Report, audit, orders_named
from todoku.broker import Delivery
from todoku.contracts import OrderedItem, decode
from todoku.database import Database
from todoku.engine import Service, Topology
from todoku.engine.messages import IncomingEvent, PendingCommand, Receipt
from todoku.engine.writer import PostCommitActions, Writer
from todoku.inventory.domain import SetProduct
from todoku.inventory.store import products, reservations, stock_ledger
from todoku.orders.domain import PlaceOrder
from todoku.orders.store import order_events, orders
from todoku.settings import Span
from todoku.shipping.domain import Accepted, Answer, RecordAnswer, Rejected
from todoku.shipping.store import shipments

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
LATER: Final = NOW + timedelta(hours=1)

COMPLETED: Final = "0198c2f0-7b1a-7c3e-9d55-000000000001"
FAILED: Final = "0198c2f0-7b1a-7c3e-9d55-000000000002"
NO_STOCK: Final = "0198c2f0-7b1a-7c3e-9d55-000000000003"
NEW: Final = "0198c2f0-7b1a-7c3e-9d55-000000000004"
GHOST: Final = "0198c2f0-7b1a-7c3e-9d55-000000000009"


class System:
    """The three services without a broker: what one says is put before its readers by hand."""

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
            name: Writer(
                service, self.databases[name], service.store.tables, self.topology, owner=name
            )
            for name, service in self.services.items()
        }
        self.answers: dict[str, Answer] = {}

    def ask(self, name: str, command: Any) -> None:
        """Have a command carried out, and all that follows from it."""
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
        for booking in actions.effects:
            answer = RecordAnswer(order_id=booking.order_id, answer=self.answers[booking.order_id])
            self.ask("shipping", answer)

    def place(self, order_id: str, quantity: int, answer: Answer = Accepted("SIM-1")) -> None:  # noqa: B008
        self.answers[order_id] = answer
        items = tuple(
            OrderedItem(product_id=key, quantity=quantity, price=100) for key in ("a", "b")
        )
        command = PlaceOrder(order_id=order_id, user_id="user", items=items, currency="JPY")
        self.ask("orders", command)

    def place_unheard(self, order_id: str) -> None:
        """Place an order of which nobody else has heard yet."""
        items = (OrderedItem(product_id="a", quantity=1, price=100),)
        command = PlaceOrder(order_id=order_id, user_id="user", items=items, currency="JPY")
        self.writers["orders"].step([PendingCommand(command, lambda _: None)], NOW, 0)

    def plant(self, name: str, *statements: Any) -> None:
        """Change a database behind the program's back."""
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
            return audit(connections, now, overdue_after=timedelta(minutes=overdue_minutes))


def _empty(service: Service) -> Database:
    database = Database.in_memory()
    with database.transaction() as connection:
        service.store.metadata.create_all(connection)
    return database


@pytest.fixture
def system() -> Iterator[System]:
    """A settled system that has seen every ending."""
    system = System()
    for key, pieces in (("a", 10), ("b", 5)):
        system.ask(
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
    def test_a_settled_system_has_no_finding(self, system: System) -> None:
        assert system.audit() == Report(
            findings=(),
            orders={"CANCELLED_NO_STOCK": 1, "COMPLETED": 1, "SHIPMENT_FAILED": 1},
            awaited=(),
            dead_letters=(),
        )
        assert system.audit().clean
        assert system.audit().settled

    def test_empty_databases_have_none_either(self) -> None:
        report = System().audit()
        assert report.clean
        assert report.settled
        assert report.orders == {}

    def test_a_refusal_may_know_only_what_there_was_too_little_of(self, system: System) -> None:
        """As one that was rebuilt from the stream does."""
        system.plant(
            "inventory",
            delete(reservations).where(
                reservations.c.order_id == NO_STOCK, reservations.c.product_id == "b"
            ),
        )
        assert system.audit().clean

    def test_what_waits_for_a_receipt_is_counted_by_service_and_reader(
        self, system: System
    ) -> None:
        system.place_unheard(NEW)
        report = system.audit(LATER)
        assert report.awaited == (Awaited("orders", "inventory", 1, NOW),)
        assert report.backlog == {"orders → inventory": 1}
        assert not report.settled

    def test_an_order_that_has_not_ended_is_no_finding_while_it_has_time(
        self, system: System
    ) -> None:
        system.place_unheard(NEW)
        assert system.audit(NOW + timedelta(minutes=10), overdue_minutes=10).clean
        assert not system.audit(NOW + timedelta(minutes=10), overdue_minutes=10).settled

    @pytest.mark.parametrize("name", SERVICES)
    def test_an_order_behind_a_dead_letter_is_parked_and_no_finding(
        self, system: System, name: str
    ) -> None:
        system.place_unheard(NEW)
        system.plant(name, a_letter(system, name, state="PARKED"))
        report = system.audit()
        assert report.dead_letters == (ParkedLetters(name, 1, (NEW,)),)
        assert report.parked == {name: 1}
        assert report.findings == ()

    def test_an_order_behind_a_letter_that_was_closed_is_not_excused(self, system: System) -> None:
        system.place_unheard(NEW)
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
        id="letter",
        subject="s",
        body=b"",
        error="e",
        attempts=5,
        order_id=NEW,
        parked_at=NOW,
        **values,
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


Planted = tuple[str, list[Any], set[tuple[str, str, str]]]

PLANTED: Final[dict[str, Planted]] = {
    # What is wrong: where, how it is planted, and (promise, subject, words) of every finding.
    "an accepted order is gone": (
        "orders",
        [delete(orders).where(orders.c.id == COMPLETED)],
        {("I1", COMPLETED, "orders service does not know it, but its stock is SHIPPED")},
    ),
    "a reservation without an order": (
        "inventory",
        [a_reservation(GHOST), set_stock(reserved_quantity=1)],
        {("I1", GHOST, "does not know it, but its stock is RESERVED")},
    ),
    "a shipment without an order": (
        "shipping",
        [a_shipment(GHOST)],
        {("I1", GHOST, "does not know it, but its shipment is INITIATED")},
    ),
    "a deduction without an order": (
        "inventory",
        [a_deduction(GHOST), set_stock(stock_quantity=6)],
        {("I1", GHOST, "does not know it, but the ledger deducts pieces for it")},
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
    "a shipment for a cancelled order": (
        "shipping",
        [a_shipment(NO_STOCK)],
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
        {("I3", NO_STOCK, "still PENDING after its time")},
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
def test_the_service_that_is_furthest_on_may_say_again_what_it_knows_of_an_order_that_hangs(
    system: System, how: str
) -> None:
    status, planted, asked = HANGING[how]
    system.place_unheard(NEW)
    system.plant("orders", ending(NEW, status))
    for name, statement in planted:
        system.plant(name, statement)
    findings = system.audit().findings
    assert {finding.subject for finding in findings} == {NEW}
    assert [finding.asks for finding in findings if finding.invariant == "I3"] == [asked]
    assert {finding.asks for finding in findings} - {None} == {asked} - {None}
    assert any(finding.invariant == "I4" for finding in findings) == (asked is None)


def test_the_last_word_of_shipping_is_asked_for_where_stock_is_reserved_for_an_ended_order(
    system: System,
) -> None:
    system.plant("inventory", of_order(reservations, FAILED).values(state="RESERVED"))
    assert ("I5", "shipping") in {
        (finding.invariant, finding.asks) for finding in system.audit().findings
    }


def test_shipping_is_not_asked_where_its_word_contradicts_the_order(system: System) -> None:
    system.plant("inventory", of_order(reservations, FAILED).values(state="RESERVED"))
    system.plant("orders", ending(FAILED, "CANCELLED_NO_STOCK"))
    assert {finding.asks for finding in system.audit().findings} == {None}


def test_reserved_pieces_that_do_not_add_up_lead_to_the_orders(system: System) -> None:
    system.plant("inventory", of_order(reservations, FAILED).values(state="RESERVED"))
    advice = [finding.advice for finding in system.audit().findings if finding.subject == "a"]
    assert [FAILED in each for each in advice] == [True]


def test_a_long_list_of_orders_is_cut() -> None:
    assert orders_named([]) == "no order"
    assert orders_named(["1", "2"]) == "1, 2"
    assert orders_named([str(n) for n in range(7)]) == "0, 1, 2, 3, 4 and 2 more"


def matches(finding: Finding, expected: tuple[str, str, str]) -> bool:
    promise, subject, words = expected
    return (finding.invariant, finding.subject) == (promise, subject) and words in finding.problem


@pytest.mark.parametrize("wrong", PLANTED)
def test_what_is_planted_is_found_under_the_right_promise_and_nothing_else(
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


def test_findings_come_in_the_same_order_every_time(system: System) -> None:
    system.plant("inventory", set_stock(stock_quantity=9, reserved_quantity=1))
    system.plant("orders", ending(FAILED, "CANCELLED_NO_STOCK"))
    findings = system.audit().findings
    assert list(findings) == sorted(findings)
    assert findings == system.audit().findings
