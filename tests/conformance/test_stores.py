"""What each service's tables keep and what they refuse, on SQLite and on PostgreSQL."""

import itertools
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec
import pytest
from sqlalchemy import CheckConstraint, Connection, Engine, func, insert, select, text, update

from todoku.broker import Delivery
from todoku.contracts import (
    MAX_SAFE_INTEGER,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    HoldReleasedEvent,
    HoldRequestedEvent,
    OrderCreatedEvent,
    OrderedItem,
    PlacedHold,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
    fact_id,
    seal,
)
from todoku.database import (
    ConstraintViolated,
    Database,
    DatabaseUnavailable,
    current_revision,
    head_revision,
    migrate,
    schema_differences,
)
from todoku.engine import Due, IdempotencyKey, StateCache, Topology, key_id
from todoku.engine.due_window import DueWindow
from todoku.engine.idempotency import KeptAnswer, kept_answer, rebuild_answer
from todoku.engine.messages import IncomingEvent, PendingCommand
from todoku.engine.writer import PostCommitActions, Writer
from todoku.events import Context
from todoku.inventory.domain import (
    ReservationState,
    Restock,
    SetProduct,
    deduct_stock,
    release_cancelled,
    release_stock,
    reserve_stock,
    restock,
    set_product,
)
from todoku.inventory.store import InventoryStore, find_product, stock_ledger
from todoku.orders.cancellation import CancelOrder, cancel_order, end_cancelled
from todoku.orders.domain import (
    OrderStatus,
    cancel_for_lack_of_stock,
    complete,
    confirm_reservation,
)
from todoku.orders.holding import HoldOrder, NewHold, ReleaseHold, hold_order, release_hold
from todoku.orders.parking import ParkedMessage
from todoku.orders.placing import Placement, PlaceOrder, place, place_order
from todoku.orders.pricing import PricePolicy
from todoku.orders.store import OrdersStore, find_order, history, orders, parked_messages
from todoku.settings import Settings
from todoku.shipping.cancellation import decide_cancellation, replay_refusal
from todoku.shipping.domain import (
    Accepted,
    RecordAnswer,
    Rejected,
    Shipment,
    ShipmentStatus,
    Unknown,
    initiate_shipment,
    record_answer,
    when_due,
)
from todoku.shipping.holding import decide_hold
from todoku.shipping.holding import release_hold as release_shipment_hold
from todoku.shipping.service import bookings
from todoku.shipping.store import ShippingStore, find_shipment, list_shipments
from todoku.system import system

NOW: Final = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
SERVICES: Final = {service.name: service for service in system.build(Settings())}
TOPOLOGY: Final = Topology(SERVICES.values())
BOOKINGS: Final = bookings()
ADDRESS: Final = "東京都千代田区 1-1; 'DROP' \"x\" \\ 🏠"

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Database]]:
    """A migrated database of each service. Tests share them, and each uses orders of its own."""
    with ExitStack() as stack:
        urls: Any = (
            {name: tmp_path_factory.mktemp(name) / "service.db" for name in SERVICES}
            if request.param == "sqlite"
            else stack.enter_context(_postgres(request.getfixturevalue("postgres_server")))
        )
        opened = {name: stack.enter_context(Database.open(url)) for name, url in urls.items()}
        for name, database in opened.items():
            migrate(database, system[name].package)
        yield opened


@contextmanager
def _postgres(server: Engine) -> Iterator[dict[str, str]]:
    """An empty database of a PostgreSQL server for each service."""
    names = {name: f"{name}_{uuid.uuid4().hex}" for name in SERVICES}
    with server.connect() as connection:
        for name in names.values():
            connection.execute(text(f"CREATE DATABASE {name}"))
    yield {
        service: server.url.set(drivername="postgresql", database=name).render_as_string(
            hide_password=False
        )
        for service, name in names.items()
    }
    with server.connect() as connection:
        for name in names.values():
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def new_order() -> str:
    """The id of an order that no other test uses; later ones are greater."""
    return f"0198c2f0-7b1a-7c3e-9d55-{next(_numbers):012x}"


def incoming(event: Event, sequence: int = 1) -> IncomingEvent:
    return IncomingEvent(
        Delivery(event.subject, b"", 1, sequence, token=None), seal(event, NOW), event
    )


@pytest.mark.parametrize("name", SERVICES)
class TestSchema:
    def test_migrations_create_the_tables_of_the_store(
        self, databases: dict[str, Database], name: str
    ) -> None:
        assert schema_differences(databases[name], SERVICES[name].store.metadata) == []

    def test_newest_version_is_that_of_the_migrated_database(
        self, databases: dict[str, Database], name: str
    ) -> None:
        assert head_revision(system[name].package) == current_revision(databases[name])


PLACE: Final = partial(place, deadline_after=None, holders=(), policy=PricePolicy())


def apply(store: Any, connection: Connection, decide: Any, subject: Any, now: datetime) -> Any:
    """Load, decide and save as the engine does for a batch of one; return the published events."""
    unit_of_work = store.load(connection, [subject], StateCache(0))
    state, published = decide(unit_of_work.view(subject), subject, now)
    unit_of_work.put(subject, state)
    if isinstance(subject, Event):
        unit_of_work.record(seal(subject, now))
    for event in published:
        if isinstance(event, Event):
            unit_of_work.record(seal(event, now, Context("user123")))
    store.save(connection, unit_of_work, now)
    return published


