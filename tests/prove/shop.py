"""The built-in services as a scenario: orders of one product, cancelled or held at any time; a carrier."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from prove import checks
from prove.scenario import Asked, Outside, Scenario
from todoku.contracts import (
    BookingAttemptFailedEvent,
    CancelledItem,
    OrderedItem,
    PausesEvent,
    ProductChangedEvent,
    fact_id,
)
from todoku.engine import Service
from todoku.events import AuditAnchoredEvent, ErasureEvent
from todoku.inventory.domain import Restock, SetProduct
from todoku.orders.cancellation import CancelOrder
from todoku.orders.holding import HoldOrder, NewHold, ReleaseHold
from todoku.orders.placing import PlaceOrder
from todoku.settings import Span
from todoku.shipping.domain import Accepted, RecordAnswer, Rejected, Unknown
from todoku.system import system

PRODUCT: Final = "keyboard"
PRICE: Final = 100
HOLD: Final = NewHold(holder="fraud-review", reason="?")

Plant = Callable[[Service], Service]
"""Replaces something in a service: it plants a bug."""


def shop(
    quantities: Sequence[int] = (1, 1),
    *,
    stock: int = 1,
    cancellations: int = 1,
    lines: int = 0,
    holds: int = 0,
    held: bool = False,
    restocks: int = 0,
    republishes: bool = False,
    deadlines: bool = True,
    plant: Plant = lambda service: service,
) -> Scenario:
    """Return a scenario: an order of each of these `quantities`, with `stock` pieces at first.

    That an attempt to book a parcel has failed is left out: it explains an order, and decides nothing.

    A client asks up to `cancellations` times, each in its own words, to cancel an order, and up to `lines`
    times to cancel one piece of it. Up to `holds` times an order is held; it is placed with a hold if it is
    `held`. Each hold may be released. `restocks` times a piece may arrive.
    """
    # A delay, so that between the opening of a shipment and the call to the carrier anything may happen.
    settings = system.settings(carrier_delay_seconds=Span(1, 1))
    return Scenario(
        services=tuple(
            plant(_without_reports(service if deadlines else _without_deadlines(service)))
            for service in map(_without_catalogue, system.build(settings, effects={}))
        ),
        plans=[_plan(quantity, cancellations, lines, holds, held) for quantity in quantities],
        outside=Outside(
            answers=(Accepted("TRACK"), Rejected("refused")),
            unknown=Unknown("no answer"),
            command=_record,
        ),
        setup=[_product(stock)],
        common=[Asked("add stock", "inventory", _restock(n)) for n in range(restocks)],
        check_step=checks.check_step,
        check=checks.check,
        measure=checks.measure,
        check_total=checks.check_total,
        outcome=checks.outcome,
        republishes=republishes,
    )


def _without_deadlines(service: Service) -> Service:
    """Return the service with the agendas alone without which nothing would go on."""
    return replace(service, agendas=[each for each in service.agendas if each.starts_effects])


def _without_catalogue(service: Service) -> Service:
    """Return the service without its copies of the catalogue, since an order is decided on once, when it is
    placed, so that nothing that is explored here follows from prices; and of pauses, of the anchors of
    audit logs and of erasures, which decide nothing."""
    handlers = {
        event: handler
        for event, handler in service.event_handlers.items()
        if event is not ProductChangedEvent
        and not issubclass(event, (PausesEvent, AuditAnchoredEvent, ErasureEvent))
    }
    return replace(service, event_handlers=handlers)


def _without_reports(service: Service) -> Service:
    """Return the service without the events that only explain why an order waits."""

    def decide(original: Any, state: Any, command: Any, now: Any) -> Any:
        after, events = original(state, command, now)
        return after, [e for e in events if not isinstance(e, BookingAttemptFailedEvent)]

    handlers = {
        kind: partial(decide, original) if kind is RecordAnswer else original
        for kind, original in service.command_handlers.items()
    }
    return replace(service, command_handlers=handlers)


def _plan(
    quantity: int, cancellations: int, lines: int, holds: int, held: bool
) -> tuple[str, tuple[Asked, ...]]:
    """Return the key and the commands of an order; those of the same quantity are the same."""
    key = f"019afc35-4aa8-7d91-a9a9-{quantity:012}"
    place = PlaceOrder(
        order_id=key,
        user_id="user",
        items=(OrderedItem(product_id=PRODUCT, quantity=quantity, price=PRICE),),
        currency="JPY",
        shipping_address="Tokyo",
        holds=(HOLD,) * held,
    )
    cancels = [
        CancelOrder(order_id=key, change_id=f"change{n}", reason="changed mind", by="user")
        for n in range(cancellations)
    ]
    pieces = [
        CancelOrder(
            order_id=key,
            change_id=f"piece{n}",
            items=(CancelledItem(product_id=PRODUCT, quantity=1),),
            by="user",
        )
        for n in range(lines)
    ]
    return key, (
        Asked("place the order", "orders", place),
        *(Asked("cancel the order", "orders", cancel) for cancel in cancels),
        *(Asked("cancel a piece", "orders", cancel) for cancel in pieces),
        *_holds(key, holds, held),
    )


def _holds(key: str, holds: int, held: bool) -> Iterator[Asked]:
    """Yield what clients ask about holds; a hold of the request that placed the order is only released."""
    made = [f"hold{n}" for n in range(holds)]
    for hold_id in made:
        command = HoldOrder(order_id=key, hold_id=hold_id, hold=HOLD)
        yield Asked(f"hold the order ({hold_id})", "orders", command)
    for hold_id in (*made, *([fact_id(key, "Hold 1")] if held else ())):
        release = ReleaseHold(order_id=key, hold_id=hold_id)
        yield Asked(f"release {hold_id}", "orders", release)


def _product(stock: int) -> Asked:
    command = SetProduct(product_id=PRODUCT, name="Keyboard", price=PRICE, stock_quantity=stock)
    return Asked("create the product", "inventory", command)


def _restock(number: int) -> Restock:
    return Restock(product_id=PRODUCT, quantity=1, adjustment_id=f"restock {number}")


def _record(effect: Any, answer: Any) -> RecordAnswer:
    return RecordAnswer(order_id=effect.order_id, answer=answer)