class TestOrders:
    def place(self, connection: Connection, user_id: str = "user123") -> PlaceOrder:
        command = PlaceOrder(
            order_id=new_order(),
            user_id=user_id,
            items=(
                OrderedItem(product_id="b", quantity=2, price=5000),
                OrderedItem(product_id="a", quantity=1, price=3000),
            ),
            currency="EUR",
            shipping_address=ADDRESS,
        )
        apply(OrdersStore(), connection, PLACE, command, NOW)
        return command

    def test_placed_order_is_loaded_unchanged(self, databases: dict[str, Database]) -> None:
        with databases["orders"].transaction() as connection:
            command = self.place(connection)
        expected, _ = place_order(None, command, NOW)
        with databases["orders"].transaction() as connection:
            assert find_order(connection, command.order_id) == expected
            loaded = OrdersStore().load(connection, [command], StateCache(0)).view(command)
            assert loaded == Placement(expected, {})
            assert find_order(connection, new_order()) is None

    def test_change_of_an_order_is_saved_with_its_history(
        self, databases: dict[str, Database]
    ) -> None:
        store = OrdersStore()
        with databases["orders"].transaction() as connection:
            command = self.place(connection)
        order_id = command.order_id
        reserved = StockReservedEvent(
            order_id=order_id, items=(ReservedItem(product_id="b", quantity=2),)
        )
        completed = ShipmentCompletedEvent(
            order_id=order_id, shipment_id="s", tracking_number="SIM-1", items=()
        )
        with databases["orders"].transaction() as connection:
            apply(store, connection, complete, completed, LATER)
            apply(store, connection, confirm_reservation, reserved, LATER)  # Late.
        with databases["orders"].read() as connection:
            order = find_order(connection, order_id)
            entries = history(connection, order_id)
        expected, _ = complete(place_order(None, command, NOW)[0], completed, LATER)
        assert order == expected
        assert [(e.sequence, e.type, e.source, e.actor, e.status) for e in entries] == [
            (1, "OrderCreatedEvent", "orders", "user123", "PENDING"),
            (2, "ShipmentCompletedEvent", "shipping", None, "COMPLETED"),
            (3, "OrderCompletedEvent", "orders", "user123", "COMPLETED"),
            (4, "StockReservedEvent", "inventory", None, "COMPLETED"),
        ]
        assert [(e.said_at, e.recorded_at) for e in entries][:2] == [(NOW, NOW), (LATER, LATER)]
        assert msgspec.json.decode(entries[3].data, type=StockReservedEvent) == reserved

    def test_reason_of_a_cancellation_is_saved(self, databases: dict[str, Database]) -> None:
        with databases["orders"].transaction() as connection:
            command = self.place(connection)
            refused = StockReservationFailedEvent(
                order_id=command.order_id, reason="none left", failed_items=()
            )
            apply(OrdersStore(), connection, cancel_for_lack_of_stock, refused, LATER)
        with databases["orders"].read() as connection:
            order = find_order(connection, command.order_id)
        assert order is not None
        assert (order.status, order.reason) == (OrderStatus.CANCELLED_NO_STOCK, "none left")

    def test_cancellation_is_saved_with_its_decision(self, databases: dict[str, Database]) -> None:
        store = OrdersStore()
        with databases["orders"].transaction() as connection:
            command = self.place(connection)
            cancel = CancelOrder(
                order_id=command.order_id, change_id="change", reason='二重注文 "x"', by="alice"
            )
            apply(store, connection, cancel_order, cancel, LATER)
        with databases["orders"].transaction() as connection:
            released = StockReleasedEvent(
                order_id=command.order_id,
                change_id="change",
                items=(),
                whole=True,
                outcome="RELEASED",
            )
            apply(store, connection, end_cancelled, released, LATER)
        with databases["orders"].read() as connection:
            order = find_order(connection, command.order_id)
        cancelling, _ = cancel_order(place_order(None, command, NOW)[0], cancel, LATER)
        assert order == end_cancelled(cancelling, released, LATER)[0]

    def test_hold_is_saved_with_what_is_read_from_it(self, databases: dict[str, Database]) -> None:
        store = OrdersStore()
        expiry = LATER + timedelta(hours=1)
        with databases["orders"].transaction() as connection:
            command = self.place(connection)
            hold = HoldOrder(
                order_id=command.order_id,
                hold_id="hold",
                hold=NewHold(holder="住所確認", reason='"x"', expires_at=expiry),
                by="alice",
            )
            apply(store, connection, hold_order, hold, LATER)
        held, _ = hold_order(place_order(None, command, NOW)[0], hold, LATER)
        assert self.holds(databases, command.order_id) == (held, LATER, expiry)
        with databases["orders"].transaction() as connection:
            release = ReleaseHold(order_id=command.order_id, hold_id="hold")
            apply(store, connection, release_hold, release, LATER)
        released, _ = release_hold(held, release, LATER)
        assert self.holds(databases, command.order_id) == (released, None, None)

    def holds(self, databases: dict[str, Database], order_id: str) -> tuple[Any, Any, Any]:
        columns = orders.c
        query = select(columns.held_since, columns.hold_expires_at).where(columns.id == order_id)
        with databases["orders"].read() as connection:
            row = connection.execute(query).one()
            return find_order(connection, order_id), row.held_since, row.hold_expires_at


class TestInventory:
    store = InventoryStore()

    def product(self, connection: Connection, stock_quantity: int = 10) -> str:
        product_id = f"product-{next(_numbers):06}"
        command = SetProduct(
            product_id=product_id, name="4K モニター", price=7, stock_quantity=stock_quantity
        )
        apply(self.store, connection, set_product, command, NOW)
        return product_id

    def created(self, *lines: tuple[str, int]) -> OrderCreatedEvent:
        return OrderCreatedEvent(
            order_id=new_order(),
            user_id="user",
            items=tuple(OrderedItem(product_id=key, quantity=n, price=1) for key, n in lines),
            total_amount=1,
        )

    def ledger(self, connection: Connection, product_id: str) -> list[tuple[Any, ...]]:
        columns = stock_ledger.c
        found = connection.execute(
            select(columns.reason, columns.quantity, columns.order_id, columns.note)
            .where(columns.product_id == product_id)
            .order_by(columns.id)
        )
        return [tuple(row) for row in found]

    def test_saved_product_is_loaded_unchanged(self, databases: dict[str, Database]) -> None:
        with databases["inventory"].transaction() as connection:
            key = self.product(connection)
            renamed = SetProduct(product_id=key, name="Monitor", price=9, currency="EUR")
            apply(self.store, connection, set_product, renamed, LATER)
            more = Restock(product_id=key, quantity=5, adjustment_id=key, note="Delivery 4711")
            apply(self.store, connection, restock, more, LATER)
        with databases["inventory"].read() as connection:
            product = find_product(connection, key)
            assert self.ledger(connection, key) == [
                ("OPENING", 10, None, None),
                ("RESTOCK", 5, None, "Delivery 4711"),
            ]
            assert find_product(connection, "ghost") is None
        assert product is not None
        assert (product.name, product.price, product.currency) == ("Monitor", 9, "EUR")
        assert (product.on_hand, product.reserved) == (15, 0)
        assert (product.created_at, product.updated_at) == (NOW, LATER)

    @pytest.mark.parametrize("ending", [ReservationState.SHIPPED, ReservationState.RELEASED])
    def test_reservation_is_saved_until_it_has_ended(
        self, databases: dict[str, Database], ending: ReservationState
    ) -> None:
        with databases["inventory"].transaction() as connection:
            a, b = self.product(connection), self.product(connection)
            hold = PlacedHold(hold_id="hold", holder="住所確認", reason="?", expires_at=LATER)
            event = msgspec.structs.replace(self.created((a, 3), (b, 1)), holds=(hold,))
            apply(self.store, connection, reserve_stock, event, NOW)
        with databases["inventory"].transaction() as connection:
            unit_of_work = self.store.load(connection, [event], StateCache(0))
            expected, _ = reserve_stock(
                msgspec.structs.replace(unit_of_work.view(event), reservation=None), event, NOW
            )
            assert unit_of_work.view(event).reservation == expected.reservation
            assert {key: p.reserved for key, p in unit_of_work.view(event).products.items()} == {
                a: 3,
                b: 1,
            }
            shipped = ending is ReservationState.SHIPPED
            word: Event = (
                ShipmentCompletedEvent(
                    order_id=event.order_id, shipment_id="s", tracking_number="t", items=()
                )
                if shipped
                else ShipmentFailedEvent(
                    order_id=event.order_id, shipment_id="s", reason="r", items=()
                )
            )
            apply(self.store, connection, deduct_stock if shipped else release_stock, word, LATER)
        with databases["inventory"].transaction() as connection:
            stock = self.store.load(connection, [word], StateCache(0)).view(word)
            assert stock.reservation is not None
            assert (stock.reservation.state, stock.reservation.updated_at) == (ending, LATER)
            assert {key: (p.on_hand, p.reserved) for key, p in stock.products.items()} == (
                {a: (7, 0), b: (9, 0)} if shipped else {a: (10, 0), b: (10, 0)}
            )
            assert self.ledger(connection, a)[1:] == (
                [("SHIPMENT", -3, event.order_id, None)] if shipped else []
            )

    @pytest.mark.parametrize("arrived", [False, True])
    def test_cancelled_reservation_is_saved(
        self, databases: dict[str, Database], arrived: bool
    ) -> None:
        with databases["inventory"].transaction() as connection:
            event = self.created((self.product(connection), 3))
            items = tuple(
                CancelledItem(product_id=item.product_id, quantity=item.quantity)
                for item in event.items
            )
            if arrived:
                apply(self.store, connection, reserve_stock, event, NOW)
        confirmed = CancellationConfirmedEvent(
            order_id=event.order_id, change_id="change", items=items, whole=True
        )
        with databases["inventory"].transaction() as connection:
            unit_of_work = self.store.load(connection, [confirmed], StateCache(0))
            expected, _ = release_cancelled(unit_of_work.view(confirmed), confirmed, LATER)
            apply(self.store, connection, release_cancelled, confirmed, LATER)
        with databases["inventory"].transaction() as connection:
            found = self.store.load(connection, [confirmed, event], StateCache(0)).view(event)
        assert found.reservation == expected.reservation
        assert found.reservation is not None
        assert [change.id for change in found.reservation.changes] == ["change"]
        assert [product.reserved for product in found.products.values()] == [0]

    def test_refusal_is_saved_like_a_reservation(self, databases: dict[str, Database]) -> None:
        with databases["inventory"].transaction() as connection:
            event = self.created((self.product(connection, 1), 1), ("ghost", 2))
            apply(self.store, connection, reserve_stock, event, NOW)
        with databases["inventory"].transaction() as connection:
            stock = self.store.load(connection, [event], StateCache(0)).view(event)
        assert stock.reservation is not None
        assert stock.reservation.state is ReservationState.REFUSED
        assert {line.product_id for line in stock.reservation.lines} == set(stock.products) | {
            "ghost"
        }

    def test_batch_of_the_largest_orders_is_loaded(self, databases: dict[str, Database]) -> None:
        """Databases bound the number of parameters: PostgreSQL's driver to 65,535."""
        events = [self.created(*((f"p{n}-{k}", 1) for k in range(1_000))) for n in range(66)]
        with databases["inventory"].transaction() as connection:
            unit_of_work = self.store.load(connection, events, StateCache(0))
            assert unit_of_work.view(events[0]).products == {}


class TestShipping:
    store = ShippingStore()

    def initiate(self, connection: Connection, due_in: float = 0.0) -> StockReservedEvent:
        event = StockReservedEvent(
            order_id=new_order(),
            items=(
                ReservedItem(product_id="a", quantity=2),
                ReservedItem(product_id="b", quantity=1),
            ),
            shipping_address=ADDRESS,
        )
        apply(self.store, connection, _initiate(due_in), event, NOW)
        return event

    def found(self, database: Database, event: Event) -> Shipment:
        with database.read() as connection:
            shipment = find_shipment(connection, fact_id(event.order_id, "Shipment"))
        assert shipment is not None
        return shipment

    def test_saved_shipment_is_loaded_unchanged(self, databases: dict[str, Database]) -> None:
        database = databases["shipping"]
        with database.transaction() as connection:
            event = self.initiate(connection)
        expected, _ = _initiate(0.0)(None, event, NOW)
        assert self.found(database, event) == expected
        for answer in (Unknown("?"), Accepted("SIM-1")):
            with database.transaction() as connection:
                due = Due(event.order_id, BOOKINGS)
                apply(self.store, connection, lambda s, _, now: when_due(s, now), due, LATER)
                expected, _ = when_due(expected, LATER)
                command = RecordAnswer(order_id=event.order_id, answer=answer)
                apply(self.store, connection, record_answer, command, LATER)
                expected, _ = record_answer(expected, command, LATER)
            assert self.found(database, event) == expected
        assert expected.status is ShipmentStatus.COMPLETED

    @pytest.mark.parametrize("how", ["initiated", "unknown", "refused, then restored"])
    def test_decision_about_a_cancellation_is_saved(
        self, databases: dict[str, Database], how: str
    ) -> None:
        reserved = StockReservedEvent(
            order_id=new_order(),
            items=(ReservedItem(product_id="a", quantity=1),),
            shipping_address=ADDRESS,
        )
        change = {
            "order_id": reserved.order_id,
            "change_id": "change",
            "items": (CancelledItem(product_id="a", quantity=1),),
            "whole": True,
        }
        requested = CancellationRequestedEvent(**change)
        refused = CancellationRefusedEvent(**change)
        steps: dict[str, list[tuple[Any, Event]]] = {
            "initiated": [(_initiate(-7.0), reserved), (decide_cancellation, requested)],
            "unknown": [(decide_cancellation, requested)],
            "refused, then restored": [(replay_refusal, refused), (_initiate(-7.0), reserved)],
        }
        expected: Shipment | None = None
        for decide, event in steps[how]:
            expected, _ = decide(expected, event, LATER)
            with databases["shipping"].transaction() as connection:
                apply(self.store, connection, decide, event, LATER)
        with databases["shipping"].read() as connection:
            assert expected is not None
            assert find_shipment(connection, expected.id) == expected

    def test_decision_about_a_hold_is_saved(self, databases: dict[str, Database]) -> None:
        event = StockReservedEvent(
            order_id=new_order(),
            items=(ReservedItem(product_id="a", quantity=1),),
            shipping_address=ADDRESS,
            holds=(PlacedHold(hold_id="one", holder="住所確認", reason="?"),),
        )
        about = {"order_id": event.order_id, "hold_id": "two", "holder": "b", "reason": ""}
        released = HoldReleasedEvent(**about, outcome="RELEASED")
        release = partial(release_shipment_hold, pickup_delay=lambda _: timedelta())
        expected: Shipment | None = None
        steps: list[tuple[Any, Event]] = [
            (decide_hold, HoldRequestedEvent(**about)),
            (_initiate(7.0), event),
            (release, released),
            (release, msgspec.structs.replace(released, hold_id="one")),
        ]
        for decide, step in steps:
            expected, _ = decide(expected, step, LATER)
            with databases["shipping"].transaction() as connection:
                apply(self.store, connection, decide, step, LATER)
            assert self.found(databases["shipping"], event) == expected
        assert expected is not None
        assert expected.due_at == LATER
        with databases["shipping"].transaction() as connection:  # Done with.
            due = Due(event.order_id, BOOKINGS)
            apply(self.store, connection, lambda s, _, now: when_due(s, now), due, LATER)
            command = RecordAnswer(order_id=event.order_id, answer=Rejected("no room"))
            apply(self.store, connection, record_answer, command, LATER)

    def test_rejection_is_saved(self, databases: dict[str, Database]) -> None:
        database = databases["shipping"]
        with database.transaction() as connection:
            event = self.initiate(connection)
            due = Due(event.order_id, BOOKINGS)
            apply(self.store, connection, lambda s, _, now: when_due(s, now), due, LATER)
            command = RecordAnswer(order_id=event.order_id, answer=Rejected("no room"))
            apply(self.store, connection, record_answer, command, LATER)
        shipment = self.found(database, event)
        assert (shipment.status, shipment.reason) == (ShipmentStatus.FAILED, "no room")

    def test_due_rows_are_found_in_due_order(self, databases: dict[str, Database]) -> None:
        with databases["shipping"].transaction() as connection:
            # Long before whatever other tests have left here.
            events = [self.initiate(connection, due_in=-1e9 + n) for n in (3, 1, 2)]
            ids = [events[n].order_id for n in (1, 2, 0)]
            limit = NOW - timedelta(seconds=1e9 - 2.5)
            assert [due.key for due in BOOKINGS.find(connection, limit, 10)] == ids[:2]
            assert [due.key for due in BOOKINGS.find(connection, NOW, 1)] == ids[:1]
            due_range = BOOKINGS.due_range(connection)
            assert due_range is not None
            assert due_range[0] == NOW - timedelta(seconds=1e9 - 1)
            held_until = NOW - timedelta(seconds=1e9 - 1.5)
            window = DueWindow(limit, NOW, NOW - timedelta(seconds=1e9), held_until)
            assert [due.key for due in BOOKINGS.find_corrected(connection, window, 10)] == ids[1:2]
            early = DueWindow(held_until, limit, held_until, held_until)
            found = [due.key for due in BOOKINGS.find_corrected(connection, early, 2)]
            assert found == [ids[0], ids[2]], "by now, or beyond the horizon"
            for event in events:  # Done with, for the sake of other tests.
                key = Due(event.order_id, BOOKINGS)
                apply(self.store, connection, lambda s, _, now: when_due(s, now), key, NOW)

    def test_shipments_are_listed_by_order(self, databases: dict[str, Database]) -> None:
        with databases["shipping"].transaction() as connection:
            events = [self.initiate(connection) for _ in range(2)]
            for event in events:
                (shipment,) = list_shipments(connection, event.order_id, None, 10)
                assert shipment.order_id == event.order_id
                assert list_shipments(connection, event.order_id, shipment.id, 10) == []
            assert len(list_shipments(connection, None, None, 2)) == 2


def _initiate(due_in: float) -> Any:
    def decide(shipment: Any, event: StockReservedEvent, now: datetime) -> Any:
        return initiate_shipment(
            shipment, event, now, pickup_delay=lambda _: timedelta(seconds=due_in)
        )

    return decide


ROWS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "orders": (
        "orders",
        {
            "id": "o",
            "user_id": "u",
            "total_amount": 1,
            "currency": "JPY",
            "shipping_address": "",
            "status": "PENDING",
            "event_count": 0,
            "created_at": NOW,
            "updated_at": NOW,
        },
    ),
    "order_items": (
        "orders",
        {"order_id": "o", "line": 1, "product_id": "p", "quantity": 1, "price": 1},
    ),
    "catalogue": (
        "orders",
        {
            "product_id": "p",
            "version": 1,
            "name": "n",
            "price": 1,
            "currency": "JPY",
            "archived": 0,
            "changed_at": NOW,
        },
    ),
    "order_events": (
        "orders",
        {
            "order_id": "o",
            "event_id": "e",
            "sequence": 1,
            "type": "t",
            "source": "s",
            "said_at": NOW,
            "recorded_at": NOW,
            "status": "PENDING",
            "data": "{}",
        },
    ),
    "products": (
        "inventory",
        {
            "id": "p",
            "name": "n",
            "price": 1,
            "currency": "JPY",
            "stock_quantity": 5,
            "reserved_quantity": 5,
            "created_at": NOW,
            "updated_at": NOW,
        },
    ),
    "catalogue_publications": ("inventory", {"id": "catalogue", "after": ""}),
    "reservations": (
        "inventory",
        {
            "order_id": "o",
            "product_id": "p",
            "location": "main",
            "quantity": 1,
            "state": "RESERVED",
            "created_at": NOW,
            "updated_at": NOW,
        },
    ),
    "stock_ledger": (
        "inventory",
        {
            "product_id": "p",
            "location": "main",
            "order_id": "o",
            "reason": "SHIPMENT",
            "quantity": -1,
            "entered_at": NOW,
        },
    ),
    "shipments": (
        "shipping",
        {
            "id": "s",
            "order_id": "o",
            "number": 1,
            "status": "INITIATED",
            "attempts": 0,
            "due_at": NOW,
            "shipping_address": "",
            "created_at": NOW,
            "updated_at": NOW,
        },
    ),
    "shipment_items": ("shipping", {"shipment_id": "s", "product_id": "p", "quantity": 1}),
    "inbox": ("orders", {"event_id": "e", "received_at": NOW}),
    "outbox": (
        "orders",
        {
            "event_id": "e",
            "reader": "r",
            "owner": "o",
            "position": 1,
            "subject": "s",
            "body": b"",
            "said_at": NOW,
        },
    ),
    "dead_letters": (
        "orders",
        {
            "id": "e",
            "subject": "s",
            "body": b"",
            "error": "e",
            "traceback": "t",
            "attempts": 1,
            "state": "PARKED",
            "parked_at": NOW,
        },
    ),
    "idempotency_keys": (
        "orders",
        {
            "id": "i",
            "fingerprint": "f",
            "kind": "k",
            "refused": 0,
            "content": "{}",
            "used_at": NOW,
        },
    ),
    "pauses": (
        "shipping",
        {"id": "p", "target": "carrier", "paused_at": NOW, "paused_by": "a", "reason": "r"},
    ),
    "paused_timers": ("shipping", {"agenda": "a", "timer": "k", "set_at": NOW}),
    "pauses_elsewhere": ("orders", {"service": "shipping", "version": 1, "pauses": "[]"}),
    "parked_messages": (
        "orders",
        {
            "order_id": "o",
            "service": "inventory",
            "letter_id": "e",
            "message_type": "t",
            "error": "e",
            "parked_at": NOW,
            "closed": 0,
        },
    ),
}
"""For each table the service whose database has it, and a row that it takes."""

CLOSED: Final = {"state": "RETRIED", "closed_at": NOW}
RESUMED: Final = {"resumed_at": NOW, "resumed_by": "b"}

CHECKS: Final[list[tuple[str, str, dict[str, Any]]]] = [
    ("orders", "status_known", {"status": "LOST"}),
    ("orders", "total_amount_exact", {"total_amount": -1}),
    ("orders", "total_amount_exact", {"total_amount": MAX_SAFE_INTEGER + 1}),
    ("orders", "completed_tracked", {"status": "COMPLETED"}),
    ("order_items", "quantity_positive", {"quantity": 0}),
    ("order_items", "price_not_negative", {"price": -1}),
    ("catalogue", "price_exact", {"price": -1}),
    ("catalogue", "price_exact", {"price": MAX_SAFE_INTEGER + 1}),
    ("catalogue", "archived_or_not", {"archived": 2}),
    ("order_events", "sequence_positive", {"sequence": 0}),
    ("products", "price_exact", {"price": -1}),
    ("products", "price_exact", {"price": MAX_SAFE_INTEGER + 1}),
    ("products", "archived_or_not", {"archived": 2}),
    ("products", "stock_exact", {"stock_quantity": MAX_SAFE_INTEGER + 1}),
    ("products", "nothing_oversold", {"reserved_quantity": 6}),
    ("products", "nothing_oversold", {"reserved_quantity": -1}),
    ("reservations", "quantity_positive", {"quantity": 0}),
    ("reservations", "state_known", {"state": "LOST"}),
    ("reservations", "cancelled_of_quantity", {"cancelled": 99}),
    ("reservations", "cancelled_of_quantity", {"cancelled": -1}),
    ("stock_ledger", "reason_known", {"reason": "THEFT", "quantity": 1, "order_id": None}),
    ("stock_ledger", "only_shipments_and_corrections_take", {"quantity": 1}),
    (
        "stock_ledger",
        "only_shipments_and_corrections_take",
        {"reason": "RESTOCK", "order_id": None},
    ),
    ("stock_ledger", "shipments_have_orders", {"order_id": None}),
    ("stock_ledger", "shipments_have_orders", {"reason": "RESTOCK", "quantity": 1}),
    ("shipments", "status_known", {"status": "LOST", "due_at": None}),
    ("shipments", "unfinished_falls_due", {"due_at": None}),
    ("shipments", "unfinished_falls_due", {"status": "FAILED"}),
    ("shipments", "completed_tracked", {"status": "COMPLETED", "due_at": None}),
    ("shipments", "completed_tracked", {"tracking_number": "t"}),
    ("shipment_items", "quantity_positive", {"quantity": 0}),
    ("dead_letters", "attempts_positive", {"attempts": 0}),
    ("dead_letters", "state_known", {"state": "LOST", "closed_at": NOW}),
    ("dead_letters", "closed_once", {"closed_at": NOW}),
    ("dead_letters", "closed_once", {"state": "RETRIED"}),
    ("dead_letters", "parked_for_a_fault", {"error": None}),
    ("dead_letters", "only_parked_retried", CLOSED | {"retry_at": NOW}),
    ("dead_letters", "edited_replaced", CLOSED | {"state": "EDITED"}),
    ("dead_letters", "edited_replaced", {"replaced_by": "e2"}),
    ("dead_letters", "discarded_for_a_reason", CLOSED | {"state": "DISCARDED", "reason": "r"}),
    ("dead_letters", "discarded_for_a_reason", CLOSED | {"state": "DISCARDED", "closed_by": "b"}),
    ("idempotency_keys", "refused_or_not", {"refused": 2}),
    ("parked_messages", "closed_or_not", {"closed": 2}),
    ("pauses", "resumed_by_somebody", {"resumed_at": NOW}),
    ("pauses", "resumed_by_somebody", {"resumed_by": "b"}),
    ("pauses", "rate_of_resume", {"rate": 5}),
    ("pauses", "rate_in_range", RESUMED | {"rate": 0}),
    ("pauses", "rate_in_range", RESUMED | {"rate": 1_001}),
    ("pauses", "through_after_resume", {"through_at": NOW}),
]
"""For each CHECK how a row breaks it."""

KEYS: Final[list[tuple[str, dict[str, Any]]]] = [
    ("orders", {"user_id": "other"}),
    ("order_items", {"product_id": "other"}),
    ("catalogue", {"version": 2}),
    ("order_events", {"sequence": 2}),
    ("products", {"name": "other"}),
    ("catalogue_publications", {"after": "p"}),
    ("reservations", {"quantity": 2}),
    ("stock_ledger", {"quantity": -2}),
    ("shipments", {"order_id": "other"}),
    ("shipments", {"id": "other"}),
    ("shipment_items", {"quantity": 2}),
    ("inbox", {"received_at": LATER}),
    ("outbox", {"position": 2}),
    ("dead_letters", {"subject": "other"}),
    ("idempotency_keys", {"content": "[]"}),
    ("parked_messages", {"closed": 1}),
    ("pauses", {"target": "service"}),
    ("paused_timers", {"set_at": LATER}),
]
"""For each natural key a row that differs from the first in something else only."""


def put(databases: dict[str, Database], table: str, *changes: dict[str, Any]) -> None:
    """Insert a row of a table for each change, and take all of them back."""
    service, row = ROWS[table]
    there = SERVICES[service].store.metadata.tables[table]
    with databases[service].transaction() as connection, connection.begin_nested() as attempt:
        for change in changes:
            connection.execute(insert(there).values(**row | change))
        attempt.rollback()


class TestInvariants:
    @pytest.mark.parametrize("table", ROWS)
    def test_valid_row_is_accepted(self, databases: dict[str, Database], table: str) -> None:
        put(databases, table, {})

    @pytest.mark.parametrize(
        ("table", "check", "change"), CHECKS, ids=[f"{table}-{name}" for table, name, _ in CHECKS]
    )
    def test_a_row_that_breaks_an_invariant_is_refused(
        self, databases: dict[str, Database], table: str, check: str, change: dict[str, Any]
    ) -> None:
        with pytest.raises(ConstraintViolated, match=check):
            put(databases, table, change)

    def test_every_check_of_every_table_is_tested(self) -> None:
        declared = {
            (table.name, constraint.name)
            for service in SERVICES.values()
            for table in service.store.metadata.tables.values()
            for constraint in table.constraints
            if isinstance(constraint, CheckConstraint)
        }
        assert declared == {(table, check) for table, check, _ in CHECKS}

    @pytest.mark.parametrize(
        ("table", "change"), KEYS, ids=[f"{table}-{'-'.join(change)}" for table, change in KEYS]
    )
    def test_a_second_row_with_the_same_natural_key_is_refused(
        self, databases: dict[str, Database], table: str, change: dict[str, Any]
    ) -> None:
        with pytest.raises(ConstraintViolated):
            put(databases, table, {}, change)

    def test_product_can_be_restocked_many_times(self, databases: dict[str, Database]) -> None:
        """Only deductions have a natural key."""
        delivery = {"reason": "RESTOCK", "quantity": 1, "order_id": None}
        put(databases, "stock_ledger", delivery, delivery)

    @pytest.mark.parametrize("table", ROWS)
    def test_required_column_must_not_be_null(
        self, databases: dict[str, Database], table: str
    ) -> None:
        service, row = ROWS[table]
        columns = SERVICES[service].store.metadata.tables[table].c
        for column in row:
            if not columns[column].nullable and not columns[column].primary_key:
                with pytest.raises(ConstraintViolated):
                    put(databases, table, {column: None})


class TestParkedMessages:
    def test_resolved_message_stays_closed_when_another_process_hears_of_it_later(
        self, databases: dict[str, Database]
    ) -> None:
        """Each has found no row: one handles that it is resolved, the other that it was parked."""
        parked = ParkedMessage(
            service="shipping",
            letter_id="letter",
            order_id=new_order(),
            message_type="OrderCreatedEvent",
            error="ValueError",
            parked_at=NOW,
        )
        resolved = msgspec.structs.replace(parked, closed=True)
        for said in (resolved, parked):
            with databases["orders"].transaction() as connection:
                parked_messages.save(connection, [said])
        with databases["orders"].transaction() as connection:
            found = parked_messages.load(connection, [parked.order_id])
        assert list(found.values()) == [resolved]


class TestIdempotencyKeys:
    def test_order_is_answered_as_it_was_accepted(self, databases: dict[str, Database]) -> None:
        orders = SERVICES["orders"]
        key = IdempotencyKey(key_id("alice", new_order()), "order")
        with databases["orders"].transaction() as connection:
            command = TestOrders().place(connection)
            accepted = find_order(connection, command.order_id)
            assert accepted is not None
            kept = kept_answer(key, accepted, orders.formats)
            orders.store.tables.idempotency_keys.add(connection, [(key.id, kept)], NOW)
            refused = StockReservationFailedEvent(
                order_id=command.order_id, reason="none left", failed_items=()
            )
            apply(OrdersStore(), connection, cancel_for_lack_of_stock, refused, LATER)
        with databases["orders"].read() as connection:
            found = orders.store.tables.idempotency_keys.find(connection, ["unused", key.id])
            answer = rebuild_answer(connection, found[key.id], key, orders.formats)
        assert answer == accepted
        assert found == {key.id: kept}
        assert ADDRESS not in kept.content
        assert "user123" not in kept.content

    def test_key_is_used_once(self, databases: dict[str, Database]) -> None:
        table = SERVICES["orders"].store.tables.idempotency_keys
        answer = (key_id("alice", new_order()), KeptAnswer("f", "k", False, "{}"))
        with databases["orders"].transaction() as connection:
            table.add(connection, [answer], NOW)
        with (
            pytest.raises(ConstraintViolated),
            databases["orders"].transaction() as connection,
        ):
            table.add(connection, [answer], NOW)

    def test_the_oldest_keys_are_pruned(self, databases: dict[str, Database]) -> None:
        table = SERVICES["shipping"].store.tables.idempotency_keys
        kept = KeptAnswer("f", "k", False, "{}")
        with databases["shipping"].transaction() as connection:
            for n in range(4):
                table.add(connection, [(str(n), kept)], NOW + timedelta(seconds=n))
            assert table.prune(connection, NOW + timedelta(seconds=3), 2) == 2
            assert table.prune(connection, NOW + timedelta(seconds=3), 2) == 1
            assert table.find(connection, "0123").keys() == {"3"}


def writer(database: Database, owner: str, name: str = "inventory") -> Writer:
    service = SERVICES[name]
    return Writer(service, database, TOPOLOGY, owner=owner)


def owned(database: Database) -> dict[str, int]:
    """Return the number of outbox rows of each owner."""
    outbox = SERVICES["inventory"].store.metadata.tables["outbox"]
    with database.read() as connection:
        found = connection.execute(select(outbox.c.owner, func.count()).group_by(outbox.c.owner))
        return dict(found.all())  # type: ignore[arg-type]


def refusable() -> OrderCreatedEvent:
    """Return an order of an unknown product, whose reservation is refused."""
    items = (OrderedItem(product_id="ghost", quantity=1, price=1),)
    return OrderCreatedEvent(order_id=new_order(), user_id="u", items=items, total_amount=1)


def confirmed(order_id: str, change_id: str, product_id: str) -> CancellationConfirmedEvent:
    """Return that a line is cancelled, or with the change `rest`, all that was left of an order."""
    return CancellationConfirmedEvent(
        order_id=order_id,
        change_id=change_id,
        items=(CancelledItem(product_id=product_id, quantity=1),),
        whole=change_id == "rest",
    )


@pytest.fixture
def replicated(postgres_url: str) -> Iterator[tuple[Database, Database]]:
    """One PostgreSQL database, open twice, as by two replicas of the inventory."""
    with Database.open(postgres_url) as one, Database.open(postgres_url) as other:
        migrate(one, "todoku.inventory")
        yield one, other


class TestReplicas:
    def test_a_database_in_a_file_has_one_process_and_a_server_has_many(
        self, databases: dict[str, Database]
    ) -> None:
        for database in databases.values():
            assert database.exclusive == (database.dialect_name == "sqlite")

    def test_pending_deliveries_of_a_replica_are_adopted_only_after_its_lease(
        self, replicated: tuple[Database, Database]
    ) -> None:
        one, other = (writer(each, owner) for each, owner in zip(replicated, "ab", strict=True))
        one.adopt(NOW, lease_seconds=60)
        one.step([incoming(refusable()), incoming(refusable())], NOW, 0)
        assert other.adopt(NOW, lease_seconds=60) == 0
        assert owned(replicated[0]) == {"a": 2}
        one.adopt(NOW, lease_seconds=0)
        assert other.adopt(NOW, lease_seconds=60) == 2
        assert owned(replicated[0]) == {"b": 2}

    @pytest.mark.parametrize("hours", [-8, -1, 1, 8])
    def test_clock_of_a_replica_says_nothing_about_the_lease_of_another(
        self, replicated: tuple[Database, Database], hours: int
    ) -> None:
        one, other = (writer(each, owner) for each, owner in zip(replicated, "ab", strict=True))
        elsewhere = NOW + timedelta(hours=hours)
        one.adopt(NOW, lease_seconds=60)
        one.step([incoming(refusable())], NOW, 0)
        assert other.adopt(elsewhere, lease_seconds=60) == 0
        one.adopt(NOW, lease_seconds=0)
        assert other.adopt(elsewhere, lease_seconds=60) == 1
        assert owned(replicated[0]) == {"b": 1}

    def test_lease_that_an_earlier_version_wrote_with_a_clock_hours_ahead_expires(
        self, replicated: tuple[Database, Database]
    ) -> None:
        one, other = (writer(each, owner) for each, owner in zip(replicated, "ab", strict=True))
        one.adopt(NOW, lease_seconds=60)
        one.step([incoming(refusable())], NOW, 0)
        with replicated[0].transaction() as connection:
            ahead = datetime.now(UTC) + timedelta(hours=8)
            leases = SERVICES["inventory"].store.tables.leases.table
            connection.execute(update(leases).values(expires_at=ahead))
        assert other.adopt(NOW, lease_seconds=15) == 1
        assert owned(replicated[0]) == {"b": 1}

    def test_renewed_lease_does_not_expire(self, replicated: tuple[Database, Database]) -> None:
        one, other = (writer(each, owner) for each, owner in zip(replicated, "ab", strict=True))
        for seconds in range(0, 60, 10):
            one.adopt(NOW + timedelta(seconds=seconds), lease_seconds=15)
            one.step([incoming(refusable())], NOW, 0)
            other.adopt(NOW + timedelta(seconds=seconds + 9), lease_seconds=15)
        assert owned(replicated[0]) == {"a": 6}

    def test_pages_of_products_have_room_for_updates(
        self, replicated: tuple[Database, Database]
    ) -> None:
        with replicated[0].read() as connection:
            options = "SELECT reloptions FROM pg_class WHERE oid = 'products'::regclass"
            assert connection.scalar(text(options)) == ["fillfactor=50"]

    def test_same_events_at_two_replicas_at_once_are_handled_once(
        self, replicated: tuple[Database, Database]
    ) -> None:
        """They meet in the inbox; whoever comes second tries again and then knows them."""
        events = [refusable() for _ in range(40)]
        batches = [
            [incoming(event) for event in events],
            [incoming(event) for event in events[::-1]],
        ]
        together = threading.Barrier(2, timeout=60)
        outcomes: dict[str, PostCommitActions] = {}

        def batch_context(owner: str, database: Database, batch: list[IncomingEvent]) -> None:
            replica = writer(database, owner)
            together.wait()
            for _ in range(20):
                try:
                    outcomes[owner] = replica.step(batch, NOW, 0)
                except DatabaseUnavailable:
                    continue  # A deadlock: PostgreSQL chose this one to give way.
                return

        threads = [
            threading.Thread(target=batch_context, args=each)
            for each in zip("ab", replicated, batches, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert set(outcomes) == {"a", "b"}
        for actions in outcomes.values():
            assert len(actions.acks) == 40
            assert actions.naks == []
        assert sum(owned(replicated[0]).values()) == 40
        assert sum(len(actions.published) for actions in outcomes.values()) == 40

    def test_two_changes_of_an_order_that_has_not_arrived_meet(
        self, replicated: tuple[Database, Database]
    ) -> None:
        """Each process finds nothing of the order, and adds a line of another product. Without a place where
        they meet, it would be expected and cancelled at once, and be reserved when it arrives."""
        order_id = new_order()
        one = confirmed(order_id, "one", "coffee")
        rest = confirmed(order_id, "rest", "tea")
        store = InventoryStore()

        def handle_both_at_once() -> None:
            with replicated[1].transaction() as later:
                unit_of_work = store.load(later, [rest], StateCache(0))
                with replicated[0].transaction() as connection:
                    apply(store, connection, release_cancelled, one, NOW)
                state, _ = release_cancelled(unit_of_work.view(rest), rest, NOW)
                unit_of_work.put(rest, state)
                store.save(later, unit_of_work, NOW)

        with pytest.raises(ConstraintViolated):
            handle_both_at_once()
        with replicated[1].transaction() as connection:
            apply(store, connection, release_cancelled, rest, NOW)
            found = store.load(connection, [rest], StateCache(0)).view(rest).reservation
        assert found.state is ReservationState.CANCELLED
        assert [each.id for each in found.changes] == ["one", "rest"]

    def test_the_same_request_at_both_at_once_is_executed_once(
        self, replicated: tuple[Database, Database]
    ) -> None:
        """They meet in the key; whoever comes second tries again and then finds the answer."""
        one, other = (writer(each, owner) for each, owner in zip(replicated, "ab", strict=True))
        product = SetProduct(product_id="p", name="n", price=1, stock_quantity=0)
        one.step([PendingCommand(product, lambda _: None)], NOW, 0)
        keys = [IdempotencyKey(key_id("alice", str(n)), "restock") for n in range(20)]
        together = threading.Barrier(2, timeout=60)
        answers: list[object] = []

        def restock_all(replica: Writer, name: str) -> None:
            batch = [
                PendingCommand(
                    Restock(product_id="p", quantity=1, adjustment_id=f"{name} {n}"),
                    lambda _: None,
                    key=key,
                )
                for n, key in enumerate(keys)
            ]
            together.wait()
            answers.extend(result for _, result in replica.step(batch, NOW, 0).answers)

        threads = [
            threading.Thread(target=restock_all, args=pair) for pair in ((one, "a"), (other, "b"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        with replicated[0].read() as connection:
            stock = find_product(connection, "p")
        assert stock is not None
        assert stock.on_hand == 20
        assert (
            sorted(type(each).__name__ for each in answers) == ["KeptAnswer"] * 20 + ["Stock"] * 20
        )

    def test_last_piece_is_sold_once(self, replicated: tuple[Database, Database]) -> None:
        one, other = (writer(each, owner) for each, owner in zip(replicated, "ab", strict=True))
        product = SetProduct(product_id="last", name="n", price=1, stock_quantity=1)
        one.step([PendingCommand(product, lambda _: None)], NOW, 0)
        published: list[str] = []

        def buy(replica: Writer) -> None:
            items = (OrderedItem(product_id="last", quantity=1, price=1),)
            event = OrderCreatedEvent(
                order_id=new_order(), user_id="u", items=items, total_amount=1
            )
            actions = replica.step([incoming(event)], NOW, 0)
            published.extend(row.subject for row in actions.published)

        threads = [threading.Thread(target=buy, args=(replica,)) for replica in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert sorted(published) == ["inventory.reservation_failed", "inventory.reserved"]
